/**
 * Locks on files: fcntl(2) with F_SETLK (of a process, that is of its descriptor table), F_OFD_SETLK and flock(2) (of
 * an open file), F_SETLEASE. /proc/PID/fdinfo lists those that are held through a descriptor; who waits for one makes
 * its call again. They are taken back from inside, by the process that took them: F_GETLK names it. That comes when
 * nothing is opened or closed any more: closing any descriptor of a file ends the process's locks on it, opening one
 * breaks its lease.
 */
import { fstatSync, readFileSync, statSync } from 'node:fs';
import type { Records } from '../../../image/record.ts';
import { PodError } from '../../../stream/error.ts';
import { F, SYS } from '../abi.ts';
import { describeProcess, inodeName, readStatus } from '../proc.ts';
import type { Remote } from '../remote.ts';
import type { DumpContext, OpenFile, OutRecord, RestoreContext } from './file-object.ts';
import { borrow, closeLocal, errnoName } from './local-calls.ts';
import { findInPod } from './paths.ts';

type Lock = Records['file-locks']['locks'][number];

const kinds = { FLOCK: 'flock', POSIX: 'posix', OFDLCK: 'ofd', LEASE: 'lease' } as const;
const mostLocksAFrame = 512;
const EAGAIN = 11;
const EACCES = 13;
const F_RDLCK = 0;
const F_WRLCK = 1;
const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

/** A lock as the kernel lists it. */
interface ListedLock {
  kind: string;
  state: string;
  write: boolean;
  /** Host pid of who took it; -1 for F_OFD_SETLK, 0 when it is not ours to see. */
  pid: number;
  /** Device and inode: `fe:00:2150981`. */
  inode: string;
  start: bigint;
  end: bigint | undefined;
}

/** `POSIX  ADVISORY  WRITE 4714 fe:00:2150981 5 14`, behind a number; undefined for one that waits (`->`). */
function parseLock(line: string): ListedLock | undefined {
  const match = /\d+:\s+(\w+)\s+(\w+)\s+(\w+)\s+(-?\d+)\s+(\S+)\s+(\d+)\s+(\w+)\s*$/.exec(line);
  if (!match) return undefined;
  const [, kind, state, how, pid, inode, start, end] = match as unknown as string[];
  return {
    kind: kind!,
    state: state!,
    write: how === 'WRITE',
    pid: Number(pid),
    inode: inode!,
    start: BigInt(start!),
    end: end === 'EOF' ? undefined : BigInt(end!),
  };
}

/** All locks that are held on this computer. */
function listLocks(): ListedLock[] {
  return readFileSync('/proc/locks', 'latin1')
    .split('\n')
    .flatMap((line) => parseLock(line) ?? []);
}

const keyOf = (lock: ListedLock) =>
  `${lock.kind} ${lock.write} ${lock.pid} ${lock.inode} ${lock.start} ${lock.end}`;

function refuseUnknown(file: OpenFile, line: string, context: DumpContext): never {
  context.refuse(
    file,
    `it holds a lock of an unknown kind (${line.slice(5).trim()})`,
    'let the program release the lock first',
  );
}

/** The locks of a session, gathered descriptor by descriptor. */
export class LockCollector {
  readonly #locks = new Map<OpenFile, Map<string, Lock>>();
  readonly #listed = new Set<string>();

  /** `infoLines`: what a process with this descriptor table sees of the file in its fdinfo. */
  add(file: OpenFile, table: number | undefined, infoLines: readonly string[], context: DumpContext): void {
    for (const line of infoLines) {
      if (!line.startsWith('lock:')) continue;
      const listed = parseLock(line) ?? refuseUnknown(file, line, context);
      const kind = kinds[listed.kind as keyof typeof kinds] ?? refuseUnknown(file, line, context);
      if (listed.state === 'BREAKING') {
        context.refuse(
          file,
          'somebody waits for its lease to be given back',
          'try again when the program has given it back',
        );
      }
      this.#listed.add(keyOf(listed));
      const pid = context.innerPid(listed.pid);
      const lock: Lock = {
        kind,
        write: listed.write,
        ...(listed.start === 0n ? {} : { start: listed.start }),
        ...(listed.end === undefined ? {} : { end: listed.end }),
        ...(kind === 'posix' && table !== undefined ? { table } : {}),
        ...(pid === 0 ? {} : { pid }),
      };
      const locks = this.#locks.get(file) ?? new Map<string, Lock>();
      this.#locks.set(file, locks);
      // Every descriptor of the file shows it again.
      locks.set(`${keyOf(listed)} ${lock.table}`, lock);
    }
  }

  records(): OutRecord[] {
    return [...this.#locks].flatMap(([file, found]) => {
      const locks = [...found.values()];
      const frames: OutRecord[] = [];
      for (let at = 0; at < locks.length; at += mostLocksAFrame) {
        frames.push({
          name: 'file-locks',
          meta: { file: file.id, locks: locks.slice(at, at + mostLocksAFrame) },
        });
      }
      return frames;
    });
  }

  /**
   * A mapping keeps the open file it was made of, and its locks, when all descriptors are closed (every JVM has such
   * a one). Such a lock has a line in /proc/locks only. Where one area alone maps the inode, the lock is that area's.
   * `mapping` tells the areas of the session that map an inode.
   */
  findHidden(
    isOfSession: (pid: number) => boolean,
    mapping: (inode: string) => readonly MappedPlace[],
  ): Map<string, 'shared' | 'exclusive'> {
    const found = new Map<string, 'shared' | 'exclusive'>();
    for (const lock of listLocks()) {
      if (lock.kind !== 'FLOCK' && lock.kind !== 'OFDLCK') continue;
      if (this.#listed.has(keyOf(lock)) || (lock.pid !== -1 && !isOfSession(lock.pid))) continue;
      const [area, ...others] = mapping(lock.inode);
      if (!area) continue;
      const key = placeKey(area);
      if (lock.kind !== 'FLOCK' || others.length > 0 || found.has(key)) {
        throw new PodError(
          'cannot-checkpoint',
          `${describeProcess(area.pid)}, memory at ${area.start.toString(16)} (${area.path}): it is locked, its descriptor was closed, and which mapping holds the lock can't be told`,
          'let the program keep the locked file open, or release the lock first',
        );
      }
      found.set(key, lock.write ? 'exclusive' : 'shared');
    }
    return found;
  }
}

/** An area of a process (host pid). */
export interface MappedPlace {
  pid: number;
  start: bigint;
  path: string;
}

export const placeKey = ({ pid, start }: Pick<MappedPlace, 'pid' | 'start'>) => `${pid} ${start}`;

/** Lock a file just opened to be mapped; `task` is the host pid of who opened it. */
export function lockMapped(
  how: 'shared' | 'exclusive',
  remote: Remote,
  task: number,
  fd: bigint,
  path: string,
): void {
  const lock = { kind: 'flock', write: how === 'exclusive' } as const;
  const errno = take(lock, remote, Number(fd));
  if (errno === 0) return;
  const { dev, ino } = statSync(`/proc/${task}/fd/${fd}`, { bigint: true });
  const inode = inodeName(dev, ino);
  throw new PodError(
    'cannot-restart',
    errno === EAGAIN
      ? `${path} is locked here by ${nameHolder(inode)}, and the session had it locked`
      : `the session's lock on ${path} can't be had (${errnoName(errno)})`,
    errno === EAGAIN
      ? 'end the program that holds the lock (the session this image was made of, perhaps), then restart'
      : 'the file lies on a file system of another kind than before',
  );
}

/**
 * Before anything is opened, which alone would break somebody's lease: refuse what is held here already. Who comes
 * later is found when the locks are taken.
 */
export function refuseHeld(record: Records['file-locks'], path: string, context: RestoreContext): void {
  const { fd, stat } = findInPod(path, context);
  context.builder.call('close', SYS.close, fd);
  const inode = inodeName(stat.dev, stat.ino);
  const held = listLocks().find(
    (each) => each.inode === inode && record.locks.some((lock) => excludes(lock, each)),
  );
  if (!held) return;
  const holder = held.pid > 0 ? describeProcess(held.pid) : 'another program';
  const how = held.kind === 'LEASE' ? 'leased' : 'locked';
  context.refuse(
    `${path} is ${how} here by ${holder}, and the session had it locked`,
    'end the program that holds the lock (the session this image was made of, perhaps), then restart',
  );
}

function excludes(lock: Lock, held: ListedLock): boolean {
  const other = kinds[held.kind as keyof typeof kinds];
  if (!lock.write && !held.write) return false;
  if (lock.kind === 'lease' || lock.kind === 'flock') return other === lock.kind;
  if (other !== 'posix' && other !== 'ofd') return false;
  const isBehind = (start: bigint, end: bigint | undefined) => end !== undefined && start > end;
  return !isBehind(lock.start ?? 0n, held.end) && !isBehind(held.start, lock.end);
}

/** A process of the restarted session, with its descriptors. */
export interface LockHolder {
  remote: Remote;
  pid: number;
  table: number;
  /** Descriptor numbers of an object. */
  numbers(id: number): readonly number[];
}

/** Take the locks of one record; `name` is what the file is called. */
export function restoreLocks(
  record: Records['file-locks'],
  name: string,
  holders: readonly LockHolder[],
  context: RestoreContext,
): void {
  const having = holders.filter((holder) => holder.numbers(record.file).length > 0);
  for (const lock of record.locks) {
    const able = lock.kind === 'posix' ? having.filter(({ table }) => table === lock.table) : having;
    const holder = able.find(({ pid }) => pid === lock.pid) ?? able[0];
    if (!holder && lock.kind === 'posix') {
      context.refuse(
        `a lock on ${name} belongs to a process that does not have it open`,
        'load the image again',
      );
    }
    const errno = holder
      ? take(lock, holder.remote, holder.numbers(record.file)[0]!)
      : take(lock, context.builder, context.descriptor(record.file));
    if (errno !== 0) refuseLock(lock, record.file, name, errno, context);
  }
}

/** 0, or the errno. */
function take(lock: Lock, remote: Remote, fd: number): number {
  remote.reset();
  if (lock.kind === 'flock') {
    return Number(-remote.run([[SYS.flock, fd, (lock.write ? LOCK_EX : LOCK_SH) | LOCK_NB]])[0]!);
  }
  const type = lock.write ? F_WRLCK : F_RDLCK;
  if (lock.kind === 'lease') return Number(-remote.run([[SYS.fcntl, fd, F.setlease, type]])[0]!);
  // struct flock: type, whence, start, length, pid. Length 0 is to the end, wherever that will be.
  const request = new DataView(new ArrayBuffer(32));
  const start = lock.start ?? 0n;
  request.setInt16(0, type, true);
  request.setBigInt64(8, start, true);
  request.setBigInt64(16, lock.end === undefined ? 0n : lock.end - start + 1n, true);
  const address = remote.put(new Uint8Array(request.buffer));
  return Number(-remote.run([[SYS.fcntl, fd, lock.kind === 'ofd' ? F.ofdSetlk : F.setlk, address]])[0]!);
}

function refuseLock(lock: Lock, file: number, name: string, errno: number, context: RestoreContext): never {
  if (lock.kind === 'lease' && errno === EAGAIN) {
    context.refuse(
      `the session's lease on ${name} can't be had: the file is open elsewhere`,
      'end the program that has it open, then restart',
    );
  }
  if (lock.kind !== 'lease' && (errno === EAGAIN || errno === EACCES)) {
    context.refuse(
      `${name} is locked here by ${findHolder(file, context)}, and the session had it locked`,
      'end the program that holds the lock (the session this image was made of, perhaps), then restart',
    );
  }
  context.refuse(
    `the session's lock on ${name} can't be had (${errnoName(errno)})`,
    lock.kind === 'lease'
      ? 'give the file to the user of the session, or restart as root'
      : 'the file lies on a file system of another kind than before',
  );
}

/** Who holds a lock on the file, and is not of the session that is being made. */
function findHolder(file: number, context: RestoreContext): string {
  const local = borrow(context.builderPid, context.descriptor(file));
  try {
    const { dev, ino } = fstatSync(local, { bigint: true });
    return nameHolder(inodeName(dev, ino));
  } finally {
    closeLocal(local);
  }
}

function nameHolder(name: string): string {
  const holder = listLocks().find(({ inode, pid }) => inode === name && pid > 0 && !isTracedByUs(pid));
  return holder ? describeProcess(holder.pid) : 'another program';
}

function isTracedByUs(pid: number): boolean {
  try {
    return Number(readStatus(pid).get('TracerPid')?.[0] ?? 0) === process.pid;
  } catch {
    return false;
  }
}
