/** Descriptor tables and the open file descriptions behind them. */
import { fstatSync } from 'node:fs';
import { native } from '../../../native/index.ts';
import { PodError } from '../../stream/error.ts';
import { F, O, PIDFD_THREAD, SYS } from './abi.ts';
import type { Carriers } from './carriers.ts';
import { LockCollector, type MappedPlace } from './objects/file-locks.ts';
import type { DumpContext, OpenFile, OutRecord } from './objects/file-object.ts';
import { fileObjects } from './objects/index.ts';
import { closeLocal, codeOf, control } from './objects/local-calls.ts';
import type { Obstacles } from './obstacles.ts';
import { PassingState } from './passing-state.ts';
import { describeProcess, listDescriptors, readDescriptorLink, readKeyedLines } from './proc.ts';
import type { SessionView } from './session-view.ts';
import { SharedFiles } from './sharing.ts';

export interface CollectedFiles {
  /** Object records in dependency order, then the descriptor tables. */
  records: OutRecord[];
  /** Locks that only a mapping holds. */
  hiddenLocks: HiddenLocks;
  /** What objects have to do when the session is just to be ended: do it. */
  end(): void;
  /** Close our duplicates. */
  release(): void;
}

/** `shared` or `exclusive` by placeKey(). */
export type HiddenLocks = ReadonlyMap<string, 'shared' | 'exclusive'>;

/** A descriptor table of the session: its id, and a host pid, or tid of a `thread`, that has it. */
export interface TableOwner {
  id: number;
  pid: number;
  thread?: boolean;
}

const entriesAFrame = 2048;

/**
 * `spaces`: a pid of each address space; `putOff`: see DumpContext; `carriers` learns of every file without a name.
 */
export function collectFiles(
  view: SessionView,
  tables: readonly TableOwner[],
  spaces: readonly number[],
  how: Circumstances,
  carriers: Carriers,
  obstacles: Obstacles,
): CollectedFiles {
  const files: OpenFile[] = [];
  const finder = new FileFinder(view, files, how, carriers);
  const tableRecords: OutRecord[] = [];
  const release = () => {
    for (const file of files) closeLocal(file.local);
    files.length = 0;
  };

  try {
    for (const table of tables) {
      const pidfd = obstacles.past(() => openOwner(table));
      if (pidfd === undefined) continue;
      const entries: { fd: number; file: number; closeOnExec?: boolean }[] = [];
      try {
        for (const fd of listDescriptors(table.pid)) {
          const local = Number(native().syscall(SYS.pidfd_getfd, pidfd, fd, 0));
          const infoLines = readKeyedLines(`/proc/${table.pid}/fdinfo/${fd}`);
          const file = obstacles.past(() => finder.take(local, table, fd, infoLines));
          if (!file) continue;
          const closeOnExec = hasCloseOnExec(infoLines);
          entries.push({ fd, file: file.id, ...(closeOnExec ? { closeOnExec } : {}) });
        }
      } finally {
        closeLocal(pidfd);
      }
      // An empty table is a table too.
      for (let at = 0; at === 0 || at < entries.length; at += entriesAFrame) {
        tableRecords.push({
          name: 'fd-table',
          meta: { id: table.id, entries: entries.slice(at, at + entriesAFrame) },
        });
      }
    }
    finder.discover(obstacles);
    const hiddenLocks = obstacles.past(() => findHiddenLocks(view, spaces, finder.locks)) ?? new Map();
    const records = dumpObjects(files, finder.context, obstacles);
    const { endings } = finder;
    return {
      records: [...records, ...tableRecords, ...finder.locks.records()],
      hiddenLocks,
      end: () => {
        for (const ending of endings) runEnding(ending, tables);
      },
      release,
    };
  } catch (cause) {
    release();
    throw cause;
  }
}

function openOwner({ pid, thread }: TableOwner): number {
  try {
    return Number(native().syscall(SYS.pidfd_open, pid, thread ? PIDFD_THREAD : 0));
  } catch (cause) {
    if (!thread || codeOf(cause) !== 'EINVAL') throw cause;
    throw new PodError(
      'cannot-checkpoint',
      `thread ${pid} of ${describeProcess(pid)} has a descriptor table of its own, which this kernel does not let others read`,
      'use Linux 6.9 or later',
      { cause },
    );
  }
}

/** Of this dump. */
export type Circumstances = Pick<DumpContext, 'putOff' | 'keepsConnections'>;

/** Something to be done to an open file before its session is ended. */
interface Ending {
  pid: number;
  fd: number;
  body: (local: number) => void;
}

function runEnding({ pid, fd, body }: Ending, tables: readonly TableOwner[]): void {
  let pidfd: number;
  try {
    pidfd = openOwner(tables.find((table) => table.pid === pid)!);
  } catch (cause) {
    // Somebody was quicker to end it.
    if (codeOf(cause) === 'ESRCH') return;
    throw cause;
  }
  const local = Number(native().syscall(SYS.pidfd_getfd, pidfd, fd, 0));
  closeLocal(pidfd);
  try {
    body(local);
  } finally {
    closeLocal(local);
  }
}

/** Every open file of the session, once: those with descriptors, and those that only a socket's queue holds. */
class FileFinder {
  readonly locks = new LockCollector();
  readonly endings: Ending[] = [];
  readonly context: DumpContext;
  readonly #files: OpenFile[];
  readonly #shared = new SharedFiles<OpenFile>();
  readonly #byDescriptor = new Map<string, OpenFile>();
  readonly #byInode = new Map<bigint, OpenFile[]>();

  /** What is found goes into `files`. */
  constructor(view: SessionView, files: OpenFile[], how: Circumstances, carriers: Carriers) {
    this.#files = files;
    const adopt = (local: number, through: OpenFile) => this.#adopt(local, through);
    const found = { files, byDescriptor: this.#byDescriptor, byInode: this.#byInode };
    this.context = makeContext(view, found, adopt, how, carriers, this.endings);
  }

  /** The open file of a descriptor, of which `local` is our duplicate. */
  take(local: number, table: TableOwner, fd: number, infoLines: string[]): OpenFile {
    const file = this.#find(local, { pid: table.pid, fd }, infoLines);
    file.holders.push({ pid: table.pid, fd });
    this.#byDescriptor.set(`${table.pid}:${fd}`, file);
    this.locks.add(file, table.id, infoLines, this.context);
    return file;
  }

  /** What is found on the way may lead to more. */
  discover(obstacles: Obstacles): void {
    for (let at = 0; at < this.#files.length; at++) {
      const file = this.#files[at]!;
      const object = fileObjects.find((each) => each.matches(file));
      obstacles.past(() => object?.discover?.(file, this.context));
    }
  }

  #adopt(local: number, through: OpenFile): OpenFile {
    const infoLines = readKeyedLines(`/proc/self/fdinfo/${local}`);
    const file = this.#find(local, { pid: through.pid, fd: through.fd, inFlight: true }, infoLines);
    file.travels = true;
    this.locks.add(file, undefined, infoLines, this.context);
    return file;
  }

  #find(local: number, place: Pick<OpenFile, 'pid' | 'fd' | 'inFlight'>, infoLines: string[]): OpenFile {
    const stat = fstatSync(local, { bigint: true });
    const { value: file, first } = this.#shared.find(local, `${stat.dev}:${stat.ino}`, () => ({
      ...describeLocal(local, stat, infoLines),
      id: this.#files.length,
      ...place,
    }));
    if (!first) {
      closeLocal(local);
      return file;
    }
    this.#files.push(file);
    const same = this.#byInode.get(stat.ino) ?? [];
    this.#byInode.set(stat.ino, same);
    same.push(file);
    return file;
  }
}

/** What our own duplicate of a descriptor tells. */
function describeLocal(
  local: number,
  stat: OpenFile['stat'],
  infoLines: string[],
): Omit<OpenFile, 'id' | 'pid' | 'fd'> {
  return {
    holders: [],
    local,
    link: readDescriptorLink('self', local),
    stat,
    flags: control(local, F.getfl) & ~O.largefile,
    info: new Map(
      infoLines.map((line) => [
        line.slice(0, line.indexOf(':')),
        line
          .slice(line.indexOf(':') + 1)
          .trim()
          .split(/\s+/),
      ]),
    ),
    infoLines,
  };
}

/** FD_CLOEXEC belongs to the number, not to the file: fdinfo shows it as O_CLOEXEC in the octal flags. */
function hasCloseOnExec(infoLines: readonly string[]): boolean {
  const flags = infoLines.find((line) => line.startsWith('flags:'));
  return (Number.parseInt(flags?.slice(6).trim() ?? '0', 8) & O.cloexec) !== 0;
}

function makeContext(
  view: SessionView,
  {
    files,
    byDescriptor,
    byInode,
  }: {
    files: readonly OpenFile[];
    byDescriptor: ReadonlyMap<string, OpenFile>;
    byInode: ReadonlyMap<bigint, readonly OpenFile[]>;
  },
  adopt: DumpContext['adopt'],
  { putOff, keepsConnections }: Circumstances,
  carriers: Carriers,
  endings: Ending[],
): DumpContext {
  // Asked for when all files are known.
  let nextId: number | undefined;
  const memory = new Map<string, unknown>();
  return {
    files,
    filesOf: (inode) => byInode.get(inode) ?? [],
    fileAt: (pid, fd) => byDescriptor.get(`${pid}:${fd}`),
    newFileId() {
      nextId ??= files.length;
      return nextId++;
    },
    adopt,
    innerPid: (pid) => view.innerPid(pid),
    innerTid: (tid) => view.innerTid(tid),
    once<Value>(key: string, make: () => Value): Value {
      if (!memory.has(key)) memory.set(key, make());
      return memory.get(key) as Value;
    },
    carry: (file, path) => carriers.ofFile(file.local, file.link, path, describeHolder(file)),
    within: (pid, body) => view.within(pid, body),
    loss: (sentence) => view.losses.push(sentence),
    refuse(file, why, hint) {
      throw new PodError('cannot-checkpoint', `${describeHolder(file)}: ${why}`, hint);
    },
    beforeEnd(file, body) {
      // What is only on its way through a socket ends with that.
      if (!file.inFlight) endings.push({ pid: file.pid, fd: file.fd, body });
    },
    putOff,
    keepsConnections,
    notNow(file, why, hint) {
      throw new PassingState(`${describeHolder(file)}: ${why}`, hint);
    },
  };
}

const describeHolder = (file: OpenFile) =>
  `${describeProcess(file.pid)}, ${file.inFlight ? 'on its way through ' : ''}descriptor ${file.fd} (${file.link})`;

function dumpObjects(files: readonly OpenFile[], context: DumpContext, obstacles: Obstacles): OutRecord[] {
  // An object may name others (an epoll set its targets), so each kind is written in the order of the list, and
  // the list has those that name others behind those they name.
  const records: OutRecord[] = [];
  const left = new Set(files);
  for (const object of fileObjects) {
    for (const file of left) {
      if (!object.matches(file)) continue;
      left.delete(file);
      records.push(...(obstacles.past(() => object.dump(file, context)) ?? []));
    }
  }
  for (const file of left) context.refuse(file, 'this kind of object is not handled');
  return records;
}

/** Locks of open files that live on in a mapping alone, by placeKey(). */
function findHiddenLocks(view: SessionView, owners: readonly number[], locks: LockCollector): HiddenLocks {
  let places: Map<string, MappedPlace[]> | undefined;
  return locks.findHidden(
    (pid) => view.process(pid) !== undefined,
    (inode) => {
      places ??= mappedPlaces(view, owners);
      return places.get(inode) ?? [];
    },
  );
}

/** Where files are mapped, by device and inode as /proc/locks has them. */
function mappedPlaces(view: SessionView, owners: readonly number[]): Map<string, MappedPlace[]> {
  const places = new Map<string, MappedPlace[]>();
  for (const pid of owners) {
    for (const { start, path, device, inode } of view.areas(pid)) {
      if (inode === 0n) continue;
      const key = `${device}:${inode}`;
      const known = places.get(key);
      if (known) known.push({ pid, start, path });
      else places.set(key, [{ pid, start, path }]);
    }
  }
  return places;
}
