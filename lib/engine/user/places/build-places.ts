/**
 * Places, made in an empty pod before any of its files is opened: pid 1 mounts, this side lays out the files, which it
 * reaches by a descriptor of the mount without what is mounted in it (open_tree(2)), so later mounts are not in the way
 * when contents come. What would be in the way (read-only, noexec) is set last.
 */
import { constants } from 'node:fs';
import { release } from 'node:os';
import { posix } from 'node:path';
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { PodError } from '../../../stream/error.ts';
import { AT_FDCWD, O, SYS } from '../abi.ts';
import type { ImageRecords, PlaceImage } from '../image-records.ts';
import { borrow, closeLocal, codeOf, errnoName } from '../objects/local-calls.ts';
import type { Remote } from '../remote.ts';
import { cString } from './attributes.ts';
import { FileLayer } from './lay-files.ts';
import { beneath, openBeneath } from './open-beneath.ts';

type MountRecord = NonNullable<Records['place']['mount']>;

const MS = {
  rdonly: 1,
  nodev: 4,
  remount: 32,
  nosymfollow: 256,
  bind: 4096,
  strictatime: 1 << 24,
} as const;
const flagBits: Record<MountRecord['flags'][number], number> = {
  ro: MS.rdonly,
  nosuid: 2,
  nodev: MS.nodev,
  noexec: 8,
  noatime: 1024,
  nodiratime: 2048,
  relatime: 1 << 21,
  nosymfollow: MS.nosymfollow,
};
const propagationBits = { unbindable: 1 << 17, private: 1 << 18, slave: 1 << 19, shared: 1 << 20 } as const;
const MNT_DETACH = 2;
const OPEN_TREE_CLONE = 1;
const AT_EMPTY_PATH = 0x1000;

/** What ends with a pod that has a root of its own. */
const podsOwn = /^\/dev(\/|$)/;

export interface PlaceHost {
  /** Host tid of pid 1, and how it makes calls. */
  tid: number;
  remote: Remote;
  confined: boolean;
  rooted: boolean;
  warn: (sentence: string) => void;
}

/** A file that is to be filled. */
interface Awaited {
  layer: FileLayer;
  index: number;
  size: bigint;
}

export class PlaceBuilder {
  readonly #host: PlaceHost;
  readonly #layers: { layer: FileLayer; onDisk: boolean }[] = [];
  readonly #files = new Map<number, Awaited>();
  /** Folders that were missing: where, and their name there. */
  readonly #folders: { parent: number; name: string }[] = [];
  /** Mounts whose flags come last: builder's descriptors. */
  readonly #late: { path: string; fd: number; mount: MountRecord }[] = [];
  #open: { file: number; fd: number } | undefined;

  constructor(host: PlaceHost) {
    this.#host = host;
  }

  make(image: Pick<ImageRecords, 'places'>): void {
    for (const place of image.places.values()) {
      if (place.mount) this.#refuseReach(place.path, place.mount);
      const mounted = place.mount ? this.#mount(place.path, place.mount) : undefined;
      if (place.files.length > 0) this.#lay(place, mounted);
    }
  }

  /** Pages of a file. What lies behind its end fills its last page, and is not of it. */
  fill(file: number, at: bigint, data: Uint8Array): void {
    const awaited = this.#files.get(file);
    if (!awaited) throw new PodError('damaged', `pages name file ${file}, which is in no place`);
    const { layer, index, size } = awaited;
    if (!layer.wants(index)) return;
    if (this.#open?.file !== file) {
      this.#closeOpen();
      this.#open = { file, fd: layer.open(index) };
    }
    const rest = size - at;
    const length = rest < BigInt(data.length) ? Number(rest) : data.length;
    layer.write(index, this.#open.fd, Number(at), data.subarray(0, length));
  }

  /** All contents are there. */
  settle(): void {
    this.#closeOpen();
    for (const { layer } of this.#layers) layer.settle();
  }

  /** Nothing is written by the making any more. */
  finish(): void {
    for (const { path, fd, mount } of this.#late) this.#setFlags(path, fd, mount);
  }

  /** The session runs: what is laid is its own. */
  close(): void {
    for (const { layer } of this.#layers.splice(0)) layer.close();
    for (const { parent } of this.#folders.splice(0)) closeLocal(parent);
  }

  /** The restart has failed: nothing stays on the disk. */
  undo(): void {
    this.#closeOpen();
    for (const { layer, onDisk } of [...this.#layers].reverse()) if (onDisk) layer.undo();
    for (const { parent, name } of [...this.#folders].reverse()) {
      try {
        native().syscall(SYS.unlinkat, parent, cString(name), 0x200 /* AT_REMOVEDIR */);
      } catch {
        // Not empty.
      }
    }
    this.close();
  }

  #closeOpen(): void {
    if (this.#open) closeLocal(this.#open.fd);
    this.#open = undefined;
  }

  /** Another view of /proc, or of what is covered, would lead out of a confined pod. */
  #refuseReach(path: string, { type }: MountRecord): void {
    if (!this.#host.confined || type === 'tmpfs' || type === 'ramfs') return;
    const what =
      type === 'unmount' ? 'unmounted' : type === 'change' ? 'changed the mount on' : `mounted ${type} on`;
    throw new PodError(
      'cannot-restart',
      `the session had ${what} ${path}, which a confined pod may not`,
      'restart it without --confine, or with --no-confine if you trust it',
    );
  }

  /** The builder's descriptor of the new mount; undefined for an unmount. */
  #mount(path: string, mount: MountRecord): number | undefined {
    const { type, source, options = '' } = mount;
    if (type === 'unmount') {
      this.#call(path, mount, [SYS.umount2, this.#put(path), MNT_DETACH]);
      return undefined;
    }
    if (type !== 'change') {
      const { remote } = this.#host;
      const flags = type === 'bind' ? MS.bind : this.#host.confined ? MS.nodev : 0;
      const call = (data: string) => {
        const at = this.#put(path);
        const from = remote.putString(source ?? type);
        return [SYS.mount, from, at, remote.putString(type), flags, remote.putString(data)] as const;
      };
      const [result] = remote.run([call(options)]);
      const fewer = result === -EINVAL && type === 'overlay' ? withoutUuid(options) : options;
      if (fewer !== options)
        this.#host.warn(
          `the overlay on ${path} has another number (fsid) than before: this kernel takes no \`uuid\` (before Linux 5.12)`,
        );
      if (result! < 0n) this.#call(path, mount, call(fewer));
    }
    const opened = this.#call(path, mount, [SYS.openat, AT_FDCWD, this.#put(path), O.path | O.cloexec]);
    const fd = Number(opened);
    const propagation = mount.propagation ?? (type === 'change' ? undefined : 'private');
    if (propagation)
      this.#call(path, mount, [
        SYS.mount,
        0,
        this.#put(`/proc/self/fd/${fd}`),
        0,
        propagationBits[propagation],
        0,
      ]);
    this.#late.push({ path, fd, mount });
    return fd;
  }

  #setFlags(path: string, fd: number, mount: MountRecord): void {
    const bits = mount.flags.reduce((sum, flag) => sum | flagBits[flag], this.#host.confined ? MS.nodev : 0);
    const times = bits & (flagBits.relatime | flagBits.noatime) ? 0 : MS.strictatime;
    const at = () => this.#put(`/proc/self/fd/${fd}`);
    if (mount.readOnly)
      this.#call(path, mount, [SYS.mount, 0, at(), 0, MS.remount | MS.rdonly | bits | times, 0]);
    this.#call(path, mount, [SYS.mount, 0, at(), 0, MS.remount | MS.bind | bits | times, 0]);
  }

  #put(text: string): bigint {
    this.#host.remote.reset();
    return this.#host.remote.putString(text);
  }

  #call(path: string, { type, source, options }: MountRecord, words: readonly (bigint | number)[]): bigint {
    const [result] = this.#host.remote.run([words]);
    if (result! >= 0n) return result!;
    const errno = Number(-result!);
    const what =
      type === 'unmount'
        ? 'unmounted'
        : type === 'change'
          ? 'changed'
          : `mounted${type === 'bind' ? '' : ` (${type})`}`;
    const from = type === 'bind' ? `, where the session had ${source},` : '';
    throw new PodError(
      'cannot-restart',
      `${path}${from} can't be ${what} here (${errnoName(errno)})`,
      hintFor(errnoName(errno), options),
    );
  }

  #lay(place: PlaceImage, mounted: number | undefined): void {
    const { path, files } = place;
    const folder = (files[0]!.mode & constants.S_IFMT) === constants.S_IFDIR;
    const onDisk = mounted === undefined && !(this.#host.rooted && podsOwn.test(path));
    if (onDisk && podsOwn.test(path))
      throw new PodError(
        'cannot-restart',
        `files of the session's own ${path} would be laid into the machine's`,
      );
    const target = folder ? path : posix.dirname(path);
    const base = mounted === undefined ? this.#folder(target) : this.#alone(mounted);
    const { confined, warn } = this.#host;
    const kept = mounted === undefined;
    const layer = new FileLayer({ path, files, base, kept, bare: confined, warn });
    this.#layers.push({ layer, onDisk });
    layer.lay();
    files.forEach(({ file, size }, index) => {
      if (file !== undefined) this.#files.set(file, { layer, index, size: size! });
    });
  }

  /** A mount without what is mounted in it, for as long as it is filled. */
  #alone(mounted: number): number {
    const { remote, tid } = this.#host;
    const flags = OPEN_TREE_CLONE | AT_EMPTY_PATH | O.cloexec;
    const clone = Number(remote.call('open_tree', SYS.open_tree, mounted, this.#put(''), flags));
    const local = borrow(tid, clone);
    remote.run([[SYS.close, clone]]);
    return local;
  }

  /** A folder of the pod, made where it is missing. */
  #folder(path: string): number {
    const root = Number(
      native().syscall(SYS.open, cString(`/proc/${this.#host.tid}/root`), O.path | O.directory | O.cloexec),
    );
    let at = root;
    let done = '';
    for (const name of path.split('/').filter((part) => part !== '' && part !== '.')) {
      done += `/${name}`;
      const next = this.#enter(at, name, done);
      if (at !== this.#folders.at(-1)?.parent) closeLocal(at);
      at = next;
    }
    return at;
  }

  #enter(parent: number, name: string, path: string): number {
    const open = () => openBeneath(parent, name, O.path | O.directory, 'plain');
    try {
      return open();
    } catch (cause) {
      if (codeOf(cause) !== 'ENOENT')
        throw new PodError(
          'cannot-restart',
          `${path} is no folder here that files could be laid in (${codeOf(cause)})`,
          codeOf(cause) === 'ELOOP' || codeOf(cause) === 'ENOTDIR'
            ? 'no link is followed: pod-filter relocate OLD=NEW gives the files their real place'
            : undefined,
          { cause },
        );
    }
    try {
      native().syscall(SYS.mkdirat, parent, cString(name), 0o755);
    } catch (cause) {
      throw new PodError('cannot-restart', `the folder ${path} can't be made (${codeOf(cause)})`, undefined, {
        cause,
      });
    }
    this.#folders.push({ parent, name });
    return open();
  }
}

/** Whether a place of an image brings along what lies at a path, which need not be here before. */
export function broughtAlong(image: Pick<ImageRecords, 'places'>): (path: string) => boolean {
  const mounts = [...image.places.values()].filter(({ mount }) => mount !== undefined);
  const laid = new Set<string>();
  for (const { path, files, mount } of image.places.values()) {
    if (mount) continue;
    const paths: string[] = [];
    for (const { parent, name } of files) {
      const whole = name === '.' ? path : posix.join(paths[parent] ?? path, name);
      paths.push(whole);
      laid.add(whole);
    }
  }
  return (path) => laid.has(path) || mounts.some((place) => beneath(path, place.path));
}

const EINVAL = 22n;

/** Linux 6.6 tells it, 5.12 takes it; all it says is whether statfs(2) gives a number that lasts. */
const withoutUuid = (options: string): string =>
  options
    .split(',')
    .filter((option) => !option.startsWith('uuid='))
    .join(',');

function hintFor(error: string, options: string | undefined): string | undefined {
  if (error === 'EPERM') return 'restart as who may mount (root)';
  if (error === 'ENOENT') return 'bring the folder or file to this computer under the same path';
  if (error === 'EINVAL' && options)
    return `a later kernel may take its options (${options}); here is Linux ${release()}`;
  return undefined;
}
