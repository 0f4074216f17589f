/**
 * A session out of a stream, in one pass.
 *
 * All records but the pages are small and come first, so they are gathered; then the tree is forked, files and
 * address spaces are made, and the pages go into place as they come. Everything made so far is stopped, traced with
 * PTRACE_O_EXITKILL and lives in a fresh pid namespace: if anything fails, or this process dies, all of it is gone.
 * Only when END has been verified do the tasks get their registers and run.
 */
import { native } from '../../../native/index.ts';
import type { Records } from '../../image/record.ts';
import { readRecord } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import type { Frame } from '../../stream/frame.ts';
import { kinds } from '../../stream/kind.ts';
import type { FrameHandler } from '../../stream/stream-parser.ts';
import { PTRACE, pageSize, SYS } from './abi.ts';
import { FileBuilder, type Table } from './build-files.ts';
import { SpaceBuilder } from './build-memory.ts';
import * as build from './build-process.ts';
import { SegmentBuilder } from './build-segments.ts';
import { type BuiltTree, buildTree, detach } from './build-tree.ts';
import { ImageRecords, needed, type ProcessImage } from './image-records.ts';
import { Injector, readThreadState, type ThreadState } from './inject.ts';
import { NewTask } from './new-task.ts';
import { fetchFile } from './objects/share-file.ts';
import { checkFiles, checkMachine, checkTasks, memoryAtHand } from './preflight.ts';
import { isGone, listDescriptors, readAreas, readStat } from './proc.ts';
import type { Remote } from './remote.ts';

/** The pod in which the session is rebuilt: pid 1 in its loop, nothing else. */
export interface EmptyPod {
  /** Host pid of pod-init. */
  initPid: number;
  /** Path of the console inside, for a session that had a terminal of the outside. */
  consolePath: string | undefined;
  /** All that a task may have; absent: whatever the image says and the pod can give. */
  capabilities?: bigint;
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
      for (const { files, fs } of build.contextsOf(process)) {
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

/** A process of the image with its tasks, the leader first. */
interface ProcessSet {
  image: ProcessImage;
  tasks: NewTask[];
}

const WNOHANG = 1;
const WSTOPPED = 2;

/** rip in struct user_regs_struct, bytes. */
const ripOffset = 16 * 8;

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
  #running: ProcessSet[] = [];
  #segments: SegmentBuilder | undefined;

  constructor(image: ImageRecords, pod: EmptyPod, options: RestartOptions) {
    this.#image = image;
    this.#pod = pod;
    this.#options = options;
  }

  build(): void {
    const init = this.#pod.initPid;
    checkFiles(this.#image, `/proc/${init}/root`);
    this.#warnOfCut();
    const builder = this.#enterInit(init);
    this.#setNames(builder.remote);
    const { warn } = this.#options;
    const segments = new SegmentBuilder(builder, warn);
    this.#segments = segments;
    segments.make(this.#image);
    const files = new FileBuilder(this.#image, { builder, segments, console: this.#pod.consolePath, warn });
    this.#files = files;
    files.make();
    const tree = buildTree(this.#image, builder, (leader) => files.leadSession(leader));
    this.#tree = tree;
    files.treeMade(tree.tasks);
    this.#arrangeMemory(tree, segments);
    this.#refuseInsideVdso(tree);
    this.#arrangeFiles(tree, files);
  }

  #warnOfCut(): void {
    const most = this.#pod.capabilities;
    if (most === undefined) return;
    const threads = [...this.#image.processes.values()].flatMap((each) => each.threads);
    if (threads.some(({ record }) => (record.credentials.permitted & ~most) !== 0n))
      this.#options.warn('a confined pod takes capabilities from the session, which had more (--no-confine)');
  }

  pages(record: Records['pages'], data: Uint8Array): void {
    if (data.length % pageSize !== 0)
      throw new PodError('damaged', 'a PAGES frame has no whole number of pages');
    if (record.shm !== undefined) {
      this.#segments!.fill(record.shm, record.addr, data);
      return;
    }
    const space = needed(this.#spaces, record.mm ?? -1, 'address space');
    if (space.builder.isKernels(record.addr)) return;
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
    this.#segments!.settle();
    const sets = [...tree.tasks.values()].map((task) => {
      const image = build.processOf(this.#image, task);
      return { image, tasks: [task, ...build.makeThreads(task, image)] };
    });
    const tables = this.#tablesOf(sets);
    for (const { task, entries, pid } of tables) if (task.inner !== pid) files.arrangeApart(task, entries);
    files.finishTables(tables);
    for (const { builder } of this.#spaces.values()) builder.finish();
    this.#setShared(sets);
    tree.finish();
    this.#setExecutables();
    for (const { tasks, image } of sets) {
      tasks.forEach((task, index) => {
        build.setThread(task, image.threads[index]!, this.#options.warn);
      });
      build.setLimits(tasks[0]!, image.record.limits, this.#options.warn);
    }
    files.lock(tables);
    const stopped = sets.filter((set) => this.#stopSignal(set) !== 0 && this.#ownsSpace(set, sets));
    const running = sets.filter((set) => !stopped.includes(set));
    this.#settle(stopped);
    this.#detach(stopped);
    for (const set of stopped) this.#settleStop(set);
    files.arm();
    this.#settle(running);
    this.#running = running;
    this.#leaveInit();
    return tree.main;
  }

  run(): void {
    this.#detach(this.#running);
  }

  /** Those of processes, then those that threads have of their own, each once. */
  #tablesOf(sets: readonly ProcessSet[]): Table[] {
    const entries = (id: number) => needed(this.#image.tables, id, 'descriptor table');
    const own = new Map<number, Table>();
    for (const { tasks, image } of sets) {
      const { pid } = image.record;
      image.threads.forEach(({ record: { files: id } }, index) => {
        if (id !== undefined && !own.has(id))
          own.set(id, { task: tasks[index]!, pid, id, entries: entries(id) });
      });
    }
    const common = sets.map(({ tasks, image: { record } }) => {
      return { task: tasks[0]!, pid: record.pid, id: record.files, entries: entries(record.files) };
    });
    return [...common, ...own.values()];
  }

  /** Those without a name: nobody may have them open for writing, not even a process that only waits for its end. */
  #setExecutables(): void {
    this.#segments!.closeWriters();
    for (const { record } of this.#image.spaces.values()) {
      const space = this.#spaces.get(record.id);
      if (record.exeShm === undefined || !space) continue;
      const source = { pid: this.#init!.task.inner, fd: this.#segments!.descriptor(record.exeShm, true) };
      space.builder.setExecutable(fetchFile(source, space.task.remote));
    }
  }

  /** What processes may share: each once. */
  #setShared(sets: readonly ProcessSet[]): void {
    const done = { handlers: new Set<number>(), fs: new Set<number>() };
    for (const { tasks, image } of sets) {
      const task = tasks[0]!;
      const { record } = image;
      const handlers = needed(this.#image.handlers, record.handlers, 'signal handlers');
      if (!done.handlers.has(handlers.id)) build.setHandlers(task, handlers.actions);
      done.handlers.add(handlers.id);
      build.contextsOf(image).forEach(({ fs: id }, index) => {
        if (done.fs.has(id)) return;
        done.fs.add(id);
        build.enterDirectory(tasks[index]!, needed(this.#image.fs, id, 'filesystem context'));
      });
      build.setProcess(task, record, this.#options.warn);
      build.makeTimers(task, record.timers ?? []);
    }
  }

  /** The last steps, in which each takes away a right or a means that those before it need. */
  #settle(sets: readonly ProcessSet[]): void {
    const { warn } = this.#options;
    for (const { tasks } of sets) for (const task of tasks) build.dropPending(task);
    for (const { tasks, image } of sets) {
      tasks.forEach((task, index) => {
        const shared = index === 0 ? (image.record.pending ?? []) : [];
        build.setPending(task, image.record.pid, shared, image.threads[index]!.record.pending ?? []);
      });
    }
    for (const { tasks, image } of sets) build.armTimers(tasks[0]!, image.record);
    for (const { tasks, image } of sets) {
      const space = needed(this.#image.spaces, image.record.mm, 'address space');
      tasks.forEach((task, index) => {
        const { credentials, parentDeathSignal } = image.threads[index]!.record;
        build.setCredentials(task, build.cutCredentials(credentials, this.#pod.capabilities), warn);
        build.setLate(task, index === 0 ? space.record.dumpable : undefined, parentDeathSignal);
      });
    }
    for (const id of new Set(sets.map(({ image }) => image.record.mm))) {
      needed(this.#spaces, id, 'address space').builder.removeCallSite();
    }
    for (const { tasks, image } of sets) {
      tasks.forEach((task, index) => {
        build.setRegisters(task, image.threads[index]!);
      });
    }
  }

  #detach(sets: readonly ProcessSet[]): void {
    for (const set of sets) {
      const signal = this.#stopSignal(set);
      if (signal !== 0) process.kill(set.tasks[0]!.tid, 'SIGSTOP');
      for (const task of set.tasks) detach(task.tid);
    }
  }

  #stopSignal(set: ProcessSet): number {
    const entry = this.#image.tree.find(({ pid }) => pid === set.image.record.pid);
    return entry?.state === 'stopped' ? (entry.stopSignal ?? 19) : 0;
  }

  #ownsSpace(set: ProcessSet, sets: readonly ProcessSet[]): boolean {
    return sets.every((other) => other === set || other.image.record.mm !== set.image.record.mm);
  }

  /** A parent that was told of the stop before must not be told again: collect the new notice for it. */
  #settleStop(set: ProcessSet): void {
    const task = set.tasks[0]!;
    const entry = this.#image.tree.find(({ pid }) => pid === set.image.record.pid);
    for (let looks = 0; readStat(task.tid).fields[0] !== 'T' && looks < 200; looks++) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
    if (entry?.stopUncollected) return;
    const parent = this.#tree!.tasks.get(entry?.ppid ?? 0) ?? this.#init!.task;
    parent.remote.run([[SYS.waitid, 1 /* P_PID */, task.inner, 0, WSTOPPED | WNOHANG, 0]]);
  }

  /** Kill everything made so far, and reap it: a tracer's dead hold up the end of their pid namespace. */
  destroy(): void {
    this.#segments?.close();
    kill(this.#pod.initPid);
    // The youngest first: a process is gone only after its threads, pid 1 only after all others.
    for (const tid of [...(this.#init?.task.family ?? [])].reverse()) reap(tid);
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

  #arrangeMemory(tree: BuiltTree, segments: SegmentBuilder): void {
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
      builder.map(segments);
      this.#spaces.set(id, { builder, task });
    }
  }

  /** Old code of a foreign vdso would read the old kernel's data; only its entries lead on. */
  #refuseInsideVdso(tree: BuiltTree): void {
    for (const task of tree.tasks.values()) {
      const { record, threads } = build.processOf(this.#image, task);
      const { builder } = needed(this.#spaces, record.mm, 'address space');
      for (const { record: thread } of threads) {
        const { buffer, byteOffset } = thread.registers;
        const rip = new DataView(buffer, byteOffset).getBigUint64(ripOffset, true);
        if (!builder.isForeignCode(rip)) continue;
        throw new PodError(
          'cannot-restart',
          `thread ${thread.tid} of process ${record.pid} was stopped inside the vdso of another kernel`,
          'dump the session again, or restart it on the kernel version the image comes from',
        );
      }
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
