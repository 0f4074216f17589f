/**
 * Raw descriptors as the two ends of a chain. Never process.stdin or process.stdout: touching them sets
 * O_NONBLOCK and makes writeSync throw EAGAIN. A descriptor that somebody else made non-blocking is waited for.
 */
import { closeSync, openSync, readSync, writevSync } from 'node:fs';
import { native } from '../../native/index.ts';
import { nap } from '../../native/nap.ts';
import { PodError } from './error.ts';
import type { Sink } from './sink.ts';

function codeOf(cause: unknown): string | undefined {
  return (cause as NodeJS.ErrnoException).code;
}

/** read(2) that waits on a non-blocking descriptor. 0 is end of file. */
export function readDescriptor(fd: number, target: Uint8Array): number {
  for (;;) {
    try {
      return readSync(fd, target, 0, target.length, null);
    } catch (cause) {
      const code = codeOf(cause);
      if (code === 'EAGAIN') nap(1);
      else if (code === 'EOF') return 0;
      else if (code !== 'EINTR') throw cause;
    }
  }
}

/** write(2) and its like, that wait on a non-blocking descriptor; what `write` returns. */
export function writeDescriptor(write: () => number): number {
  for (;;) {
    try {
      return write();
    } catch (cause) {
      const code = codeOf(cause);
      if (code === 'EAGAIN') nap(1);
      else if (code === 'EPIPE')
        throw new PodError(
          'other',
          'the reader of the output went away',
          'see the message of the next command in the pipeline',
          { cause },
        );
      else if (code !== 'EINTR') throw cause;
    }
  }
}

/** Push all of a descriptor into a sink; on failure abort the sink and rethrow the first cause. */
export function pump(fd: number, sink: Sink, bufferSize = 1 << 20): void {
  const buffer = new Uint8Array(bufferSize);
  try {
    for (;;) {
      const length = readDescriptor(fd, buffer);
      if (length === 0) break;
      sink.write(buffer.subarray(0, length));
    }
    sink.end();
  } catch (cause) {
    sink.abort(cause);
    throw cause;
  }
}

const sysFcntl = 72;
const dupCloseOnExec = 1030;
const sysDup3 = 292;

/**
 * close(2), but a standard number is not given out again: a thread that starts just then (a filter's worker) would have
 * its event loop in it, and libuv ends the process that closes such a one.
 */
function closeDescriptor(fd: number): void {
  if (fd > 2) {
    closeSync(fd);
    return;
  }
  const last = Number(native().syscall(sysFcntl, fd, dupCloseOnExec, 3));
  const nothing = openSync('/dev/null', 'r+');
  native().syscall(sysDup3, nothing, fd, 0);
  closeSync(nothing);
  // Now the reader sees the end, and a late error of writing is told.
  closeSync(last);
}

const gather = 64 << 10;

/** A Sink that writes to a descriptor, gathering small chunks; end() closes it unless told otherwise. */
export class DescriptorSink implements Sink {
  readonly #fd: number;
  readonly #close: boolean;
  readonly #small = new Uint8Array(gather);
  #smallLength = 0;
  #broken = false;
  /** Bytes taken so far. */
  bytes = 0;

  constructor(fd: number, options: { close?: boolean } = {}) {
    this.#fd = fd;
    this.#close = options.close ?? true;
  }

  write(chunk: Uint8Array): void {
    this.bytes += chunk.length;
    if (this.#smallLength + chunk.length <= gather) {
      this.#small.set(chunk, this.#smallLength);
      this.#smallLength += chunk.length;
      return;
    }
    const held = this.#small.subarray(0, this.#smallLength);
    this.#smallLength = 0;
    this.#writeAll(held.length > 0 ? [held, chunk] : [chunk]);
  }

  /** Hand over what was gathered. */
  flush(): void {
    if (this.#smallLength === 0) return;
    const held = this.#small.subarray(0, this.#smallLength);
    this.#smallLength = 0;
    this.#writeAll([held]);
  }

  end(): void {
    this.flush();
    if (this.#close) closeDescriptor(this.#fd);
  }

  /** What was written by a failing stage (an ERROR frame, say) still goes out; the descriptor closes. */
  abort(_cause: unknown): void {
    try {
      if (!this.#broken) this.end();
    } catch {
      // The reader is gone too: the first cause is what matters.
    }
  }

  #writeAll(chunks: Uint8Array[]): void {
    let rest = chunks;
    try {
      while (rest.length > 0)
        rest = after(
          rest,
          writeDescriptor(() => writevSync(this.#fd, rest)),
        );
    } catch (cause) {
      this.#broken = true;
      throw cause;
    }
  }
}

/** What remains of chunks behind `written` bytes. */
function after(chunks: Uint8Array[], written: number): Uint8Array[] {
  let skip = written;
  let index = 0;
  while (index < chunks.length && skip >= chunks[index]!.length) {
    skip -= chunks[index]!.length;
    index += 1;
  }
  const rest = chunks.slice(index);
  if (skip > 0) rest[0] = rest[0]!.subarray(skip);
  return rest;
}
