/**
 * Sitting at a pod's console: relay output to a descriptor and input to the session until it ends or the user
 * detaches. Output is written with blocking calls, so a reader that is slow holds the relay, not memory.
 */
import { createReadStream, fstatSync } from 'node:fs';
import { Socket } from 'node:net';
import { constants } from 'node:os';
import type { Readable } from 'node:stream';
import { isatty, ReadStream } from 'node:tty';
import { DescriptorSink } from '../stream/descriptor.ts';
import { PodError } from '../stream/error.ts';
import { connectPod, type PodConnection } from './console.ts';
import type { PodEntry } from './registry.ts';
import { makeRaw, windowSize } from './terminal.ts';

export interface AttachSettings {
  /** `terminal`: descriptor 0 in raw mode, with the detach key. `stream`: its bytes, then end of input. */
  input: 'terminal' | 'stream' | 'none';
  /** See AttachOptions in console.ts. */
  replay: boolean;
  wait: boolean;
  /** What SIGINT, SIGTERM and SIGHUP do to us: go to the session, or detach. Default detach. */
  signals?: 'forward' | 'detach';
}

export type AttachEnd = { kind: 'exit'; status: number } | { kind: 'detached' } | { kind: 'killed' };

export interface Attachment {
  /** How it ended; rejects when the output cannot be written. */
  readonly end: Promise<AttachEnd>;
}

const forwarded = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const ctrlP = 0x10;
const ctrlQ = 0x11;

/** Exit status of a shell for a wait status: the exit code, or 128 + signal. */
export function exitCodeOf(status: number): number {
  return (status & 0x7f) === 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f);
}

/** Attach; resolves when pid 1 has taken us on, so that nothing printed from now on is missed. */
export async function attachPod(entry: PodEntry, settings: AttachSettings): Promise<Attachment> {
  const output = new DescriptorSink(1, { close: false });
  const cleanups: (() => void)[] = [];
  let settle!: { resolve(end: AttachEnd): void; reject(cause: unknown): void };
  const ended = new Promise<AttachEnd>((resolve, reject) => {
    settle = { resolve, reject };
  });

  const connection = await connectPod(entry, {
    output(bytes) {
      try {
        output.write(bytes);
        output.flush();
      } catch (cause) {
        settle.reject(
          new PodError(
            'other',
            PodError.from(cause).message,
            `the session goes on: pod-attach ${entry.name} shows it, pod-kill ${entry.name} ends it`,
            { cause },
          ),
        );
      }
    },
    exit: (status) => settle.resolve({ kind: 'exit', status }),
    close: () => settle.resolve({ kind: 'killed' }),
  });
  try {
    const terminal = settings.input === 'terminal';
    connection.attach({ replay: settings.replay, wait: settings.wait, ...(terminal ? windowSize(0) : {}) });
    await connection.status();
    if (terminal) {
      cleanups.push(makeRaw(0), followWindow(connection));
    }
    if (settings.input !== 'none') {
      const detach = terminal ? () => settle.resolve({ kind: 'detached' }) : undefined;
      cleanups.push(relayInput(connection, detach, settle.reject));
    }
    cleanups.push(
      onSignals((signal) => {
        if (settings.signals !== 'forward') settle.resolve({ kind: 'detached' });
        // A session that just ended needs no signal.
        else connection.signal(constants.signals[signal]).catch(() => {});
      }),
    );
  } catch (cause) {
    settle.reject(cause);
  }
  const end = ended.finally(() => {
    for (const cleanup of cleanups.reverse()) cleanup();
    connection.close();
  });
  // Somebody may await it later than it fails.
  end.catch(() => {});
  return { end };
}

/** What the console showed lately (up to 64 KiB), to descriptor 1. */
export async function printSnapshot(entry: PodEntry): Promise<void> {
  const output = new DescriptorSink(1, { close: false });
  let done!: () => void;
  const finished = new Promise<void>((resolve) => {
    done = resolve;
  });
  const connection = await connectPod(entry, {
    output: (bytes) => output.write(bytes),
    done: () => done(),
    exit: () => done(),
    close: () => done(),
  });
  connection.attach({ replay: true, once: true });
  await finished;
  connection.close();
  output.flush();
}

function followWindow(connection: PodConnection): () => void {
  const follow = () => {
    const size = windowSize(0);
    if (size) connection.resize(size.rows, size.columns);
  };
  process.on('SIGWINCH', follow);
  return () => process.off('SIGWINCH', follow);
}

function onSignals(act: (signal: NodeJS.Signals) => void): () => void {
  for (const signal of forwarded) process.on(signal, act);
  return () => {
    for (const signal of forwarded) process.off(signal, act);
  };
}

/** Descriptor 0 as a stream that can be left while a read is under way (a file's never is for long). */
function openInput(): Readable {
  if (isatty(0)) return new ReadStream(0);
  const status = fstatSync(0);
  if (status.isFIFO() || status.isSocket()) return new Socket({ fd: 0, readable: true, writable: false });
  return createReadStream('', { fd: 0, autoClose: false });
}

/** Relay descriptor 0. With `detach` the keys ctrl-p ctrl-q call it instead of reaching the session. */
function relayInput(
  connection: PodConnection,
  detach: (() => void) | undefined,
  fail: (cause: unknown) => void,
): () => void {
  const input = openInput();
  const type = (bytes: Uint8Array) => {
    if (bytes.length === 0 || connection.input(bytes)) return;
    input.pause();
    void connection.drained().then(() => input.resume());
  };
  input.on('data', detach ? watchDetachKeys(type, detach) : type);
  input.on('end', () => connection.endInput());
  input.on('error', (cause: NodeJS.ErrnoException) => {
    // A terminal that is gone says EIO.
    if (cause.code === 'EIO') detach?.();
    else fail(new PodError('other', `cannot read the input: ${cause.message}`, undefined, { cause }));
  });
  return () => input.destroy();
}

/** How long a ctrl-p waits for a ctrl-q: it is a key of its own to many a program. */
const detachPause = 400;

/** Hands typed bytes on to `type`, without ctrl-p ctrl-q, which calls `detach`. */
function watchDetachKeys(type: (bytes: Uint8Array) => void, detach: () => void): (chunk: Uint8Array) => void {
  let held: NodeJS.Timeout | undefined;
  return (chunk) => {
    const out: number[] = [];
    for (const byte of chunk) {
      if (held) {
        clearTimeout(held);
        held = undefined;
        if (byte === ctrlQ) {
          type(Uint8Array.from(out));
          detach();
          return;
        }
        out.push(ctrlP);
      }
      if (byte !== ctrlP) out.push(byte);
      else {
        held = setTimeout(() => {
          held = undefined;
          type(Uint8Array.of(ctrlP));
        }, detachPause);
        held.unref();
      }
    }
    type(Uint8Array.from(out));
  };
}
