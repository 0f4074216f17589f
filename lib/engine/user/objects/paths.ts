/** Open files that have a name: the name at dump, and finding it again at restart. */
import { type BigIntStats, lstatSync, opendirSync, readlinkSync, statfsSync, statSync } from 'node:fs';
import { posix } from 'node:path';
import { pathFault } from '../../../image/model.ts';
import { AT_FDCWD, F, O, SYS } from '../abi.ts';
import { keyOf, memfdName } from '../carriers.ts';
import { RemoteError } from '../remote.ts';
import type { DumpContext, OpenFile, RestoreContext } from './file-object.ts';
import { codeOf, control, errnoName } from './local-calls.ts';

/** Status flags that fcntl(2) can set later; O_ASYNC comes last of all (owner.ts). */
const settable = O.append | O.nonblock | O.direct | O.noatime;
/** What open(2) gets: nothing that makes, empties or takes over anything. */
const opening =
  O.accessMode |
  O.append |
  O.dsync |
  0o4000000 /* O_SYNC */ |
  O.direct |
  O.largefile |
  O.noatime |
  O.directory;

/** A path as a process's own root sees it, from the path that /proc shows us. */
export function belowRoot(pid: number, link: string): string {
  const root = readlinkSync(`/proc/${pid}/root`);
  if (root === '/') return link;
  return link === root ? '/' : link.startsWith(`${root}/`) ? link.slice(root.length) : link;
}

/** The path a file had, from what /proc shows of one without a name. */
export function formerPath(link: string): string {
  const path = link.endsWith(' (deleted)') ? link.slice(0, -' (deleted)'.length) : link;
  // A memfd may be called anything.
  if (memfdName(link) !== undefined && pathFault(path) !== undefined) return '/memfd:';
  return path.startsWith('/') ? path : `/${posix.basename(path)}`;
}

/** Whether a file lies at a path of a process's root. `key` as keyOf() gives it. */
function isAt(pid: number, path: string, key: string): boolean {
  try {
    return keyOf(lstatSync(`/proc/${pid}/root${path}`, { bigint: true })) === key;
  } catch {
    return false;
  }
}

/** Most entries of a folder that are looked at. */
const mostSiblings = 10_000;

/**
 * Another name of a file in the folder it lay in, or the very name it had: a link that stayed, or a nameless file
 * that was given a name (linkat(2)). `key` as keyOf() gives it.
 */
export function findSibling(pid: number, path: string, key: string): string | undefined {
  const folder = posix.dirname(path);
  if (isAt(pid, path, key)) return path;
  try {
    const entries = opendirSync(`/proc/${pid}/root${folder}`);
    try {
      for (let looked = 0; looked < mostSiblings; looked++) {
        const entry = entries.readSync();
        if (!entry) return undefined;
        const name = posix.join(folder, entry.name);
        if (entry.isFile() && isAt(pid, name, key)) return name;
      }
    } finally {
      entries.closeSync();
    }
  } catch {
    // The folder is gone, or closed to us.
  }
  return undefined;
}

/**
 * Where a regular file is found in the pod, or where it was when it has no name any more (`unlinked`). Refuses what
 * has a name that can't be found.
 */
export function placeInPod(file: OpenFile, context: DumpContext): { path: string; unlinked: boolean } {
  const { stat, pid, link } = file;
  if (memfdName(link) !== undefined) return { path: formerPath(link), unlinked: true };
  const named = belowRoot(pid, link);
  const former = formerPath(named);
  const key = keyOf(stat);
  // Some file systems count no names at all, and a name may end in these very words.
  if (isAt(pid, named, key)) return { path: named, unlinked: false };
  if (stat.nlink === 0n && !isPseudo(file)) return { path: former, unlinked: true };
  if (named === former || stat.nlink === 0n) return { path: pathInPod(file, context), unlinked: false };
  const path = findSibling(pid, former, key);
  if (path === undefined)
    context.refuse(
      file,
      'the file was deleted while it is open, but has another name elsewhere',
      'close it, or dump when the program has let go of it',
    );
  return { path, unlinked: false };
}

/** Files of the kernel (proc, sysfs, cgroup): such file systems have no blocks; nor has the tmpfs behind memory. */
function isPseudo(file: OpenFile): boolean {
  const { blocks, type } = statfsSync(`/proc/self/fd/${file.local}`, { bigint: true });
  return blocks === 0n && type !== tmpfs;
}

const tmpfs = 0x01021994n;

/**
 * Where an open file is found in the pod. Refuses when something else, or nothing, lies there now: a restart would
 * open that instead.
 */
export function pathInPod(file: OpenFile, context: DumpContext): string {
  const path = belowRoot(file.pid, file.link);
  if (!path.startsWith('/')) context.refuse(file, 'it has no name in the file system');
  const gone = path.endsWith(' (deleted)');
  let found: BigIntStats;
  try {
    found = lstatSync(`/proc/${file.pid}/root${path}`, { bigint: true });
  } catch (cause) {
    if (gone) {
      context.refuse(
        file,
        'the file was deleted while it is open',
        'close it, or dump when the program has let go of it',
      );
    }
    // What node makes of bytes that are not UTF-8.
    if (path.includes('\ufffd')) {
      context.refuse(
        file,
        'its path is not UTF-8, and an image can hold no other',
        'rename the file or folder (convmv), and let the program open it again',
      );
    }
    return context.refuse(
      file,
      `nothing is found at its path in the session (${codeOf(cause)})`,
      'it lies outside the root of the session, or its folder was moved',
    );
  }
  if (found.dev !== file.stat.dev || found.ino !== file.stat.ino) {
    context.refuse(
      file,
      'another file lies at its path now: it was replaced while it is open',
      'let the program open it again',
    );
  }
  return path;
}

/** Take hold of what lies at a path in the pod without opening it (O_PATH): a descriptor of the builder. */
export function findInPod(
  path: string,
  context: RestoreContext,
  flags = 0,
): { fd: number; stat: BigIntStats } {
  const { builder } = context;
  builder.reset();
  let fd: number;
  try {
    const address = builder.putString(path);
    fd = Number(builder.call('open', SYS.openat, AT_FDCWD, address, O.path | O.cloexec | flags));
  } catch (cause) {
    if (!(cause instanceof RemoteError)) throw cause;
    return context.refuse(
      `${path} is needed and ${cause.errno === 2 ? 'is not there' : `can't be reached (${errnoName(cause.errno)})`}`,
      'bring it to this computer under the same path, or map it with pod-filter relocate OLD=NEW',
    );
  }
  return { fd, stat: statSync(`/proc/${context.builderPid}/fd/${fd}`, { bigint: true }) };
}

/** Open what findInPod() found, with the flags the session had it open with; the handle is closed. */
export function openFound(handle: number, path: string, flags: number, context: RestoreContext): number {
  if ((flags & O.path) !== 0) return handle;
  const fd = openHandle(handle, path, flags, context);
  context.builder.call('close', SYS.close, handle);
  return fd;
}

/** A new open file of the one behind a descriptor of the builder, with the flags the session had it open with. */
export function openHandle(handle: number, path: string, flags: number, context: RestoreContext): number {
  const { builder } = context;
  // What open(2) of O_TMPFILE leaves in the flags says how the file came to be, not how it is open.
  const mask = (flags & O.tmpfile) === 0 ? opening : opening & ~O.directory;
  const attempt = (more: number): number => {
    builder.reset();
    const from = builder.putString(`/proc/self/fd/${handle}`);
    const open = (flags & mask & ~more) | O.nonblock | O.noctty;
    return Number(builder.call('open', SYS.openat, AT_FDCWD, from, open));
  };
  let fd: number;
  try {
    fd = attempt(0);
  } catch (cause) {
    if (!(cause instanceof RemoteError)) throw cause;
    // Only a file's owner may open it without touching its access time.
    if (cause.errno !== 1 || (flags & O.noatime) === 0) return refuseOpening(path, flags, cause, context);
    fd = attempt(O.noatime);
    context.warn(`${path} is open without O_NOATIME now: it has another owner here`);
  }
  setStatusFlags(fd, flags, context);
  return fd;
}

function refuseOpening(path: string, flags: number, cause: RemoteError, context: RestoreContext): never {
  const how = (flags & O.accessMode) === 0 ? 'reading' : 'writing';
  context.refuse(
    `${path} can't be opened for ${how} (${errnoName(cause.errno)})`,
    cause.errno === 30
      ? 'it lies on a file system that is mounted read-only'
      : cause.errno === 11
        ? 'another program has a lease on it (fcntl F_SETLEASE): end that first'
        : 'give the user of the session access to it',
  );
}

/** F_SETFL with what of `flags` it takes. */
export function setStatusFlags(fd: number | bigint, flags: number, context: RestoreContext): void {
  const [result] = context.builder.run([[SYS.fcntl, fd, F.setfl, flags & settable]]);
  if (result! < 0n) context.builder.call('F_SETFL', SYS.fcntl, fd, F.setfl, flags & settable & ~O.noatime);
}

/** The same for what is no file, whose flags whoever has it open may set: `local` is a descriptor of ours. */
export function setLocalFlags(local: number, flags: number): void {
  control(local, F.setfl, flags & settable);
}

/** lseek(2) to where the session was. */
export function seekTo(fd: number, position: bigint, path: string, context: RestoreContext): void {
  if (position === 0n) return;
  const [result] = context.builder.run([[SYS.lseek, fd, position, 0]]);
  if (result! < 0n) {
    context.refuse(
      `${path} can't be set to position ${position} (${errnoName(Number(-result!))})`,
      'it lies on a file system of another kind than before',
    );
  }
}

const typeNames = new Map([
  [0xc000, 'a socket'],
  [0xa000, 'a symbolic link'],
  [0x8000, 'a regular file'],
  [0x6000, 'a block device'],
  [0x4000, 'a folder'],
  [0x2000, 'a character device'],
  [0x1000, 'a FIFO'],
]);

/** `a regular file`, for messages; from st_mode. */
export function describeType(mode: bigint | number): string {
  return typeNames.get(Number(BigInt(mode) & 0xf000n)) ?? 'of unknown type';
}
