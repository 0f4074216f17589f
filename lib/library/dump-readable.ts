import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { packageRoot } from '../../native/package-root.ts';
import { failureOf, PodError } from '../stream/error.ts';

/**
 * The image of a session as a Readable. pod-dump runs beside: a dump stops the session and works synchronously,
 * and neither may the session wait for this program's event loop, nor this program for the dump.
 * Destroyed early, it ends pod-dump, which lets the session go on.
 *
 * The stream ends when pod-dump has ended well: what is read of one that failed ends with its error. Only one that
 * suspends lives on, for a store downstream must see the end before there is a receipt: there the stream ends when
 * pod-dump says that all is written, and closes, with its error if it had one, when pod-dump ends.
 */
export class DumpReadable extends Readable {
  readonly #child: ChildProcess;
  /** Undefined when pod-dump ended well. */
  readonly #outcome: Promise<Error | undefined>;
  #said = '';
  #written = false;

  constructor(pod: string, then: 'run' | 'kill' | 'suspend') {
    super({ highWaterMark: 1 << 20 });
    const flags = then === 'suspend' ? ['--suspend', '--progress-fd', '3'] : ['--then', then];
    this.#child = spawn(process.execPath, [join(packageRoot(), 'dist/bin/pod-dump'), ...flags, '--', pod], {
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    });
    const { stdout, stderr } = this.#child;
    const progress = this.#child.stdio[3] as Readable;
    stdout!.on('data', (chunk: Buffer) => {
      if (!this.push(chunk)) stdout!.pause();
    });
    stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#said = (this.#said + text).slice(-8192);
    });
    let reports = '';
    progress.setEncoding('utf8').on('data', (text: string) => {
      reports = (reports + text).slice(-8192);
      if (!reports.includes('"state":"done"')) return;
      if (stdout!.readableEnded) this.#endWell();
      else stdout!.once('end', () => this.#endWell());
    });
    this.#outcome = new Promise((resolve) => {
      this.#child.on('error', resolve);
      this.#child.on('close', (status) => resolve(status === 0 ? undefined : this.#failure(status)));
    });
    void this.#outcome.then((failure) => {
      if (failure) this.destroy(failure);
      else this.#endWell();
    });
  }

  #endWell(): void {
    if (!this.#written) this.push(null);
    this.#written = true;
  }

  override _read(): void {
    this.#child.stdout!.resume();
  }

  override _destroy(cause: Error | null, done: (error?: Error | null) => void): void {
    if (cause === null && this.#written) {
      void this.#outcome.then((failure) => done(failure));
      return;
    }
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill();
    done(cause);
  }

  #failure(status: number | null): PodError {
    const line = (kind: string) => new RegExp(`^pod-dump: ${kind}: (.*)$`, 'm').exec(this.#said)?.[1];
    return new PodError(failureOf(status), line('error') ?? 'pod-dump was ended from outside', line('hint'));
  }
}
