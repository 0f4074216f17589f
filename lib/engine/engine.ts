/**
 * What an engine is: it makes images of sessions and sessions of images. Two exist by design: `user` (here, no
 * module, no root for one's own sessions) and `kmod` (the module of kmod/). Restart is the user engine's for both; with
 * `kmod` the module gives the tasks what only a kernel can give.
 */
import type { Records } from '../image/record.ts';
import type { Sink } from '../stream/sink.ts';

/** What to dump. */
export interface DumpTarget {
  /** Name that goes into the image. */
  name: string;
  /** Host pids of the session's topmost processes. */
  roots: readonly number[];
  /** Host pid of pod-init, which is not part of the image. */
  init?: number;
  /** The session has a root directory of its own. */
  rooted: boolean;
  /** The pod confines it: what it lacks is the pod's, and no part of the image. */
  confined?: boolean;
  /** Its network; absent: the computer's. */
  net?: 'host' | 'none' | 'own';
  /** own: its IPv4 address. */
  address?: string;
  /** Limits of the pod. */
  limits?: Records['pod']['limits'];
  /** The pod's mounts when it was made (lib/runtime/mount-list.ts), and the root folder it was given. */
  mounts?: { before: readonly string[]; root?: string };
}

/** A session stopped by dump(): its image is written, its fate is open. */
export interface StoppedSession {
  imageId: string;
  /** What restart will not bring back, a sentence each. */
  losses: readonly string[];
  /** Let it go on. */
  thaw(): void;
  /** End it: every process of it is killed. */
  kill(): void;
}

/** What becomes of TCP connections to outside: as if their peers had reset them, or they go on with the address. */
export const connectionFates = ['reset', 'keep'] as const;
export type ConnectionFate = (typeof connectionFates)[number];

/** What a dump would meet. */
export interface Explanation {
  /** What can't be saved, as a dump's error would name it; none when the session can go. */
  obstacles: readonly { message: string; hint: string | null }[];
  /** What restart would not bring back, a sentence each. */
  losses: readonly string[];
}

export interface DumpOptions {
  /** Default: reset. `keep` is for a session that will be ended. */
  tcp?: ConnectionFate;
  /** Program and version for HELLO. */
  producer: string;
  /** Folders and files of the session's, whose contents go along. */
  withFiles?: readonly string[];
  /** Called when everything but the memory is known, before the first byte is written. */
  onReady?: (totals: { memoryBytes: number; processes: number; threads: number }) => void;
  /** Called with the memory bytes read so far. */
  onProgress?: (memoryBytes: number) => void;
  /** What is written into the sink goes to this descriptor as it is: an engine may write there itself. */
  descriptor?: number;
}

export interface Engine {
  readonly name: 'user' | 'kmod';
  /**
   * Stop the session and write its image into `sink`, END included; sink.end() is left to the caller, as is the
   * session, which stays stopped. On failure the session goes on and PodError says why; exit 11 (an object that
   * cannot be saved) is thrown before the first byte is written.
   */
  dump(target: DumpTarget, options: DumpOptions, sink: Sink): StoppedSession;
  /** Look at all of a session as a dump does, and past what can't be saved; nothing is written, and it goes on. */
  explain(target: DumpTarget): Explanation;
}
