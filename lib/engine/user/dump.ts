/**
 * The dump of a session, in the order in which nothing can be lost: stop it; learn everything that is not memory,
 * refusing what cannot be saved before the first byte; write that, then the memory; END. The session stays stopped
 * until the caller decides.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, readlinkSync } from 'node:fs';
import { arch, release } from 'node:os';
import { nap } from '../../../native/nap.ts';
import { forkedInPlace } from '../../image/forked-in-place.ts';
import type { Records } from '../../image/record.ts';
import { type Barrier, raiseBarrier } from '../../network/barrier.ts';
import { PodError } from '../../stream/error.ts';
import { maxData } from '../../stream/frame.ts';
import { greaseKinds, kinds } from '../../stream/kind.ts';
import type { Sink } from '../../stream/sink.ts';
import { StreamWriter } from '../../stream/stream-writer.ts';
import type { DumpOptions, DumpTarget, Explanation, StoppedSession } from '../engine.ts';
import { pageSize, SYS } from './abi.ts';
import { Carriers } from './carriers.ts';
import { collectFiles, type TableOwner } from './collect-files.ts';
import { MemoryCollector } from './collect-memory.ts';
import {
  type Asked,
  type AskedProcess,
  askThread,
  fsRecord,
  processRecord,
  refuseThread,
  threadRecord,
  treeEntry,
} from './collect-process.ts';
import { Freezer, type FrozenProcess } from './freeze.ts';
import { inheritedMemory } from './inheritance.ts';
import { lostAttributes } from './lost-attributes.ts';
import type { OutRecord } from './objects/file-object.ts';
import { refusePosixQueues } from './objects/posix-queues.ts';
import { protectionKeys } from './objects/protection-keys.ts';
import { FilterCollector, refuseFiltered } from './objects/seccomp.ts';
import { dumpQueues } from './objects/sysv-queue.ts';
import { dumpSemaphores } from './objects/sysv-semaphores.ts';
import { listSysvSegments } from './objects/sysv-shm.ts';
import { Unattached } from './objects/sysv-unattached.ts';
import { Obstacles } from './obstacles.ts';
import { dumpNetwork } from './own-network.ts';
import { Pagemaps, type PageSource } from './page-source.ts';
import { PassingState } from './passing-state.ts';
import { collectPlaces, type Places } from './places/collect-places.ts';
import { cpuFlags } from './preflight.ts';
import { describeProcess, isGone, readStatus } from './proc.ts';
import type { Remote } from './remote.ts';
import { type SessionProcess, type SessionThread, SessionView } from './session-view.ts';
import { SharedObjects } from './sharing.ts';
import { splitThreads } from './split-threads.ts';
import { refuseDispatched } from './thread-attributes.ts';
import { countPages, writePages } from './write-pages.ts';

const treeEntriesAFrame = 256;

/** Times that a session in a passing state is let go on and stopped again; in all about two seconds. */
const mostPutOff = 24;

export function dump(target: DumpTarget, options: DumpOptions, sink: Sink): StoppedSession {
  if (arch() !== 'x64') throw new PodError('cannot-checkpoint', `this engine handles x86_64, not ${arch()}`);
  for (let putOff = 0; ; putOff++) {
    try {
      return tryDump(target, options, sink, putOff);
    } catch (cause) {
      if (!(cause instanceof PassingState) || putOff === mostPutOff) throw cause;
      pause(putOff);
    }
  }
}

/** Uneven: a session that works in a rhythm must not be met at the same beat each time. */
function pause(putOff: number): void {
  nap(5 + ((putOff * 37) % 160));
}

/** Everything that stands against a dump, and what it would lose; the session goes on. */
export function explain(target: DumpTarget): Explanation {
  for (let putOff = 0; ; putOff++) {
    const obstacles = new Obstacles(true);
    const losses = obstacles.past(() => tryExplain(target, obstacles, putOff));
    if (!losses) noteUnseen(obstacles);
    const { found } = obstacles;
    if (putOff < mostPutOff && found.some((each) => each instanceof PassingState)) pause(putOff);
    else
      return {
        obstacles: found.map(({ message, hint }) => ({ message, hint: hint ?? null })),
        losses: losses ?? [],
      };
  }
}

/** Some things forbid to ask the session anything. */
function noteUnseen(obstacles: Obstacles, cause?: unknown): void {
  obstacles.past(() => {
    const why = cause === undefined ? '' : ` (${PodError.from(cause).message})`;
    throw new PodError(
      'cannot-checkpoint',
      `the rest of the session can't be looked at before that is gone${why}`,
    );
  });
}

function tryExplain(target: DumpTarget, obstacles: Obstacles, putOff: number): string[] {
  const freezer = new Freezer();
  const means = { carriers: new Carriers(), pagemaps: new Pagemaps(), obstacles };
  let unattached: Unattached | undefined;
  let places: Places | undefined;
  try {
    const view = stop(target, freezer).view;
    unattached = new Unattached(target.init);
    places = survey(target, view, [], obstacles);
    const found = { ...means, places, unattached };
    try {
      obstacles.past(() => collect(target, view, putOff, found));
    } catch (cause) {
      // Something that is left out may be missed further on: what was found is worth more than that.
      if (obstacles.found.length === 0) throw cause;
      noteUnseen(obstacles, cause);
    } finally {
      view.finish();
    }
    return view.losses;
  } finally {
    try {
      unattached?.release();
    } finally {
      freezer.thaw();
    }
    means.carriers.close();
    means.pagemaps.close();
    places?.close();
  }
}

function stop(target: DumpTarget, freezer: Freezer): { frozen: FrozenProcess[]; view: SessionView } {
  const frozen = freezer.freeze(target.roots);
  if (frozen.every((process) => process.zombie))
    throw new PodError('cannot-checkpoint', `${target.name} has no running process`);
  refuseFiltered(frozen, freezer.suspendsSeccomp, podFilters(target));
  refuseDispatched(frozen);
  return { frozen, view: new SessionView(frozen) };
}

function tryDump(target: DumpTarget, options: DumpOptions, sink: Sink, putOff: number): StoppedSession {
  const freezer = new Freezer();
  const writer = new StreamWriter(sink);
  const carriers = new Carriers();
  const pagemaps = new Pagemaps();
  let unattached: Unattached | undefined;
  let barrier: Barrier | undefined;
  const lower = () => {
    barrier?.lower();
    barrier = undefined;
  };
  let places: Places | undefined;
  try {
    const { frozen, view } = stop(target, freezer);
    unattached = new Unattached(target.init);
    // The first ends it.
    const obstacles = new Obstacles(false);
    let collected: Collected;
    try {
      places = survey(target, view, options.withFiles ?? [], obstacles);
      collected = collect(target, view, putOff, {
        carriers,
        pagemaps,
        places,
        unattached,
        obstacles,
        holdBack:
          options.tcp === 'keep'
            ? () => {
                barrier = holdBack(target, frozen[0]!.pid);
              }
            : undefined,
      });
    } finally {
      view.finish();
    }
    const imageId = write(collected, target, view, options, { writer, pagemaps });
    return {
      imageId,
      losses: view.losses,
      thaw: () => {
        lower();
        freezer.thaw();
      },
      kill: () => {
        // First: a socket that ends says so to its peer, and a network without a socket says that it has none.
        barrier?.cut();
        collected.end();
        for (const process of frozen) {
          if (!process.zombie) killProcess(process.pid);
        }
        freezer.thaw();
      },
    };
  } catch (cause) {
    lower();
    freezer.thaw();
    if (!writer.untouched && !writer.finished) writeError(writer, cause);
    throw cause;
  } finally {
    unattached?.release();
    carriers.close();
    pagemaps.close();
    places?.close();
  }
}

/** From now on nothing reaches the session's connections to outside. */
function holdBack({ net }: DumpTarget, pid: number): Barrier {
  const otherwise = 'without --tcp keep they are as if reset by their peers';
  if (net !== 'own')
    throw new PodError(
      'cannot-checkpoint',
      "connections can only be kept by a session whose address is its own: in the computer's network the kernel would end them while the session is away",
      `start it with pod-run --net own; ${otherwise}`,
    );
  try {
    return raiseBarrier(pid);
  } catch (cause) {
    throw new PodError(
      'cannot-checkpoint',
      `this computer can't hold back what comes for the session's connections while it is stopped: ${(cause as Error).message}`,
      `root and nftables are needed, Linux 5.12 or newer; ${otherwise}`,
      { cause },
    );
  }
}

/** Seccomp filters that every process of a confined pod has of its pid 1; a restart's pid 1 brings the same. */
function podFilters(target: DumpTarget): number {
  if (!target.confined || target.init === undefined) return 0;
  return Number(readStatus(target.init).get('Seccomp_filters')?.[0] ?? 0);
}

function killProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ESRCH') throw cause;
  }
}

/** The reader learns what went wrong, if it is still there. */
function writeError(writer: StreamWriter, cause: unknown): void {
  try {
    writer.error('pod-dump', PodError.from(cause));
  } catch {
    // It is not; the first cause is what matters.
  }
}

interface Collected {
  names: { hostname: string; domainname: string };
  network: Records['pod']['network'];
  clocks: Records['hello']['clocks'];
  tree: Records['tree']['processes'];
  records: OutRecord[];
  pages: PageSource[];
  places: Places | undefined;
  /** Just before the session is ended. */
  end: () => void;
}

interface Means {
  carriers: Carriers;
  pagemaps: Pagemaps;
  /** Undefined when they can't be saved, and only what else can't be is asked for. */
  places: Places | undefined;
  unattached: Unattached;
  obstacles: Obstacles;
  /** To be called before the open files are looked at. */
  holdBack?: (() => void) | undefined;
}

/** Where the session's processes are: namespaces, mounts, files that go along. */
function survey(
  target: DumpTarget,
  view: SessionView,
  withFiles: readonly string[],
  obstacles: Obstacles,
): Places | undefined {
  refuseMixedNamespaces(view, target.init, obstacles);
  const loss = (sentence: string) => view.losses.push(sentence);
  return obstacles.past(() => collectPlaces(target, view.alive[0]!.pid, withFiles, loss));
}

type ThreadPlace = { process: SessionProcess; thread: SessionThread };

/** All at once; where one can't be saved and the others are wanted, each by itself. */
function askThreads(
  view: SessionView,
  everyone: readonly ThreadPlace[],
  obstacles: Obstacles,
): Map<SessionThread, Asked> {
  const good = everyone.filter(({ process, thread }) =>
    obstacles.past(() => {
      refuseThread(process, thread);
      return true;
    }),
  );
  const answers =
    obstacles.past(() => view.askEach(good, askThread)) ??
    good.map((one) => obstacles.past(() => view.askEach([one], askThread)[0]));
  return new Map(good.flatMap(({ thread }, index) => (answers[index] ? [[thread, answers[index]]] : [])));
}

function collect(
  target: DumpTarget,
  view: SessionView,
  putOff: number,
  { carriers, pagemaps, places, unattached, obstacles, holdBack }: Means,
): Collected {
  const { init } = target;
  const first = view.alive[0]!.pid;
  if (init !== undefined) obstacles.past(() => refusePosixQueues(init, first));
  const sharing = {
    vm: new SharedObjects('vm'),
    files: new SharedObjects('files'),
    fs: new SharedObjects('fs'),
    sighand: new SharedObjects('sighand'),
  };
  const mmOwners = new Map<number, number>();
  const ids = new Map<
    number,
    { mm: number; files: number; fs: number; handlers: number; firsts: Set<string> }
  >();
  for (const process of view.alive) {
    const vm = sharing.vm.find(process.pid);
    const files = sharing.files.find(process.pid);
    const fs = sharing.fs.find(process.pid);
    const sighand = sharing.sighand.find(process.pid);
    if (vm.first) mmOwners.set(vm.id, process.pid);
    view.shareMemory(process.pid, mmOwners.get(vm.id)!);
    const firsts = new Set(
      Object.entries({ vm, files, fs, sighand })
        .filter(([, found]) => found.first)
        .map(([name]) => name),
    );
    ids.set(process.pid, { mm: vm.id, files: files.id, fs: fs.id, handlers: sighand.id, firsts });
  }
  const tables: TableOwner[] = view.alive
    .filter((process) => ids.get(process.pid)!.firsts.has('files'))
    .map((process) => ({ id: ids.get(process.pid)!.files, pid: process.pid }));
  const folders: { id: number; thread: SessionThread }[] = [];
  for (const process of view.alive) {
    const found = obstacles.past(() => splitThreads(process, sharing, ids.get(process.pid)!));
    if (!found) continue;
    tables.push(...found.tables);
    folders.push(...found.folders);
  }
  view.losses.push(...lostAttributes(view, init));
  const ipc = {
    segments: view.within(view.alive[0]!.pid, listSysvSegments),
    own: target.init !== undefined,
  };
  obstacles.past(() => unattached.carry(ipc.segments.values(), carriers));
  // A session without a pod uses the computer's, of which nobody can say whose they are.
  const messages =
    init === undefined
      ? []
      : [
          ...(obstacles.past(() => [...dumpSemaphores(view, init)]) ?? []),
          ...(obstacles.past(() => [...dumpQueues(view)]) ?? []),
        ];
  const network = dumpNetwork(target, view);
  holdBack?.();
  const loss = (sentence: string) => view.losses.push(sentence);
  const how = { putOff, keepsConnections: holdBack !== undefined };
  const files = collectFiles(view, tables, [...mmOwners.values()], how, carriers, obstacles);
  files.release();
  const { hiddenLocks } = files;
  const memory = new MemoryCollector({ carriers, ipc, hiddenLocks, pagemaps, obstacles, loss });
  const shared: OutRecord[] = [];
  const tasks: OutRecord[] = [];
  const filters = new FilterCollector(podFilters(target));
  const spaces: {
    id: number;
    process: SessionProcess;
    asked: AskedProcess['memory'];
    /** Address space of its parent. */
    parent: number | undefined;
  }[] = [];
  const everyone = view.alive.flatMap((process) => process.threads.map((thread) => ({ process, thread })));
  const answers = askThreads(view, everyone, obstacles);
  for (const process of view.alive) {
    const { firsts, ...own } = ids.get(process.pid)!;
    const told = process.threads.map((thread) => answers.get(thread));
    const asked = told[0]?.process;
    if (!asked) continue;
    if (firsts.has('vm')) {
      const parent = ids.get(process.parent)?.mm;
      spaces.push({ id: own.mm, process, asked: asked.memory, parent });
    }
    const fs =
      firsts.has('fs') && obstacles.past(() => fsRecord(own.fs, process.pid, process.threads[0]!.status));
    if (fs) shared.push({ name: 'fs', meta: fs });
    if (firsts.has('sighand'))
      shared.push({ name: 'handlers', meta: { id: own.handlers, actions: asked.handlers } });
    tasks.push({ name: 'process', meta: processRecord(process, own, asked) });
    process.threads.forEach((thread, index) => {
      const answer = told[index]?.thread;
      const record = answer && obstacles.past(() => threadRecord(process, thread, answer, filters));
      if (record) tasks.push({ name: 'thread', ...record });
    });
  }
  for (const { id, thread } of folders) {
    const fs = obstacles.past(() => fsRecord(id, thread.tid, thread.status));
    if (fs) shared.push({ name: 'fs', meta: fs });
  }
  for (const { process } of spaces) memory.probe(process.pid, view);
  const names = view.within(view.alive[0]!.pid, askNames);
  const clocks = view.within(view.alive[0]!.pid, askClocks);
  const outside = outsideOf(target, view);
  const tree = view.processes.map((process) =>
    treeEntry(view, process, outside, answers.get(process.threads[0]!)?.thread),
  );
  // From here on the session is asked nothing more; the areas are those without our scratch.
  view.finish();
  const inPlace = forkedInPlace(tree);
  for (const { id, process, asked, parent } of spaces)
    memory.add(id, process.pid, asked, inPlace.has(process.innerPid) ? parent : undefined);
  const { records, pages } = memory.finish(new Set(view.processes.map(({ pid }) => pid)));
  return {
    names,
    network,
    clocks,
    tree,
    records: [
      ...(places?.records ?? []),
      ...records,
      ...files.records,
      ...messages,
      ...shared,
      ...filters.records,
      ...tasks,
    ],
    pages,
    places,
    end: files.end,
  };
}

/** Whether a group or session id names a process that lives outside the session. */
function outsideOf(target: DumpTarget, view: SessionView): (id: number) => boolean {
  const inside = new Set(view.processes.map((process) => process.innerPid));
  // In a pod every id is the pod's own, its leader alive or not; id 0 is outside, and 1 is pod-init.
  if (target.init !== undefined) return (id) => id <= 1;
  return (id) => id === 0 || (!inside.has(id) && existsSync(`/proc/${id}`));
}

const namespaces = ['pid', 'time', 'mnt', 'ipc', 'uts', 'net', 'user', 'cgroup'] as const;
/** Where the children of a task will live: unshare(2) changes only that. */
const forChildren = ['pid', 'time'] as const;

/** All are in the same; in a pod those of its pid 1, for that is what a restart makes. */
function refuseMixedNamespaces(view: SessionView, init: number | undefined, obstacles: Obstacles): void {
  const [first] = view.alive;
  if (!first) return;
  const tasks = view.alive.flatMap((process) => process.threads.map(({ tid }) => ({ tid, process })));
  for (const name of namespaces) {
    if (!existsSync(`/proc/${first.pid}/ns/${name}`)) continue;
    const expected = readlinkSync(`/proc/${init ?? first.pid}/ns/${name}`);
    const handedOn = (forChildren as readonly string[]).includes(name);
    for (const { tid, process } of tasks) {
      const path = `/proc/${tid}/ns/${name}`;
      const own = readlinkSync(path);
      if (handedOn) obstacles.past(() => refuseNamespaceForChildren(tid, process, name, own));
      if (own === expected) continue;
      const thread = tid === process.pid ? '' : `thread ${tid} of `;
      obstacles.past(() => {
        throw new PodError(
          'cannot-checkpoint',
          `${thread}${describeProcess(process.pid)} has a ${name} namespace of its own, which is not handled yet`,
        );
      });
    }
  }
}

/** A namespace that nobody has entered yet has no name. */
function refuseNamespaceForChildren(tid: number, process: SessionProcess, name: string, own: string): void {
  let children = '';
  try {
    children = readlinkSync(`/proc/${tid}/ns/${name}_for_children`);
  } catch (cause) {
    if (!isGone(cause)) throw cause;
  }
  if (children === own) return;
  throw new PodError(
    'cannot-checkpoint',
    `${describeProcess(process.pid)}, thread ${tid}: its children will have a ${name} namespace of their own (unshare), which is not handled`,
  );
}

function write(
  collected: Collected,
  target: DumpTarget,
  view: SessionView,
  options: DumpOptions,
  { writer, pagemaps }: { writer: StreamWriter; pagemaps: Pagemaps },
): string {
  const sources = countPages(collected.pages, pagemaps);
  const { places } = collected;
  const { memory, disk } = places?.bytes ?? { memory: 0, disk: 0 };
  const memoryBytes = sources.reduce((sum, { ranges }) => sum + totalOf(ranges), memory + disk);
  // An unlinked file takes room on its file system again, not in memory.
  const unlinked = new Set(
    collected.records.flatMap(({ name, meta }) =>
      name === 'shm' && (meta as Records['shm']).origin === 'unlinked' ? [(meta as Records['shm']).id] : [],
    ),
  );
  const fileBytes = sources
    .filter(({ source }) => 'shm' in source.key && unlinked.has(source.key.shm))
    .reduce((sum, { ranges }) => sum + totalOf(ranges), disk);
  options.onReady?.({
    memoryBytes,
    processes: view.processes.length,
    threads: view.processes.reduce((sum, process) => sum + process.threads.length, 0),
  });
  const imageId = randomBytes(16).toString('hex');
  writer.record(kinds.hello, {
    ...hello(target, view, options, collected, imageId),
    memory: BigInt(memoryBytes - fileBytes),
  });
  writer.record(kinds.pod, podRecord(target, view, collected));
  for (let at = 0; at < collected.tree.length; at += treeEntriesAFrame) {
    writer.record(kinds.tree, { processes: collected.tree.slice(at, at + treeEntriesAFrame) });
  }
  writeGrease(writer);
  for (const { name, meta, data } of collected.records)
    writer.record(kinds[name as keyof typeof kinds], meta, data);
  const buffer = new Uint8Array(maxData);
  let done = 0;
  const onRead = (bytes: number) => {
    done += bytes;
    options.onProgress?.(done);
  };
  const out = { writer, buffer, pagemaps, onRead };
  places?.write(out);
  for (const { source, ranges } of sources) writePages(out, source, ranges);
  writer.end();
  return imageId;
}

function totalOf(ranges: BigUint64Array): number {
  let sum = 0n;
  for (let index = 0; index < ranges.length; index += 2) sum += ranges[index + 1]! - ranges[index]!;
  return Number(sum);
}

/** A frame that means nothing, so that no reader learns to reject what it does not know. */
function writeGrease(writer: StreamWriter): void {
  const [dice, ...noise] = randomBytes(8);
  const kind = greaseKinds.first + (dice! % (greaseKinds.last - greaseKinds.first + 1));
  writer.record(kind, { grease: Uint8Array.from(noise) }, undefined, 0);
}

/** Kernel features by the objects that need them. */
const needs: Partial<Record<keyof Records, string>> = {
  epoll: 'epoll',
  eventfd: 'eventfd',
  timerfd: 'timerfd',
  signalfd: 'signalfd',
  inotify: 'inotify',
  pidfd: 'pidfd',
  place: 'places',
  'sysv-semaphores': 'sysv-semaphores',
  'sysv-queue': 'sysv-queues',
};

function hello(
  target: DumpTarget,
  view: SessionView,
  options: DumpOptions,
  { records, clocks, network }: Collected,
  imageId: string,
): Records['hello'] {
  const requires = new Set<string>();
  if (network) requires.add('own-network');
  for (const { name, meta } of records) {
    const feature = needs[name];
    if (feature) requires.add(feature);
    if (name === 'shm' && (meta as Records['shm']).origin === 'memfd') requires.add('memfd');
    if (name === 'areas' && (meta as Records['areas']).areas.some(({ flock }) => flock !== undefined))
      requires.add('mapped-locks');
    if (name === 'mm' && (meta as Records['mm']).protectionKeys !== undefined) requires.add(protectionKeys);
    if (
      name === 'areas' &&
      (meta as Records['areas']).areas.some(({ protectionKey }) => protectionKey !== undefined)
    )
      requires.add(protectionKeys);
    if (name === 'content' && (meta as Records['content']).rights) requires.add('descriptors-in-flight');
    if (name === 'inet-socket' && (meta as Records['inet-socket']).kept) requires.add('kept-connections');
    if (name === 'unix-socket' && (meta as Records['unix-socket']).waiting) requires.add('socket-backlog');
    if (name === 'mm' && (meta as Records['mm']).base !== undefined) requires.add(inheritedMemory);
    if (name === 'process' && (meta as Records['process']).timers) requires.add('posix-timers');
    if (name === 'thread' && (meta as Records['thread']).robustList) requires.add('futex-lists');
    if (name === 'thread' && (meta as Records['thread']).rseq) requires.add('rseq');
    if (name === 'seccomp' || (name === 'thread' && (meta as Records['thread']).seccomp))
      requires.add('seccomp');
    if (name === 'thread' && isSplit(meta as Records['thread'])) requires.add('split-threads');
  }
  return {
    producer: options.producer,
    engine: 'user',
    kernel: release(),
    semantics: '2.6',
    arch: 'x86_64',
    pageSize,
    cpuFeatures: cpuFlags(),
    clocks,
    pod: target.name,
    imageId,
    requires: [...requires].sort(),
    history: [],
    ...(view.losses.length > 0 ? { losses: view.losses } : {}),
  };
}

const isSplit = ({ files, fs }: Records['thread']) => files !== undefined || fs !== undefined;

const uname = 63;

function podRecord(target: DumpTarget, view: SessionView, { names, network }: Collected): Records['pod'] {
  const first = view.alive[0]!;
  return {
    name: target.name,
    ...names,
    root: readlinkSync(`/proc/${first.pid}/root`),
    rooted: target.rooted,
    init: target.init !== undefined,
    ...(target.confined ? { confined: true } : {}),
    ...(target.net === undefined ? {} : { net: target.net }),
    ...(network ? { network } : {}),
    ...(target.limits ? { limits: target.limits } : {}),
  };
}

/** The clocks as the session sees them: it may be in a time namespace already. */
function askClocks(remote: Remote): Records['hello']['clocks'] {
  const [realtimeNs, monotonicNs, boottimeNs] = [0, 1, 7].map((clock) => {
    remote.reset();
    const address = remote.reserve(16);
    remote.call('clock_gettime', SYS.clock_gettime, clock, address);
    const bytes = remote.read(address, 16).slice();
    const view = new DataView(bytes.buffer);
    return view.getBigInt64(0, true) * 1_000_000_000n + view.getBigInt64(8, true);
  }) as [bigint, bigint, bigint];
  return { realtimeNs, monotonicNs, boottimeNs };
}

/** uname(2) as the session sees it: six fields of 65 bytes. */
function askNames(remote: Remote): { hostname: string; domainname: string } {
  remote.reset();
  const address = remote.reserve(6 * 65);
  remote.call('uname', uname, address);
  const bytes = Buffer.from(remote.read(address, 6 * 65));
  const field = (index: number) => bytes.toString('utf8', index * 65, bytes.indexOf(0, index * 65));
  return { hostname: field(1), domainname: field(5) };
}
