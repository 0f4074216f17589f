/**
 * A tree of files as it goes into a stream: names with all that is known of them, and where their contents can be
 * read. It ends at mounts: what is mounted in it is a place of its own, or not the session's.
 */
import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
} from 'node:fs';
import { posix } from 'node:path';
import { bounds } from '../../../image/model.ts';
import { PodError } from '../../../stream/error.ts';
import { codeOf } from '../objects/local-calls.ts';
import { type PlacedFile, readAttributes } from './attributes.ts';

/** A regular file that travels, and how to open it again. */
export interface FileSource {
  file: number;
  /** Path here. */
  path: string;
  /** Path in the pod. */
  name: string;
  size: bigint;
  mtimeNs: bigint;
  ctimeNs: bigint;
  /** Bytes that it takes. */
  stored: bigint;
}

export interface WalkOptions {
  /** Paths in the pod that are mounted over. */
  mounts?: ReadonlySet<string>;
  /** Paths in the pod that every pod has by itself. */
  omit?: ReadonlySet<string>;
}

const refuse = (why: string, hint?: string): never => {
  throw new PodError('cannot-checkpoint', why, hint);
};

const isKind = (stat: BigIntStats, kind: number) => (Number(stat.mode) & constants.S_IFMT) === kind;

export class FileWalker {
  readonly sources: FileSource[] = [];
  #count = 0;

  /** `here`: where the tree is read; `path`: where it is in the pod. */
  walk(here: string, path: string, options: WalkOptions = {}): PlacedFile[] {
    const files: PlacedFile[] = [];
    /** Files of several names, by inode. */
    const linked = new Map<string, number>();
    const waiting = [{ here, path, parent: 0, name: '.' }];
    for (let next = waiting.pop(); next; next = waiting.pop()) {
      const at = next;
      const index = files.length;
      const covered = index > 0 && options.mounts?.has(at.path) === true;
      const stat = look(at.here, at.path);
      const first =
        stat.nlink > 1n && !stat.isDirectory() ? linked.get(`${stat.dev}:${stat.ino}`) : undefined;
      const file = covered
        ? this.#covered(stat, at)
        : first === undefined
          ? this.#describe(stat, at)
          : { parent: at.parent, name: at.name, mode: Number(stat.mode), link: first };
      if (stat.nlink > 1n && !stat.isDirectory() && first === undefined && !covered)
        linked.set(`${stat.dev}:${stat.ino}`, index);
      files.push(file);
      this.#count += 1;
      if (this.#count > bounds.placedFiles)
        refuse(`${path} and what else travels hold more than ${bounds.placedFiles} files`);
      if (!stat.isDirectory() || covered) continue;
      for (const name of list(at.here, at.path).reverse()) {
        const child = posix.join(at.path, name);
        if (options.omit?.has(child)) continue;
        waiting.push({ here: `${at.here}/${name}`, path: child, parent: index, name });
      }
    }
    return files;
  }

  /** What lies below a mount can't be seen; something must be there to mount on. */
  #covered(stat: BigIntStats, { parent, name, path, here }: Spot): PlacedFile {
    const bare = { parent, name, uid: Number(stat.uid), gid: Number(stat.gid) };
    if (stat.isDirectory()) return { ...bare, mode: constants.S_IFDIR | 0o755 };
    const file = this.#add({ here, path, size: 0n, stat });
    return { ...bare, mode: constants.S_IFREG | 0o644, file, size: 0n };
  }

  #describe(stat: BigIntStats, { here, path, parent, name }: Spot): PlacedFile {
    const common = {
      parent,
      name,
      mode: Number(stat.mode),
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      atimeNs: stat.atimeNs,
      mtimeNs: stat.mtimeNs,
    };
    const attributes = stat.isSymbolicLink() ? undefined : readAttributes(here, path);
    const more = attributes ? { attributes } : {};
    if (stat.isSymbolicLink()) {
      const target = readlinkSync(here);
      if (target.includes('\ufffd')) refuse(`${path} is a link to a name that is not UTF-8`, 'make it anew');
      return { ...common, target };
    }
    if (stat.isFile())
      return { ...common, ...more, file: this.#add({ here, path, size: stat.size, stat }), size: stat.size };
    if (isKind(stat, constants.S_IFCHR) || isKind(stat, constants.S_IFBLK))
      return { ...common, ...more, device: stat.rdev };
    return { ...common, ...more };
  }

  #add({ here, path, size, stat }: { here: string; path: string; size: bigint; stat: BigIntStats }): number {
    const file = this.sources.length;
    const { mtimeNs, ctimeNs } = stat;
    this.sources.push({ file, path: here, name: path, size, mtimeNs, ctimeNs, stored: stat.blocks * 512n });
    if (size > 0n) closeSync(openContents(here, path));
    return file;
  }
}

interface Spot {
  here: string;
  path: string;
  parent: number;
  name: string;
}

function look(here: string, path: string): BigIntStats {
  try {
    return lstatSync(here, { bigint: true });
  } catch (cause) {
    return refuse(`${path} can't be looked at (${codeOf(cause)})`, 'dump as root');
  }
}

function list(here: string, path: string): string[] {
  let names: string[];
  try {
    names = readdirSync(here).sort();
  } catch (cause) {
    return refuse(`the folder ${path} can't be read (${codeOf(cause)})`, 'dump as its owner, or as root');
  }
  const odd = names.find((name) => name.includes('\ufffd'));
  if (odd !== undefined)
    refuse(`${posix.join(path, odd)} has a name that is not UTF-8`, 'give it another name (convmv)');
  return names;
}

/** For reading, without a trace in its access time where we may. */
export function openContents(here: string, path: string): number {
  for (const more of [constants.O_NOATIME, 0]) {
    try {
      return openSync(here, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW | more);
    } catch (cause) {
      if (codeOf(cause) !== 'EPERM' || more === 0)
        return refuse(`${path} can't be read (${codeOf(cause)})`, 'dump as its owner, or as root');
    }
  }
  throw new Error('not reached');
}

/** Open what was seen before; it must not have changed since. */
export function openSame({ path, name, size, mtimeNs }: FileSource): number {
  const fd = openContents(path, name);
  const stat = fstatSync(fd, { bigint: true });
  if (stat.size === size && stat.mtimeNs === mtimeNs) return fd;
  closeSync(fd);
  throw new PodError('other', `${name} was changed from outside while it was read`, 'dump again');
}
