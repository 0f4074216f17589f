/**
 * A session made, stopped, in an empty pod: pod-init is the builder of its files, out of which the tree is forked;
 * then each address space is mapped, and filled as the pages come.
 */
import { native } from '../../../native/index.ts';
import type { Records } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import { pageSize } from './abi.ts';
import { type BorrowedInit, borrowInit } from './borrowed-init.ts';
import { FileBuilder } from './build-files.ts';
import { SpaceBuilder } from './build-memory.ts';
import * as build from './build-process.ts';
import { SegmentBuilder } from './build-segments.ts';
import { type BuiltTree, TreeBuilder } from './build-tree.ts';
import { type ImageRecords, needed, type SpaceImage } from './image-records.ts';
import { askTasks, type NewTask } from './new-task.ts';
import { arrangeKeys, usesKeys } from './objects/protection-keys.ts';
import { makeQueues } from './objects/sysv-queue.ts';
import { makeSemaphores } from './objects/sysv-semaphores.ts';
import { broughtAlong, PlaceBuilder } from './places/build-places.ts';
import { checkFiles, memoryAtHand } from './preflight.ts';
import { isGone } from './proc.ts';
import type { TimeGiver } from './processor-time.ts';
import { askTogether, type Remote } from './remote.ts';
import { SessionStart, type Space } from './start-session.ts';

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
  /** Connections to outside that could go on are given up. */
  resetsConnections?: boolean;
  /** Gives processor times back. Default: they start anew. */
  times?: TimeGiver;
  /** Told what could not be brought back exactly. */
  warn: (sentence: string) => void;
}

/** rip in struct user_regs_struct, bytes. */
const ripOffset = 16 * 8;

export class SessionBuilder {
  readonly #image: ImageRecords;
  readonly #pod: EmptyPod;
  readonly #options: RestartOptions;
  #init: BorrowedInit | undefined;
  #growing: TreeBuilder | undefined;
  /** When it is whole. */
  #tree: BuiltTree | undefined;
  #files: FileBuilder | undefined;
  readonly #spaces = new Map<number, Space>();
  /** Host tids of tasks that have their address space. */
  readonly #arranged = new Set<number>();
  #start: SessionStart | undefined;
  #segments: SegmentBuilder | undefined;
  #places: PlaceBuilder | undefined;
  /** Whether a file comes with the image. */
  #along: (path: string) => boolean = () => false;

  constructor(image: ImageRecords, pod: EmptyPod, options: RestartOptions) {
    this.#image = image;
    this.#pod = pod;
    this.#options = options;
  }

  build(): void {
    const init = this.#pod.initPid;
    this.#warnOfCut();
    const threads = [...this.#image.processes.values()].flatMap((each) => each.threads);
    const filtered = threads.some(({ record }) => record.seccomp !== undefined);
    const borrowed = borrowInit(init, { filtered });
    this.#init = borrowed;
    const builder = borrowed.task;
    this.#setNames(builder.remote);
    const { warn } = this.#options;
    const places = new PlaceBuilder({
      tid: builder.tid,
      remote: builder.remote,
      confined: this.#pod.capabilities !== undefined,
      rooted: this.#image.pod?.rooted === true,
      warn,
    });
    this.#places = places;
    places.make(this.#image);
    this.#along = broughtAlong(this.#image);
    checkFiles(this.#image, `/proc/${init}/root`, 'made');
    const segments = new SegmentBuilder(builder, warn);
    this.#segments = segments;
    segments.make(this.#image);
    // In the order of their numbers (createUnderNumber).
    const sets = [...this.#image.semaphores].sort((a, b) => a.record.id - b.record.id);
    for (const set of sets) makeSemaphores(set, builder.remote);
    makeQueues(this.#image.queues, builder.remote, warn);
    const files = new FileBuilder(this.#image, {
      builder,
      segments,
      console: this.#pod.consolePath,
      resetsConnections: this.#options.resetsConnections ?? false,
      warn,
    });
    this.#files = files;
    files.make();
    const growing = new TreeBuilder(this.#image, builder, (leader) => files.leadSession(leader));
    this.#growing = growing;
    growing.plant();
    this.#arrangeMemory(growing.tasks);
    if (growing.bases.length === 0) this.#complete();
  }

  /** Pages of this address space come now: those that come before it are filled. */
  #growBefore(mm: number | undefined): void {
    if (this.#tree) return;
    const growing = this.#growing!;
    for (const base of growing.bases) {
      if (base === mm) return;
      growing.grow(base);
      this.#arrangeMemory(growing.tasks);
    }
    this.#complete();
  }

  /** The rest of the tree, and what takes all of it. */
  #complete(): void {
    const tree = this.#growing!.complete();
    const files = this.#files!;
    this.#tree = tree;
    files.treeMade(tree.tasks);
    this.#arrangeMemory(tree.tasks);
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
    if (record.file !== undefined) {
      this.#places!.fill(record.file, record.addr, data);
      return;
    }
    if (record.shm !== undefined) {
      this.#segments!.fill(record.shm, record.addr, data);
      return;
    }
    this.#growBefore(record.mm);
    const space = needed(this.#spaces, record.mm ?? -1, 'address space');
    if (space.builder.vdso.isKernels(record.addr)) return;
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

  /** All pages have come: make the rest. Returns the pid (inside) of its topmost process. */
  finish(): number {
    this.#growBefore(undefined);
    this.#start = new SessionStart({
      image: this.#image,
      init: this.#init!,
      tree: this.#tree!,
      files: this.#files!,
      segments: this.#segments!,
      places: this.#places!,
      spaces: this.#spaces,
      capabilities: this.#pod.capabilities,
      times: this.#options.times,
      warn: this.#options.warn,
    });
    return this.#start.finish();
  }

  run(): void {
    this.#start?.run();
    this.#places?.close();
  }

  /** Kill everything made so far, and reap it: a tracer's dead hold up the end of their pid namespace. */
  destroy(): void {
    this.#segments?.close();
    this.#places?.undo();
    kill(this.#pod.initPid);
    // The youngest first: a process is gone only after its threads, pid 1 only after all others.
    for (const tid of [...(this.#init?.task.family ?? [])].reverse()) reap(tid);
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
    const first = new Map<number, NewTask>();
    for (const task of tree.tasks.values()) {
      const { files: id } = build.processOf(this.#image, task).record;
      if (!first.has(id)) first.set(id, task);
    }
    askTasks(
      [...first].map(([id, task]) => ({ task, id })),
      (_remote, { task, id }) => files.arrange(task, needed(this.#image.tables, id, 'descriptor table')),
    );
  }

  /** Of the tasks that were forked since the last time. */
  #arrangeMemory(tasks: ReadonlyMap<number, NewTask>): void {
    const keyed = usesKeys(this.#image);
    const made: (Space & { image: SpaceImage })[] = [];
    const sharers: { task: NewTask; id: number }[] = [];
    for (const task of tasks.values()) {
      if (this.#arranged.has(task.tid)) continue;
      this.#arranged.add(task.tid);
      const id = build.processOf(this.#image, task).record.mm;
      if (this.#spaces.has(id)) {
        sharers.push({ task, id });
        continue;
      }
      const image = needed(this.#image.spaces, id, 'address space');
      const { warn } = this.#options;
      const builder = new SpaceBuilder(task, image, { along: this.#along, warn });
      made.push({ builder, task, image });
      this.#spaces.set(id, { builder, task });
    }
    askTogether(made.map(({ builder, task }) => ({ remote: task.remote, asking: builder.moveCallSite() })));
    askTasks(made, (remote, { builder }) => builder.map(remote, this.#segments!));
    for (const { task, id } of sharers) task.site = this.#spaces.get(id)!.task.site;
    if (!keyed) return;
    for (const { task, image } of made)
      arrangeKeys(task, image, this.#image.spaces.get(image.record.base ?? -1));
  }

  /** Old code of a foreign vdso would read the old kernel's data; only its entries lead on. */
  #refuseInsideVdso(tree: BuiltTree): void {
    for (const task of tree.tasks.values()) {
      const { record, threads } = build.processOf(this.#image, task);
      const { builder } = needed(this.#spaces, record.mm, 'address space');
      for (const { record: thread } of threads) {
        const { buffer, byteOffset } = thread.registers;
        const rip = new DataView(buffer, byteOffset).getBigUint64(ripOffset, true);
        if (!builder.vdso.isForeignCode(rip)) continue;
        throw new PodError(
          'cannot-restart',
          `thread ${thread.tid} of process ${record.pid} was stopped inside the vdso of another kernel`,
          'dump the session again, or restart it on the kernel version the image comes from',
        );
      }
    }
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
