/**
 * A session out of a stream, in one pass.
 *
 * All records but the pages are small and come first, so they are gathered; then the tree is forked, files and
 * address spaces are made, and the pages go into place as they come. Everything made so far is stopped, traced with
 * PTRACE_O_EXITKILL and lives in a fresh pid namespace: if anything fails, or this process dies, all of it is gone.
 * Only when END has been verified do the tasks get their registers and run.
 */
import { writeSync } from 'node:fs';
import { native } from '../../../native/index.ts';
import type { Records } from '../../image/record.ts';
import { readRecord } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import type { Frame } from '../../stream/frame.ts';
import { kinds } from '../../stream/kind.ts';
import type { FrameHandler } from '../../stream/stream-parser.ts';
import { PTRACE, pageSize, SYS } from './abi.ts';
import { FileBuilder } from './build-files.ts';
import { SpaceBuilder } from './build-memory.ts';
import * as build from './build-process.ts';
import { type BuiltTree, buildTree, detach } from './build-tree.ts';
import { ImageRecords, needed } from './image-records.ts';
import { Injector, readThreadState, type ThreadState } from './inject.ts';
import { NewTask } from './new-task.ts';
import { closeLocal } from './objects/local-calls.ts';
import { checkFiles, checkMachine, memoryAtHand } from './preflight.ts';
import { isGone, listDescriptors, readAreas } from './proc.ts';
import type { Remote } from './remote.ts';

/** The pod in which the session is rebuilt: pid 1 in its loop, nothing else. */
export interface EmptyPod {
  /** Host pid of pod-init. */
  initPid: number;
  /** Path of the console inside, for a session that had a terminal of the outside. */
  consolePath: string | undefined;
}

export interface RestartOptions {
  /** The processor may lack features the session saw. */
  ignoreCpu?: boolean;
  /** Told what could not be brought back exactly. */
  warn: (sentence: string) => void;
}

/** Frames that came before the pod was ready, copied; at most what one chunk of input held. */
type Held = Frame[];

export class Restart implements FrameHandler {
  readonly image = new ImageRecords();
  readonly #options: RestartOptions;
  #held: Held = [];
  #waiting = false;
  #ended = false;
  #builder: Builder | undefined;

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
    const builder = new Builder(this.image, pod, this.#options);
    this.#builder = builder;
    builder.build();
    const held = this.#held;
    this.#held = [];
    for (const frame of held) this.#take(frame);
  }

  /** END was verified and the input has ended: let it run. Returns the pid (inside) of its topmost process. */
  finish(): number {
    if (!this.#ended || !this.#builder) throw new Error('finish() before the end of the stream');
    return this.#builder.finish();
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
      needed(this.image.handlers, process.record.handlers, 'signal handlers');
    }
    for (const entry of this.image.tree)
      if (entry.state !== 'zombie') needed(this.image.processes, entry.pid, 'process');
  }

  #take(frame: Frame): void {
    if (frame.kind === kinds.pages) this.#builder!.pages(readRecord('pages', frame), frame.data);
  }
}

interface Space {
  builder: SpaceBuilder;
  task: NewTask;
}

class Builder {
  readonly #image: ImageRecords;
  readonly #pod: EmptyPod;
  readonly #options: RestartOptions;
  #init:
    | { task: NewTask; state: ThreadState; injector: Injector; before: Set<number>; leave: () => void }
    | undefined;
  #tree: BuiltTree | undefined;
  #files: FileBuilder | undefined;
  readonly #spaces = new Map<number, Space>();
  readonly #segments = new Map<number, number>();
  #filled = 0n;

  constructor(image: ImageRecords, pod: EmptyPod, options: RestartOptions) {
    this.#image = image;
    this.#pod = pod;
    this.#options = options;
  }

  build(): void {
    const init = this.#pod.initPid;
    checkFiles(this.#image, `/proc/${init}/root`);
    const builder = this.#enterInit(init);
    this.#setNames(builder.remote);
    const { warn } = this.#options;
    const files = new FileBuilder(this.#image, { builder, console: this.#pod.consolePath, warn });
    this.#files = files;
    files.make();
    const tree = buildTree(this.#image, builder);
    this.#tree = tree;
    this.#arrangeMemory(tree, files);
    this.#arrangeFiles(tree, files);
    for (const id of this.#image.segments.keys()) this.#segments.set(id, files.openSegment(id));
  }

  pages(record: Records['pages'], data: Uint8Array): void {
    if (data.length % pageSize !== 0)
      throw new PodError('damaged', 'a PAGES frame has no whole number of pages');
    this.#filled += BigInt(data.length);
    if (record.shm !== undefined) {
      const fd = needed(this.#segments, record.shm, 'shared memory');
      const segment = needed(this.#image.segments, record.shm, 'shared memory');
      if (record.addr + BigInt(data.length) > ((segment.size + 4095n) & ~4095n))
        throw new PodError('damaged', 'pages behind the end of shared memory');
      for (let at = 0; at < data.length; )
        at += writeSync(fd, data, at, data.length - at, Number(record.addr) + at);
      return;
    }
    const space = needed(this.#spaces, record.mm ?? -1, 'address space');
    try {
      native().writeMemory(space.task.tid, record.addr, data);
    } catch (cause) {
      if (memoryAtHand() < 64n << 20n)
        throw new PodError('cannot-restart', 'there is not enough memory for the session', undefined, {
          cause,
        });
      throw new PodError(
        'damaged',
        `pages at ${record.addr.toString(16)} lie outside the areas of the image`,
        undefined,
        { cause },
      );
    }
  }

  finish(): number {
    const tree = this.#tree!;
    const files = this.#files!;
    const { warn } = this.#options;
    const threads: { task: NewTask; image: ReturnType<typeof build.processOf>['threads'][number] }[] = [];
    const done = { handlers: new Set<number>(), fs: new Set<number>() };
    for (const fd of this.#segments.values()) closeLocal(fd);
    this.#segments.clear();

    // Inside each process, from what others may still look at to what they may not.
    const sets: { task: NewTask; image: ReturnType<typeof build.processOf>; others: NewTask[] }[] = [];
    for (const task of tree.tasks.values()) {
      const image = build.processOf(this.#image, task);
      sets.push({ task, image, others: build.makeThreads(task, image) });
    }
    files.finishTables(
      sets.map(({ task, image }) => ({
        task,
        entries: needed(this.#image.tables, image.record.files, 'descriptor table'),
      })),
    );
    for (const { builder } of this.#spaces.values()) builder.finish();
    for (const { task, image } of sets) {
      if (!done.handlers.has(image.record.handlers))
        build.setHandlers(
          task,
          needed(this.#image.handlers, image.record.handlers, 'signal handlers').actions,
        );
      if (!done.fs.has(image.record.fs))
        build.enterDirectory(task, needed(this.#image.fs, image.record.fs, 'filesystem context'));
      done.handlers.add(image.record.handlers);
      done.fs.add(image.record.fs);
      build.setProcess(task, image.record, warn);
      build.makeTimers(task, image.record.timers ?? []);
    }
    tree.finish();
    for (const { task, others } of sets) for (const each of [task, ...others]) build.dropPending(each);
    for (const { task, image, others } of sets) {
      [task, ...others].forEach((each, index) => {
        const thread = image.threads[index]!;
        build.setThread(each, thread, warn);
        threads.push({ task: each, image: thread });
      });
      build.setLimits(task, image.record.limits, warn);
      [task, ...others].forEach((each, index) => {
        const thread = image.threads[index]!;
        const shared = index === 0 ? (image.record.pending ?? []) : [];
        build.setPending(each, image.record.pid, shared, thread.record.pending ?? []);
      });
    }
    files.arm();
    for (const { task, image } of sets) build.armTimers(task, image.record);
    for (const { task, image } of threads) {
      const space = needed(
        this.#image.spaces,
        needed(this.#image.processes, image.record.pid, 'process').record.mm,
        'address space',
      );
      build.setCredentials(task, image.record.credentials, warn);
      build.setLate(
        task,
        task.inner === image.record.pid ? space.record.dumpable : undefined,
        image.record.parentDeathSignal,
      );
    }
    for (const { builder } of this.#spaces.values()) builder.removeCallSite();
    for (const { task, image } of threads) build.setRegisters(task, image);
    this.#stopStopped();
    this.#leaveInit();
    for (const { task } of threads) detach(task.tid);
    return tree.main;
  }

  /** Kill everything made so far, and reap it: a tracer's dead hold up the end of their pid namespace. */
  destroy(): void {
    for (const fd of this.#segments.values()) closeLocal(fd);
    this.#segments.clear();
    kill(this.#pod.initPid);
    for (const tid of this.#init?.task.family ?? []) reap(tid);
  }

  /** pod-init becomes the builder; the calls made in it leave no trace (inject.ts). */
  #enterInit(pid: number): NewTask {
    const addon = native();
    const options =
      PTRACE.optionSysGood |
      PTRACE.optionTraceFork |
      PTRACE.optionTraceVfork |
      PTRACE.optionTraceClone |
      PTRACE.optionExitKill;
    const before = new Set(listDescriptors(pid));
    addon.seize(pid, options);
    addon.interrupt(pid);
    for (;;) {
      const stop = addon.waitStop(pid, 5000);
      if (!stop || stop.state === 'exited') throw new PodError('other', 'pod-init does not stop');
      if (stop.event === PTRACE.eventStop) break;
      addon.resume(pid, PTRACE.cont, stop.event === 0 ? stop.signal : 0);
    }
    const state = readThreadState(pid);
    const injector = new Injector(pid, readAreas(pid, 'maps'));
    const { site, leave } = injector.borrow(pid, state);
    const task = new NewTask(pid, 1, site);
    this.#init = { task, state, injector, before, leave };
    return task;
  }

  #setNames(remote: Remote): void {
    const { hostname, domainname } = this.#image.pod!;
    const sethostname = 170;
    const setdomainname = 171;
    for (const [number, name] of [
      [sethostname, hostname],
      [setdomainname, domainname],
    ] as const) {
      remote.reset();
      if (name !== '') remote.run([[number, remote.put(Buffer.from(name)), Buffer.byteLength(name)]]);
    }
  }

  /** Each table once: processes that share it were forked sharing it. */
  #arrangeFiles(tree: BuiltTree, files: FileBuilder): void {
    const done = new Set<number>();
    for (const task of tree.tasks.values()) {
      const id = build.processOf(this.#image, task).record.files;
      if (done.has(id)) continue;
      done.add(id);
      files.arrange(task, needed(this.#image.tables, id, 'descriptor table'));
    }
  }

  #arrangeMemory(tree: BuiltTree, files: FileBuilder): void {
    for (const task of tree.tasks.values()) {
      const id = build.processOf(this.#image, task).record.mm;
      const known = this.#spaces.get(id);
      if (known) {
        task.site = known.task.site;
        continue;
      }
      const builder = new SpaceBuilder(
        task,
        needed(this.#image.spaces, id, 'address space'),
        this.#options.warn,
      );
      builder.map({ descriptor: (segment) => files.segment(segment) });
      this.#spaces.set(id, { builder, task });
    }
  }

  /** A process that was stopped (job control) must be found stopped. */
  #stopStopped(): void {
    for (const entry of this.#image.tree) {
      const task = this.#tree!.tasks.get(entry.pid);
      if (entry.state === 'stopped' && task) process.kill(task.tid, entry.stopSignal ?? 19);
    }
  }

  #leaveInit(): void {
    const { task, state, injector, before, leave } = this.#init!;
    const made = listDescriptors(task.tid).filter((fd) => !before.has(fd));
    task.remote.run(made.map((fd) => [SYS.close, fd]));
    leave();
    injector.finish(task.tid, state);
    detach(task.tid);
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (cause) {
    if (!isGone(cause)) throw cause;
  }
}

function reap(tid: number): void {
  try {
    for (
      let stop = native().waitStop(tid, 2000);
      stop?.state === 'stopped';
      stop = native().waitStop(tid, 2000)
    );
  } catch {
    // Not ours any more.
  }
}
