/**
 * The dump of a session, in the order in which nothing can be lost: stop it; learn everything that is not memory,
 * refusing what cannot be saved before the first byte; write that, then the memory; END. The session stays stopped
 * until the caller decides.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, readlinkSync } from 'node:fs';
import { arch, release } from 'node:os';
import { forkedInPlace } from '../../image/forked-in-place.ts';
import type { Records } from '../../image/record.ts';
import { type Barrier, raiseBarrier } from '../../network/barrier.ts';
import { PodError } from '../../stream/error.ts';
import { maxData } from '../../stream/frame.ts';
import { greaseKinds, kinds } from '../../stream/kind.ts';
import type { Sink } from '../../stream/sink.ts';
import { StreamWriter } from '../../stream/stream-writer.ts';
import type { DumpOptions, DumpTarget, StoppedSession } from '../engine.ts';
import { pageSize, SYS } from './abi.ts';
import { Carriers } from './carriers.ts';
import { collectFiles, type TableOwner } from './collect-files.ts';
import { MemoryCollector } from './collect-memory.ts';
import {
  type AskedProcess,
  askThread,
  fsRecord,
  processRecord,
  refuseThread,
  threadRecord,
  treeEntry,
} from './collect-process.ts';
import { Freezer } from './freeze.ts';
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
      // Uneven pauses: a session that works in a rhythm must not be met at the same beat each time.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5 + ((putOff * 37) % 160));
    }
  }
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
    const frozen = freezer.freeze(target.roots);
    if (frozen.every((process) => process.zombie))
      throw new PodError('cannot-checkpoint', `${target.name} has no running process`);
    refuseFiltered(frozen, freezer.suspendsSeccomp, podFilters(target));
    refuseDispatched(frozen);
    const view = new SessionView(frozen);
    unattached = new Unattached(target.init);
    let collected: Collected;
    try {
      refuseMixedNamespaces(view, target.init);
      const loss = (sentence: string) => view.losses.push(sentence);
      places = collectPlaces(target, view.alive[0]!.pid, options.withFiles ?? [], loss);
      collected = collect(target, view, putOff, {
        carriers,
        pagemaps,
        places,
        unattached,
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
  places: Places;
  /** Just before the session is ended. */
  end: () => void;
}

function collect(
  target: DumpTarget,
  view: SessionView,
  putOff: number,
  {
    carriers,
    pagemaps,
    places,
    unattached,
    holdBack,
  }: {
    carriers: Carriers;
    pagemaps: Pagemaps;
    places: Places;
    unattached: Unattached;
    holdBack: (() => void) | undefined;
  },
): Collected {
  if (target.init !== undefined) refusePosixQueues(target.init, view.alive[0]!.pid);
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
    const found = splitThreads(process, sharing, ids.get(process.pid)!);
    tables.push(...found.tables);
    folders.push(...found.folders);
  }
  view.losses.push(...lostAttributes(view));
  const ipc = {
    segments: view.within(view.alive[0]!.pid, listSysvSegments),
    own: target.init !== undefined,
  };
  unattached.carry(ipc.segments.values(), carriers);
  // A session without a pod uses the computer's, of which nobody can say whose they are.
  const messages =
    target.init === undefined ? [] : [...dumpSemaphores(view, target.init), ...dumpQueues(view)];
  const network = dumpNetwork(target, view);
  holdBack?.();
  const how = { putOff, keepsConnections: holdBack !== undefined };
  const files = collectFiles(view, tables, [...mmOwners.values()], how, carriers);
  files.release();
  const loss = (sentence: string) => view.losses.push(sentence);
  const memory = new MemoryCollector({ carriers, ipc, hiddenLocks: files.hiddenLocks, pagemaps, loss });
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
  for (const { process, thread } of everyone) refuseThread(process, thread);
  const answers = view.askEach(everyone, askThread).values();
  for (const process of view.alive) {
    const { firsts, ...own } = ids.get(process.pid)!;
    const told = process.threads.map(() => answers.next().value!);
    const asked = told[0]!.process!;
    if (firsts.has('vm')) {
      const parent = ids.get(process.parent)?.mm;
      spaces.push({ id: own.mm, process, asked: asked.memory, parent });
    }
    if (firsts.has('fs'))
      shared.push({ name: 'fs', meta: fsRecord(own.fs, process.pid, process.threads[0]!.status) });
    if (firsts.has('sighand'))
      shared.push({ name: 'handlers', meta: { id: own.handlers, actions: asked.handlers } });
    tasks.push({ name: 'process', meta: processRecord(process, own, asked) });
    process.threads.forEach((thread, index) => {
      const { meta, data } = threadRecord(process, thread, told[index]!.thread, filters);
      tasks.push({ name: 'thread', meta, data });
    });
  }
  for (const { id, thread } of folders)
    shared.push({ name: 'fs', meta: fsRecord(id, thread.tid, thread.status) });
  for (const { process } of spaces) memory.probe(process.pid, view);
  const names = view.within(view.alive[0]!.pid, askNames);
  const clocks = view.within(view.alive[0]!.pid, askClocks);
  const tree = view.processes.map((process) => treeEntry(view, process, outsideOf(target, view)));
  // From here on the session is asked nothing more; the areas are those without our scratch.
  view.finish();
  const inPlace = forkedInPlace(tree);
  for (const { id, process, asked, parent } of spaces)
    memory.add(id, process.pid, asked, inPlace.has(process.innerPid) ? parent : undefined);
  const { records, pages } = memory.finish();
  return {
    names,
    network,
    clocks,
    tree,
    records: [
      ...places.records,
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

const namespaces = ['mnt', 'ipc', 'uts', 'net', 'user', 'pid', 'cgroup', 'time'] as const;
/** Where the children of a task will live: unshare(2) changes only that. */
const forChildren = ['pid', 'time'] as const;

/** All are in the same; in a pod those of its pid 1, for that is what a restart makes. */
function refuseMixedNamespaces(view: SessionView, init: number | undefined): void {
  const [first] = view.alive;
  if (!first) return;
  const tasks = view.alive.flatMap((process) => process.threads.map(({ tid }) => ({ tid, process })));
  for (const { tid, process } of tasks) refuseNamespaceForChildren(tid, process);
  for (const name of namespaces) {
    if (!existsSync(`/proc/${first.pid}/ns/${name}`)) continue;
    const expected = readlinkSync(`/proc/${init ?? first.pid}/ns/${name}`);
    for (const { tid, process } of tasks) {
      if (readlinkSync(`/proc/${tid}/ns/${name}`) !== expected) {
        const thread = tid === process.pid ? '' : `thread ${tid} of `;
        throw new PodError(
          'cannot-checkpoint',
          `${thread}${describeProcess(process.pid)} has a ${name} namespace of its own, which is not handled yet`,
        );
      }
    }
  }
}

/** A namespace that nobody has entered yet has no name. */
function refuseNamespaceForChildren(tid: number, process: SessionProcess): void {
  for (const name of forChildren) {
    const path = `/proc/${tid}/ns/${name}`;
    if (!existsSync(path)) continue;
    let children = '';
    try {
      children = readlinkSync(`${path}_for_children`);
    } catch (cause) {
      if (!isGone(cause)) throw cause;
    }
    if (children === readlinkSync(path)) continue;
    throw new PodError(
      'cannot-checkpoint',
      `${describeProcess(process.pid)}, thread ${tid}: its children will have a ${name} namespace of their own (unshare), which is not handled`,
    );
  }
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
  const placed = places.bytes.memory + places.bytes.disk;
  const memoryBytes = sources.reduce((sum, { ranges }) => sum + totalOf(ranges), placed);
  // An unlinked file takes room on its file system again, not in memory.
  const unlinked = new Set(
    collected.records.flatMap(({ name, meta }) =>
      name === 'shm' && (meta as Records['shm']).origin === 'unlinked' ? [(meta as Records['shm']).id] : [],
    ),
  );
  const fileBytes = sources
    .filter(({ source }) => 'shm' in source.key && unlinked.has(source.key.shm))
    .reduce((sum, { ranges }) => sum + totalOf(ranges), places.bytes.disk);
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
  places.write(out);
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
