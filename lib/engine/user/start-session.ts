/**
 * A session that is built and filled becomes the one of the image, and runs: what is left for after END, in the order
 * in which each step is still allowed.
 */
import { nap } from '../../../native/nap.ts';
import type { Records } from '../../image/record.ts';
import { SYS } from './abi.ts';
import type { BorrowedInit } from './borrowed-init.ts';
import type { FileBuilder, Table } from './build-files.ts';
import { openMapped, type SpaceBuilder } from './build-memory.ts';
import * as build from './build-process.ts';
import type { SegmentBuilder } from './build-segments.ts';
import { type BuiltTree, detach } from './build-tree.ts';
import { type ImageRecords, needed, type ProcessImage } from './image-records.ts';
import { askTasks, type NewTask } from './new-task.ts';
import { restoreFilters } from './objects/seccomp.ts';
import { fetchFile } from './objects/share-file.ts';
import { settleSemaphores } from './objects/sysv-semaphores.ts';
import type { PlaceBuilder } from './places/build-places.ts';
import { readStat } from './proc.ts';
import { beyondThreads, type TimeGiver } from './processor-time.ts';
import { resumeCall, tellsRest } from './resume-call.ts';
import { setAutogroups } from './scheduling.ts';
import { armOverrun, armTimers, makeTimers } from './timers.ts';

/** An address space, and the task it was made in. */
export interface Space {
  builder: SpaceBuilder;
  task: NewTask;
}

export interface MadeSession {
  image: ImageRecords;
  init: BorrowedInit;
  tree: BuiltTree;
  files: FileBuilder;
  segments: SegmentBuilder;
  places: PlaceBuilder;
  spaces: ReadonlyMap<number, Space>;
  /** All that a task may have; absent: whatever the image says and the pod can give. */
  capabilities: bigint | undefined;
  /** Gives processor times back; absent: they start anew. */
  times: TimeGiver | undefined;
  warn: (sentence: string) => void;
}

/** A process of the image with its tasks, the leader first. */
interface ProcessSet {
  image: ProcessImage;
  tasks: NewTask[];
}

/** Numbers of the signals that wait in a process or one of its threads. */
const pendingOf = ({ image: { record, threads } }: ProcessSet): number[] =>
  [record, ...threads.map((thread) => thread.record)].flatMap(({ pending }) =>
    (pending ?? []).map(build.signalNumber),
  );

const SIGCONT = 18;
/** SIGKILL, SIGSTOP. */
const unblockable = new Set([9, 19]);
const WNOHANG = 1;
const WSTOPPED = 2;

export class SessionStart {
  readonly #made: MadeSession;
  #running: ProcessSet[] = [];

  constructor(made: MadeSession) {
    this.#made = made;
  }

  /** All but letting it run. Returns the pid (inside) of its topmost process. */
  finish(): number {
    const { tree, files, segments, places, spaces } = this.#made;
    segments.settle();
    places.settle();
    const sets = [...tree.tasks.values()].map((task) => {
      const image = build.processOf(this.#made.image, task);
      return { image, tasks: [task, ...build.makeThreads(task, image)] };
    });
    const tables = this.#tablesOf(sets);
    for (const { task, entries, pid } of tables) if (task.inner !== pid) files.arrangeApart(task, entries);
    files.finishTables(tables);
    askTasks([...spaces.values()], (remote, { builder }) => builder.finish(remote));
    this.#setShared(sets);
    tree.finish();
    this.#setExecutables();
    askTasks(this.#threadsOf(sets), (remote, { task, thread }) =>
      build.setThread(task, remote, thread, this.#made.warn),
    );
    // A limit and a timer of processor time are counted from what has been used.
    this.#giveTimes(sets);
    for (const { tasks, image } of sets) build.setLimits(tasks[0]!, image.record.limits, this.#made.warn);
    files.lock(tables);
    for (const set of this.#made.image.semaphores) {
      const find = (pid: number) => tree.tasks.get(pid)?.remote;
      settleSemaphores(set, this.#made.init.task.remote, find, this.#made.warn);
    }
    const stopped = sets.filter((set) => this.#stopSignal(set) !== 0 && this.#ownsSpace(set, sets));
    const running = sets.filter((set) => !stopped.includes(set));
    this.#settle(stopped);
    this.#detach(stopped);
    for (const set of stopped) this.#settleStop(set);
    places.finish();
    files.arm();
    this.#settle(running);
    this.#running = running;
    this.#made.init.giveBack();
    return tree.main;
  }

  /** Let it go. */
  run(): void {
    this.#made.files.release();
    this.#detach(this.#running);
  }

  #giveTimes(sets: readonly ProcessSet[]): void {
    const { times } = this.#made;
    if (!times) return;
    for (const { tasks, image } of sets) {
      tasks.forEach((task, index) => {
        const { processorTime } = image.threads[index]!.record;
        const process = index === 0 ? beyondThreads(image) : undefined;
        if (processorTime) times.giveTimes(task.tid, processorTime, process);
      });
    }
  }

  /** Those of processes, then those that threads have of their own, each once. */
  #tablesOf(sets: readonly ProcessSet[]): Table[] {
    const entries = (id: number) => needed(this.#made.image.tables, id, 'descriptor table');
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
    this.#made.segments.closeWriters();
    for (const { record } of this.#made.image.spaces.values()) {
      const space = this.#made.spaces.get(record.id);
      if (!space?.builder.exeComesLate) continue;
      const { inner, remote } = this.#made.init.task;
      const fd =
        record.exeShm === undefined
          ? Number(openMapped(remote, record.exe.path, 0))
          : this.#made.segments.descriptor(record.exeShm, true);
      space.builder.setExecutable(fetchFile({ pid: inner, fd }, space.task.remote));
      if (record.exeShm === undefined) remote.run([[SYS.close, fd]]);
    }
  }

  /** What processes may share: each once. */
  #setShared(sets: readonly ProcessSet[]): void {
    const inherited = build.signalsInherited(this.#made.init.task);
    const handlers = new Map<number, { task: NewTask; actions: Records['handlers']['actions'] }>();
    const contexts = new Map<number, { task: NewTask; fs: Records['fs'] }>();
    for (const { tasks, image } of sets) {
      const { id, actions } = needed(this.#made.image.handlers, image.record.handlers, 'signal handlers');
      if (!handlers.has(id)) handlers.set(id, { task: tasks[0]!, actions });
      build.contextsOf(image).forEach(({ fs: id }, index) => {
        const fs = needed(this.#made.image.fs, id, 'filesystem context');
        if (!contexts.has(id)) contexts.set(id, { task: tasks[index]!, fs });
      });
    }
    askTasks([...handlers.values()], (remote, { task, actions }) =>
      build.setHandlers(task, remote, actions, inherited),
    );
    askTasks([...contexts.values()], (remote, { task, fs }) => build.enterDirectory(task, remote, fs));
    const leaders = sets.map(({ tasks, image: { record } }) => ({ task: tasks[0]!, record }));
    askTasks(leaders, (_remote, { task, record }) => build.setProcess(task, record, this.#made.warn));
    for (const { task, record } of leaders) makeTimers(task, record.timers ?? []);
    const groups = sets.map(({ tasks, image }) => ({ task: tasks[0]!, nice: image.record.autogroupNice }));
    setAutogroups(groups, this.#made.warn);
  }

  /** The last steps, in which each takes away a right or a means that those before it need. */
  #settle(sets: readonly ProcessSet[]): void {
    const { warn } = this.#made;
    const threads = this.#threadsOf(sets);
    askTasks(threads, (remote) => build.dropPending(remote));
    for (const { tasks, image } of sets) armOverrun(tasks, image.record, warn);
    for (const set of sets) if (this.#mayContinue(set)) for (const task of set.tasks) task.callSingly();
    for (const { tasks, image } of sets) {
      tasks.forEach((task, index) => {
        const shared = index === 0 ? (image.record.pending ?? []) : [];
        build.setPending(task, image.record.pid, shared, image.threads[index]!.record.pending ?? []);
      });
    }
    for (const { tasks, image } of sets) armTimers(tasks[0]!, image.record);
    for (const { tasks, image } of sets) {
      const records = image.threads.map(({ record }) => record);
      restoreFilters(tasks, records, this.#made.image.filters);
    }
    const { capabilities } = this.#made;
    askTasks(threads, (remote, { task, thread }) =>
      build.setCredentials(task, remote, build.cutCredentials(thread.record.credentials, capabilities), warn),
    );
    askTasks(threads, (_remote, { thread, leads }) =>
      build.setLate(leads?.dumpable, thread.record.parentDeathSignal),
    );
    const spaces = [...new Set(sets.map(({ image }) => image.record.mm))].map((id) =>
      needed(this.#made.spaces, id, 'address space'),
    );
    const going = new Map(
      threads
        .filter(({ task, thread }) => tellsRest(thread) && !this.#mayStop(task, sets))
        .map(({ task, thread }) => [task, resumeCall(task, thread)] as const),
    );
    for (const { task } of spaces) task.callSingly();
    askTasks(spaces, (_remote, { builder }) => builder.removeCallSite());
    for (const { task, thread } of threads) build.setRegisters(task, thread, going.get(task));
  }

  /** The first of each process first. */
  #threadsOf(sets: readonly ProcessSet[]) {
    return sets.flatMap(({ tasks, image }) => {
      const { record } = needed(this.#made.image.spaces, image.record.mm, 'address space');
      return tasks.map((task, index) => ({
        task,
        thread: image.threads[index]!,
        /** The address space of the process that it is the first thread of. */
        leads: index === 0 ? record : undefined,
      }));
    });
  }

  /** Whether it is stopped, or will be: by a signal that nobody can block, and that must not come sooner. */
  #mayStop(task: NewTask, sets: readonly ProcessSet[]): boolean {
    const set = sets.find(({ tasks }) => tasks.includes(task))!;
    return this.#stopSignal(set) !== 0 || pendingOf(set).some((signal) => unblockable.has(signal));
  }

  /** Whether SIGCONT may come to wait in it, which the end of a loop would take away (call-site.ts). */
  #mayContinue(set: ProcessSet): boolean {
    return (
      pendingOf(set).includes(SIGCONT) ||
      (set.image.record.timers ?? []).some(({ signal }) => signal === SIGCONT) ||
      this.#made.image.objects.some(
        (object) => (object.record as { owner?: { signal: number } }).owner?.signal === SIGCONT,
      )
    );
  }

  #detach(sets: readonly ProcessSet[]): void {
    for (const set of sets) {
      const signal = this.#stopSignal(set);
      if (signal !== 0) process.kill(set.tasks[0]!.tid, 'SIGSTOP');
      for (const task of set.tasks) detach(task.tid);
    }
  }

  #stopSignal(set: ProcessSet): number {
    const entry = this.#made.image.tree.find(({ pid }) => pid === set.image.record.pid);
    return entry?.state === 'stopped' ? (entry.stopSignal ?? 19) : 0;
  }

  #ownsSpace(set: ProcessSet, sets: readonly ProcessSet[]): boolean {
    return sets.every((other) => other === set || other.image.record.mm !== set.image.record.mm);
  }

  /** A parent that was told of the stop before must not be told again: collect the new notice for it. */
  #settleStop(set: ProcessSet): void {
    const task = set.tasks[0]!;
    const entry = this.#made.image.tree.find(({ pid }) => pid === set.image.record.pid);
    for (let looks = 0; readStat(task.tid).fields[0] !== 'T' && looks < 200; looks++) {
      nap(5);
    }
    if (entry?.stopUncollected) return;
    const parent = this.#made.tree.tasks.get(entry?.ppid ?? 0) ?? this.#made.init.task;
    parent.remote.run([[SYS.waitid, 1 /* P_PID */, task.inner, 0, WSTOPPED | WNOHANG, 0]]);
  }
}
