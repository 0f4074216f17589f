/** A session by name or pid, dumped, and then let go on, ended, or ended only when its image is stored. */
import { existsSync } from 'node:fs';
import type { ConnectionFate, DumpTarget, Engine, Explanation, StoppedSession } from '../engine/engine.ts';
import { kmodEngine } from '../engine/kmod/index.ts';
import { userEngine } from '../engine/user/index.ts';
import { killPod } from '../pod/kill.ts';
import { innerPid } from '../pod/proc.ts';
import { findPod, type PodEntry, podOfProcess } from '../pod/registry.ts';
import { type WaitOptions, waitForReceipt } from '../runtime/receipt.ts';
import { PodError } from '../stream/error.ts';
import type { Sink } from '../stream/sink.ts';
import { sessionRoots } from './session-roots.ts';

export interface FoundSession {
  target: DumpTarget;
  /** The pod, when the session runs in one. */
  pod: PodEntry | undefined;
}

/** `nameOrPid`: a pod's name, or the pid of the topmost process of a session. Throws usage when there is none. */
export function findSession(nameOrPid: string): FoundSession {
  const entry = findPod(nameOrPid);
  if (entry) return fromPod(entry);
  if (!/^[1-9][0-9]*$/.test(nameOrPid)) {
    throw new PodError(
      'usage',
      `there is no pod named ${nameOrPid}`,
      'pod-ps lists the pods; a plain process is named by its pid',
    );
  }
  const pid = Number(nameOrPid);
  if (!existsSync(`/proc/${pid}`)) throw new PodError('usage', `there is no process ${pid}`);
  if (pid === process.pid || pid === 1) throw new PodError('usage', `process ${pid} can't be dumped`);
  const pod = podOfProcess(pid);
  // The pid of pod-init, or of the pod's topmost process, means the pod.
  if (pod && (pod.init === pid || innerPid(pid) === pod.main)) return fromPod(pod);
  return { target: { name: `pid-${pid}`, roots: [pid], rooted: false }, pod: undefined };
}

function fromPod(entry: PodEntry): FoundSession {
  if (entry.held)
    throw new PodError('other', `pod ${entry.name} is being restarted`, 'try again in a moment');
  return {
    target: {
      name: entry.name,
      roots: sessionRoots(entry.init),
      init: entry.init,
      rooted: entry.root !== null,
      ...(entry.net === undefined ? {} : { net: entry.net }),
      ...(entry.address === undefined ? {} : { address: entry.address }),
      ...(entry.confined ? { confined: true } : {}),
      ...(entry.limits ? { limits: limitsOf(entry.limits) } : {}),
      ...(entry.mounts
        ? { mounts: { before: entry.mounts, ...(entry.root === null ? {} : { root: entry.root }) } }
        : {}),
    },
    pod: entry,
  };
}

function limitsOf({ memory, ...others }: NonNullable<PodEntry['limits']>): NonNullable<DumpTarget['limits']> {
  return { ...others, ...(memory === undefined ? {} : { memory: BigInt(memory) }) };
}

/** What stands against a dump of it, all of it; the session goes on. */
export const explainSession = (
  { target }: FoundSession,
  engine: Engine['name'] = defaultEngine,
): Explanation => engines[engine].explain(target);

export interface DumpSessionOptions {
  producer: string;
  /** What becomes of the session: `suspend` ends it when its image is stored, and only then. */
  fate: 'run' | 'kill' | 'suspend';
  /** Of TCP connections to outside. Default: reset. */
  tcp?: ConnectionFate | undefined;
  /** Folders and files of the session's that go along, absolute, as it sees them. */
  withFiles?: readonly string[];
  receipt?: WaitOptions;
  onReady?: (memoryBytes: number) => void;
  onLoss?: (sentence: string) => void;
  /** Default: user. The module's does not handle as much yet. */
  engine?: Engine['name'] | undefined;
  /** The sink only writes to this descriptor; `add` is told the bytes that an engine has written there itself. */
  direct?: { descriptor: number; add(bytes: number): void };
}

const engines: Record<Engine['name'], Engine> = { user: userEngine, kmod: kmodEngine };
const defaultEngine = 'user';

function dumpByEngine(found: FoundSession, options: DumpSessionOptions, sink: Sink): StoppedSession {
  const { producer, tcp, withFiles, onReady, direct } = options;
  let told = 0;
  const name = options.engine ?? defaultEngine;
  return engines[name].dump(
    found.target,
    {
      producer,
      ...(tcp ? { tcp } : {}),
      ...(withFiles ? { withFiles } : {}),
      onReady: (totals) => onReady?.(totals.memoryBytes),
      ...(direct && name === 'kmod'
        ? {
            descriptor: direct.descriptor,
            onProgress: (bytes: number) => {
              direct.add(bytes - told);
              told = bytes;
            },
          }
        : {}),
    },
    sink,
  );
}

/** Dump a session into `sink`, which is ended, and decide its fate. On any failure the session goes on. */
export async function dumpSession(
  found: FoundSession,
  options: DumpSessionOptions,
  sink: Sink,
): Promise<{ imageId: string }> {
  let stopped: StoppedSession | undefined;
  try {
    stopped = dumpByEngine(found, options, sink);
    for (const sentence of stopped.losses) options.onLoss?.(sentence);
    sink.end();
    if (options.fate === 'suspend') await waitForReceipt(stopped.imageId, options.receipt ?? {});
  } catch (cause) {
    stopped?.thaw();
    sink.abort(cause);
    throw options.fate === 'run' ? cause : reassure(cause);
  }
  if (options.fate === 'run') stopped.thaw();
  else await endSession(stopped, found);
  return { imageId: stopped.imageId };
}

/** Who asked for the end of a session must know that it did not come. */
function reassure(cause: unknown): PodError {
  const { failure, message, hint } = PodError.from(cause);
  return new PodError(failure, `${message}; the session goes on`, hint, { cause });
}

async function endSession(stopped: StoppedSession, found: FoundSession): Promise<void> {
  stopped.kill();
  if (found.pod) await killPod(found.pod);
}
