/**
 * A session out of a stream, in one pass.
 *
 * All records but the pages are small and come first, so they are gathered; then the tree is forked, files and
 * address spaces are made, and the pages go into place as they come. Everything made so far is stopped, traced with
 * PTRACE_O_EXITKILL and lives in a fresh pid namespace: if anything fails, or this process dies, all of it is gone.
 * Only when END has been verified do the tasks get their registers and run.
 */
import type { Records } from '../../image/record.ts';
import { readRecord } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import type { Frame } from '../../stream/frame.ts';
import { kinds } from '../../stream/kind.ts';
import type { FrameHandler } from '../../stream/stream-parser.ts';
import { contextsOf } from './build-process.ts';
import { type EmptyPod, type RestartOptions, SessionBuilder } from './build-session.ts';
import { ImageRecords, needed } from './image-records.ts';
import { checkMachine, checkTasks } from './preflight.ts';

/** Frames that came before the pod was ready, copied; at most what one chunk of input held. */
type Held = Frame[];

export class Restart implements FrameHandler {
  readonly image = new ImageRecords();
  readonly #options: RestartOptions;
  #held: Held = [];
  #waiting = false;
  #ended = false;
  #builder: SessionBuilder | undefined;

  constructor(options: RestartOptions) {
    this.#options = options;
  }

  /** All records are there; build() must be called before more input is given. */
  get ready(): boolean {
    return this.#waiting && this.#builder === undefined;
  }

  /** What the image says of itself, once it is ready. */
  get hello(): Records['hello'] {
    if (!this.image.hello) throw new PodError('damaged', 'the image has no HELLO');
    return this.image.hello;
  }

  frame(frame: Frame): void {
    if (frame.kind === kinds.error) return;
    if (frame.kind === kinds.pages || frame.kind === kinds.end) {
      if (!this.#waiting) this.#check();
      if (this.#builder && this.#held.length === 0) this.#take(frame);
      else this.#held.push(frame.copy());
      return;
    }
    if (this.#waiting) throw new PodError('damaged', 'a record comes after the memory');
    this.image.add(frame);
  }

  end(): void {
    this.#ended = true;
  }

  abort(_cause: unknown): void {
    this.#builder?.destroy();
  }

  /** Make the session, stopped, in an empty pod. */
  build(pod: EmptyPod): void {
    const builder = new SessionBuilder(this.image, pod, this.#options);
    this.#builder = builder;
    builder.build();
    const held = this.#held;
    this.#held = [];
    for (const frame of held) this.#take(frame);
  }

  /**
   * END was verified and the input has ended: make the rest, and leave pid 1 alone. Returns the pid (inside) of the
   * session's topmost process; all wait for run().
   */
  finish(): number {
    if (!this.#ended || !this.#builder) throw new Error('finish() before the end of the stream');
    return this.#builder.finish();
  }

  /** Let them go. */
  run(): void {
    this.#builder?.run();
  }

  /** What can be known without making anything. */
  #check(): void {
    this.#waiting = true;
    const { hello } = this;
    checkMachine(this.#options.ignoreCpu ? { ...hello, cpuFeatures: [] } : hello);
    if (!this.image.pod) throw new PodError('damaged', 'the image has no POD');
    for (const process of this.image.processes.values()) {
      if (process.threads[0]?.record.tid !== process.record.pid)
        throw new PodError('damaged', `process ${process.record.pid} has no first thread`);
      needed(this.image.spaces, process.record.mm, 'address space');
      needed(this.image.tables, process.record.files, 'descriptor table');
      needed(this.image.fs, process.record.fs, 'filesystem context');
      for (const { files, fs } of contextsOf(process)) {
        needed(this.image.tables, files, 'descriptor table');
        needed(this.image.fs, fs, 'filesystem context');
      }
      needed(this.image.handlers, process.record.handlers, 'signal handlers');
    }
    for (const entry of this.image.tree)
      if (entry.state !== 'zombie') needed(this.image.processes, entry.pid, 'process');
    checkTasks(this.image);
  }

  #take(frame: Frame): void {
    if (frame.kind === kinds.pages) this.#builder!.pages(readRecord('pages', frame), frame.data);
  }
}
