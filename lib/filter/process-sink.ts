/**
 * A program in the middle of a chain: bytes go into its standard input, what it writes goes on to the next stage.
 * Node's own pipes need the event loop, which does not run while bytes flow; so these are pipes of our own, and
 * one poll(2) waits for both of them. Nothing here kills the program: it leaves when its input ends or its
 * output has no reader.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, readSync, writeSync } from 'node:fs';
import { native } from '../../native/index.ts';
import { failureOf, PodError } from '../stream/error.ts';
import type { Sink } from '../stream/sink.ts';

// x86_64 system calls and constants; see native/index.ts.
const sysPoll = 7;
const sysFcntl = 72;
const sysWaitid = 247;
const sysPipe2 = 293;
const closeOnExec = 0x80000;
const nonBlock = 0x800;
const setFlags = 4;
const setPipeSize = 1031;
const pollIn = 1;
const pollOut = 4;
const byPid = 1;
const exitedWithoutReaping = 4 | 0x01000000;

const bufferSize = 256 << 10;

interface Pipe {
  read: number;
  write: number;
}

function makePipe(): Pipe {
  const pair = new Int32Array(2);
  native().syscall(sysPipe2, new Uint8Array(pair.buffer), closeOnExec);
  const [read, write] = pair as unknown as [number, number];
  try {
    native().syscall(sysFcntl, write, setPipeSize, 1 << 20);
  } catch {
    // Over the user's limit of pipe memory: it works with 64 KiB too.
  }
  return { read, write };
}

export class ProcessSink implements Sink {
  readonly #name: string;
  readonly #downstream: Sink;
  readonly #child: ChildProcess;
  readonly #buffer = new Uint8Array(bufferSize);
  readonly #poll = new DataView(new ArrayBuffer(16));
  #input: number | undefined;
  #output: number | undefined;
  #spawnError: Error | undefined;
  /** The next stage failed: nothing more is to be given to it. */
  #downstreamFailed = false;

  constructor(name: string, path: string, options: readonly string[], downstream: Sink) {
    this.#name = name;
    this.#downstream = downstream;
    const input = makePipe();
    const output = makePipe();
    this.#child = spawn(path, options, { stdio: [input.read, output.write, 2] });
    this.#child.on('error', (cause) => (this.#spawnError = cause));
    closeSync(input.read);
    closeSync(output.write);
    this.#input = input.write;
    this.#output = output.read;
    native().syscall(sysFcntl, input.write, setFlags, 1 | nonBlock);
    native().syscall(sysFcntl, output.read, setFlags, nonBlock);
    if (this.#child.pid === undefined) {
      this.#close();
      throw new PodError('other', `the filter ${name} cannot be started`, `is ${path} a program`, {
        cause: this.#spawnError,
      });
    }
  }

  write(chunk: Uint8Array): void {
    let rest = chunk;
    while (rest.length > 0) {
      // After a failure an earlier stage may still try to write its ERROR.
      if (this.#input === undefined) throw new PodError('other', `the filter ${this.#name} has left`);
      const { canWrite, canRead } = this.#wait();
      if (canRead) this.#readSome();
      if (!canWrite) continue;
      try {
        rest = rest.subarray(writeSync(this.#input!, rest));
      } catch (cause) {
        const { code } = cause as NodeJS.ErrnoException;
        if (code === 'EAGAIN' || code === 'EINTR') continue;
        if (code !== 'EPIPE') throw cause;
        this.#finish();
        throw new PodError(
          'other',
          `the filter ${this.#name} stopped reading before the stream's end`,
          'see its own message above',
        );
      }
    }
  }

  end(): void {
    this.#finish();
    this.#downstream.end();
  }

  /** The program sees the end of its input (ERROR before it, or an early end) and makes its own end of it. */
  abort(cause: unknown): void {
    try {
      if (!this.#downstreamFailed && this.#output !== undefined) this.#finish();
    } catch {
      // It failed because its input did: the first cause is what matters.
    }
    this.#close();
    this.#downstream.abort(cause);
  }

  /** Close its input, take all it still writes, then its exit status. */
  #finish(): void {
    if (this.#input !== undefined) closeSync(this.#input);
    this.#input = undefined;
    while (this.#output !== undefined) {
      this.#wait();
      this.#readSome();
    }
    this.#checkStatus();
  }

  #close(): void {
    for (const fd of [this.#input, this.#output]) if (fd !== undefined) closeSync(fd);
    this.#input = undefined;
    this.#output = undefined;
  }

  /** Sleep until the program takes or gives bytes. */
  #wait(): { canWrite: boolean; canRead: boolean } {
    const poll = this.#poll;
    poll.setInt32(0, this.#output ?? -1, true);
    poll.setUint32(4, pollIn, true);
    poll.setInt32(8, this.#input ?? -1, true);
    poll.setUint32(12, pollOut, true);
    try {
      native().syscall(sysPoll, new Uint8Array(poll.buffer), 2, -1);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'EINTR') throw cause;
      return { canWrite: false, canRead: false };
    }
    return { canRead: poll.getUint16(6, true) !== 0, canWrite: poll.getUint16(14, true) !== 0 };
  }

  /** Hand on what the program wrote. */
  #readSome(): void {
    let length: number;
    try {
      length = readSync(this.#output!, this.#buffer, 0, bufferSize, null);
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      if (code === 'EAGAIN' || code === 'EINTR') return;
      throw cause;
    }
    if (length === 0) {
      // It closed its output; from now on only its input is of interest.
      closeSync(this.#output!);
      this.#output = undefined;
      return;
    }
    try {
      this.#downstream.write(this.#buffer.subarray(0, length));
    } catch (cause) {
      this.#downstreamFailed = true;
      throw cause;
    }
  }

  #checkStatus(): void {
    // siginfo_t: si_code at 8 (1 is CLD_EXITED), si_status at 24. The child stays for Node to reap.
    const info = new DataView(new ArrayBuffer(128));
    const pid = this.#child.pid!;
    for (;;) {
      try {
        native().syscall(sysWaitid, byPid, pid, new Uint8Array(info.buffer), exitedWithoutReaping, 0);
        break;
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code !== 'EINTR') throw cause;
      }
    }
    const status = info.getInt32(24, true);
    if (info.getInt32(8, true) !== 1) {
      throw new PodError('other', `the filter ${this.#name} was killed by signal ${status}`);
    }
    if (status !== 0) {
      throw new PodError(
        failureOf(status),
        `the filter ${this.#name} failed with exit status ${status}`,
        'see its own message above',
        { exitCode: status },
      );
    }
  }
}
