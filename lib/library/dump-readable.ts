import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { packageRoot } from '../../native/package-root.ts';
import { exitCodes, type Failure, PodError } from '../stream/error.ts';

/**
 * The image of a session as a Readable. pod-dump runs beside: a dump stops the session and works synchronously,
 * and neither may the session wait for this program's event loop, nor this program for the dump.
 * Destroyed early, it ends pod-dump, which lets the session go on.
 */
export class DumpReadable extends Readable {
  readonly #child: ChildProcess;
  #said = '';

  constructor(pod: string, flags: readonly string[]) {
    super({ highWaterMark: 1 << 20 });
    this.#child = spawn(process.execPath, [join(packageRoot(), 'dist/bin/pod-dump'), ...flags, '--', pod], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const { stdout, stderr } = this.#child;
    stdout!.on('data', (chunk: Buffer) => {
      if (!this.push(chunk)) stdout!.pause();
    });
    stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#said = (this.#said + text).slice(-8192);
    });
    this.#child.on('error', (cause) => this.destroy(cause));
    this.#child.on('close', (status) => {
      if (status === 0) this.push(null);
      else this.destroy(this.#failure(status));
    });
  }

  override _read(): void {
    this.#child.stdout!.resume();
  }

  override _destroy(cause: Error | null, done: (error?: Error | null) => void): void {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill();
    done(cause);
  }

  #failure(status: number | null): PodError {
    const line = (kind: string) => new RegExp(`^pod-dump: ${kind}: (.*)$`, 'm').exec(this.#said)?.[1];
    const classes = Object.entries(exitCodes) as [Failure, number][];
    const failure = classes.find(([, code]) => code === status)?.[0] ?? 'other';
    return new PodError(failure, line('error') ?? 'pod-dump was ended from outside', line('hint'));
  }
}
