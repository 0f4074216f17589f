/**
 * The files of one place, made below a descriptor of it. Names come from a stream: each is looked up below that
 * descriptor, across no link and no other mount, and nothing that is there is written to or replaced.
 */
import {
  type BigIntStats,
  constants,
  fstatSync,
  ftruncateSync,
  lstatSync,
  readlinkSync,
  writeSync,
} from 'node:fs';
import { posix } from 'node:path';
import { native } from '../../../../native/index.ts';
import { PodError } from '../../../stream/error.ts';
import { O, SYS } from '../abi.ts';
import { closeLocal, codeOf } from '../objects/local-calls.ts';
import { cString, type PlacedFile, setAttributes, setTimes } from './attributes.ts';
import { openBeneath } from './open-beneath.ts';

const typeOf = (mode: number) => mode & constants.S_IFMT;
const isRoot = () => process.geteuid!() === 0;
const lchown = 94;
const chmod = 90;
const AT_REMOVEDIR = 0x200;

export interface LaidPlace {
  /** Path in the pod. */
  path: string;
  files: readonly PlacedFile[];
  /** Descriptor of ours: the place itself when it is a folder, else the folder that it is in. */
  base: number;
  /** What is there already stays; else the place is new, and its own attributes are set. */
  kept: boolean;
  /** No device nodes. */
  bare: boolean;
  warn: (sentence: string) => void;
}

export class FileLayer {
  readonly #place: LaidPlace;
  /** Below the base. */
  readonly #paths: string[] = [];
  /** Files that were here already. */
  readonly #present = new Set<number>();
  readonly #made: number[] = [];
  #folder: { path: string; fd: number } | undefined;
  #strangers = 0;

  constructor(place: LaidPlace) {
    this.#place = place;
  }

  /** All names; regular files have their size and no contents. */
  lay(): void {
    this.#place.files.forEach((file, index) => {
      this.#paths.push(this.#pathOf(file, index));
      if (index === 0 && typeOf(file.mode) === constants.S_IFDIR) {
        if (this.#place.kept) this.#present.add(0);
        return;
      }
      // Who binds a socket makes its name.
      if (typeOf(file.mode) === constants.S_IFSOCK) return;
      this.#attempt(index, () => this.#make(file, index));
    });
    this.#closeFolder();
  }

  /** Whether contents of a file are wanted; those of one that was here are the same. */
  wants(index: number): boolean {
    return !this.#present.has(index);
  }

  /** A descriptor for writing. */
  open(index: number): number {
    const path = this.#paths[index]!;
    try {
      return openBeneath(this.#place.base, path, O.wronly | O.nofollow, 'strict');
    } catch (cause) {
      return this.#refuse(index, `can't be filled (${codeOf(cause)})`, cause);
    }
  }

  write(index: number, fd: number, at: number, data: Uint8Array): void {
    try {
      for (let done = 0; done < data.length; )
        done += writeSync(fd, data, done, data.length - done, at + done);
    } catch (cause) {
      this.#refuse(
        index,
        `can't be filled (${codeOf(cause)})`,
        cause,
        codeOf(cause) === 'ENOSPC' ? 'make room on its file system, or in memory' : undefined,
      );
    }
  }

  /** All contents are there: owners, modes, times; folders after what they hold. */
  settle(): void {
    const { files, path, warn } = this.#place;
    for (let index = files.length - 1; index >= 0; index--) {
      const file = files[index]!;
      if (file.link !== undefined || this.#present.has(index)) continue;
      this.#attempt(index, () => {
        if (typeOf(file.mode) === constants.S_IFSOCK && !this.#makeNode(file, index)) return;
        this.#apply(file, index, true);
      });
    }
    this.#closeFolder();
    if (this.#strangers > 0)
      warn(
        `${this.#strangers} files in ${path} belong to who restarts the session: other owners can't be set`,
      );
  }

  /** Take away what was made, as far as it is empty of anything else. */
  undo(): void {
    for (const index of this.#made.reverse()) {
      const folder = typeOf(this.#place.files[index]!.mode) === constants.S_IFDIR;
      try {
        const { parent, name } = this.#spot(index);
        native().syscall(SYS.unlinkat, parent, cString(name), folder ? AT_REMOVEDIR : 0);
      } catch {
        // Somebody has put something there meanwhile.
      }
    }
    this.#closeFolder();
  }

  close(): void {
    this.#closeFolder();
    closeLocal(this.#place.base);
  }

  #pathOf(file: PlacedFile, index: number): string {
    if (index === 0) return typeOf(file.mode) === constants.S_IFDIR ? '.' : posix.basename(this.#place.path);
    const path = posix.join(this.#paths[file.parent]!, file.name);
    if (Buffer.byteLength(path) > 4000)
      throw new PodError('limit', `a path in ${this.#place.path} is too long`);
    return path;
  }

  #make(file: PlacedFile, index: number): void {
    const { parent, name } = this.#spot(index);
    const at = cString(name);
    try {
      if (file.link !== undefined) {
        const first = this.#paths[file.link]!;
        const from = openBeneath(this.#place.base, posix.dirname(first), O.path | O.directory, 'strict');
        try {
          native().syscall(SYS.linkat, from, cString(posix.basename(first)), parent, at, 0);
        } finally {
          closeLocal(from);
        }
      } else if (typeOf(file.mode) === constants.S_IFDIR) {
        native().syscall(SYS.mkdirat, parent, at, 0o700);
      } else if (file.target !== undefined) {
        native().syscall(SYS.symlinkat, cString(file.target), parent, at);
      } else if (file.file !== undefined) {
        const flags = O.creat | O.excl | O.wronly | O.nofollow | O.cloexec;
        const fd = Number(native().syscall(SYS.openat, parent, at, flags, 0o600));
        this.#made.push(index);
        try {
          ftruncateSync(fd, Number(file.size));
        } finally {
          closeLocal(fd);
        }
      } else this.#makeNode(file, index);
    } catch (cause) {
      if (codeOf(cause) !== 'EEXIST' || !this.#place.kept) throw cause;
      this.#compare(file, index, `/proc/self/fd/${parent}/${name}`);
      return;
    }
    if (this.#made.at(-1) !== index) this.#made.push(index);
    // An overlay that is mounted on it later takes owner and mode as they are then. Who is not root shuts himself out.
    if (file.link === undefined && isRoot()) this.#apply(file, index, false);
  }

  /** FIFO, socket, device. Whether it was made. */
  #makeNode(file: PlacedFile, index: number): boolean {
    const type = typeOf(file.mode);
    const device = type === constants.S_IFCHR || type === constants.S_IFBLK;
    // Character device 0 is what an overlay has where a file was removed.
    if (device && this.#place.bare && file.device !== 0n)
      this.#refuse(index, 'is a device node, which a confined pod has none of', undefined, '--no-confine');
    const { parent, name } = this.#spot(index);
    try {
      native().syscall(SYS.mknodat, parent, cString(name), type | 0o600, file.device ?? 0n);
      return true;
    } catch (cause) {
      if (type === constants.S_IFSOCK && codeOf(cause) === 'EEXIST') return false;
      throw cause;
    }
  }

  /** The same file as here is no trouble; another one is. */
  #compare(file: PlacedFile, index: number, here: string): void {
    const stat = lstatSync(here, { bigint: true });
    if (!this.#isSame(file, stat, here))
      this.#refuse(
        index,
        'is here already and is another file than the one that came along',
        undefined,
        'move it away, or restart where it is not in the way (--root, pod-filter relocate OLD=NEW)',
      );
    this.#present.add(index);
  }

  #isSame(file: PlacedFile, stat: BigIntStats, here: string): boolean {
    if (typeOf(Number(stat.mode)) !== typeOf(file.mode)) return false;
    if (file.link !== undefined) {
      const fd = openBeneath(this.#place.base, this.#paths[file.link]!, O.path | O.nofollow, 'strict');
      try {
        const first = fstatSync(fd, { bigint: true });
        return first.dev === stat.dev && first.ino === stat.ino;
      } finally {
        closeLocal(fd);
      }
    }
    if (file.target !== undefined) return readlinkSync(here) === file.target;
    if (file.device !== undefined) return stat.rdev === file.device;
    return file.file === undefined || (stat.size === file.size && stat.mtimeNs === file.mtimeNs);
  }

  /** What must be, and `late`, what is changed by filling it. */
  #apply(file: PlacedFile, index: number, late: boolean): void {
    const { parent, name } = this.#spot(index);
    const path = `/proc/self/fd/${parent}/${name}`;
    const { uid, gid, mode, attributes, atimeNs, mtimeNs } = file;
    if (uid !== undefined && gid !== undefined) {
      try {
        native().syscall(lchown, cString(path), uid, gid);
      } catch (cause) {
        if (codeOf(cause) !== 'EPERM' && codeOf(cause) !== 'EINVAL') throw cause;
        if (late) this.#strangers += 1;
      }
    }
    if (file.target === undefined) {
      native().syscall(chmod, cString(path), mode & 0o7777);
      if (attributes) setAttributes(path, attributes);
    }
    if (late && atimeNs !== undefined && mtimeNs !== undefined) setTimes(path, atimeNs, mtimeNs);
  }

  /** The folder of a file, and its name there. */
  #spot(index: number): { parent: number; name: string } {
    const path = this.#paths[index]!;
    if (path === '.') return { parent: this.#place.base, name: '.' };
    const folder = posix.dirname(path);
    if (folder !== this.#folder?.path) {
      this.#closeFolder();
      const fd = openBeneath(this.#place.base, folder, O.path | O.directory, 'strict');
      this.#folder = { path: folder, fd };
    }
    return { parent: this.#folder!.fd, name: posix.basename(path) };
  }

  #closeFolder(): void {
    if (this.#folder) closeLocal(this.#folder.fd);
    this.#folder = undefined;
  }

  #attempt(index: number, make: () => void): void {
    try {
      make();
    } catch (cause) {
      if (cause instanceof PodError) throw cause;
      this.#refuse(index, `can't be made as it was (${codeOf(cause)})`, cause);
    }
  }

  #refuse(index: number, why: string, cause?: unknown, hint?: string): never {
    const path = posix.join(this.#place.path, index === 0 ? '' : this.#paths[index]!);
    throw new PodError('cannot-restart', `${path} ${why}`, hint, { cause });
  }
}
