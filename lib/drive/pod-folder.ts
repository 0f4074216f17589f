/**
 * One pod's folder on a drive, DRIVE/NAME/, through a descriptor of the folder itself: however mounts and names
 * change meanwhile, all files of one run lie in the one place where it began. docs/drive.md says why the folder is
 * flat, why nothing is renamed, and what a power cut leaves at every step.
 *
 * What lies on a drive was put there by strangers: no link is followed, nothing but regular files is opened, and
 * no name or length out of a file is used unchecked.
 */
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  rmdirSync,
  type Stats,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { dirname, resolve } from 'node:path';
import { crc32 } from '../stream/crc.ts';
import { PodError } from '../stream/error.ts';
import { goneError, onDrive } from './drive-error.ts';
import { type Manifest, maxManifestBytes, parseManifest } from './manifest.ts';
import { headName, manifestName, parseName, segmentName } from './names.ts';

/** What the folder holds of a generation. */
export interface Generation {
  number: number;
  /** Present when there is a manifest and it is whole. */
  manifest: Manifest | undefined;
  /**
   * complete: manifest and sizes fit (digests are checked when it is read). damaged: there is a manifest, but it
   * or the segments are not as they should be. incomplete: no manifest, left by a store that never came to its end.
   */
  state: 'complete' | 'damaged' | 'incomplete';
  /** Why it is damaged. */
  problem: PodError | undefined;
  /** Segment numbers found in the folder. */
  segments: number[];
}

const headPattern = /^podstream (\d{8}) ([0-9a-f]{8})\n/;

export class PodFolder {
  /** Absolute path, as the user named it. */
  readonly path: string;
  /** open() made it. */
  readonly created: boolean;
  readonly #fd: number;

  private constructor(path: string, fd: number, created: boolean) {
    this.path = path;
    this.#fd = fd;
    this.created = created;
  }

  /** Open the folder; with `create` make it (not its parents: they are the drive, and it may not be mounted). */
  static open(folder: string, options: { create?: boolean } = {}): PodFolder {
    const path = resolve(folder);
    return onDrive(path, () => {
      const missing = statSync(path, { throwIfNoEntry: false }) === undefined;
      if (missing && options.create) makeDurably(path);
      else if (missing) {
        throw new PodError(
          'drive',
          `there is no folder ${path}`,
          'is the drive plugged in and mounted? the argument is the folder of one pod, as in /media/stick/quake',
        );
      }
      return new PodFolder(path, openSync(path, constants.O_RDONLY | constants.O_DIRECTORY), missing);
    });
  }

  close(): void {
    closeSync(this.#fd);
  }

  /** Remove the folder, when open() made it and nothing is in it; otherwise leave it. */
  removeIfOwn(): void {
    if (!this.created || readdirSync(this.#at('.')).length > 0) return;
    rmdirSync(this.path);
  }

  /** Open a regular file of the folder; never through a link. `mode` (less umask) when it is made. */
  openFile(name: string, flags: number, mode = 0o666): number {
    const fd = openSync(this.#at(name), flags | constants.O_NOFOLLOW | constants.O_NONBLOCK, mode);
    if (fstatSync(fd).isFile()) return fd;
    closeSync(fd);
    throw new PodError('drive', `${this.path}/${name} is not a regular file`, 'somebody else put it there');
  }

  stat(name: string): Stats | undefined {
    return lstatSync(this.#at(name), { throwIfNoEntry: false });
  }

  /** Remove a file; no error when it is gone already. */
  remove(name: string): void {
    try {
      unlinkSync(this.#at(name));
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause;
    }
  }

  /** Make names durable. */
  sync(): void {
    syncDirectory(this.#fd);
  }

  /** Throw `drive` when the path no longer leads here: unmounted, removed, another drive in its place. */
  checkAttached(): void {
    const here = fstatSync(this.#fd);
    const there = statSync(this.path, { throwIfNoEntry: false });
    if (here.nlink === 0 || there === undefined || there.dev !== here.dev || there.ino !== here.ino)
      throw goneError(this.path);
  }

  /** The generation HEAD names; undefined when there is no HEAD, 'invalid' when there is one that says nothing. */
  readHead(): number | 'invalid' | undefined {
    let fd: number;
    try {
      fd = this.openFile(headName, constants.O_RDONLY);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw cause;
    }
    try {
      const buffer = Buffer.alloc(64);
      const match = headPattern.exec(buffer.toString('latin1', 0, readSync(fd, buffer, 0, 64, 0)));
      if (!match || headText(Number(match[1])) !== match[0] || Number(match[1]) === 0) return 'invalid';
      return Number(match[1]);
    } finally {
      closeSync(fd);
    }
  }

  /**
   * Make a generation the current one, durably. The bytes are overwritten where they lie: one sector, always of
   * the same length, which a drive writes whole or not at all.
   */
  writeHead(generation: number): void {
    const fresh = this.stat(headName) === undefined;
    const fd = this.openFile(headName, constants.O_RDWR | constants.O_CREAT);
    try {
      writeSync(fd, headText(generation), 0);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    if (fresh) this.sync();
  }

  /** All generations, newest first. */
  scan(): Generation[] {
    const segments = new Map<number, number[]>();
    const manifests = new Set<number>();
    for (const name of readdirSync(this.#at('.'))) {
      const parsed = parseName(name);
      if (!parsed) continue;
      const list = segments.get(parsed.generation) ?? [];
      segments.set(parsed.generation, list);
      if (parsed.segment === undefined) manifests.add(parsed.generation);
      else list.push(parsed.segment);
    }
    return [...segments]
      .sort(([a], [b]) => b - a)
      .map(([number, list]) => {
        const found = {
          number,
          segments: list.sort((a, b) => a - b),
          manifest: undefined,
          problem: undefined,
        };
        return manifests.has(number)
          ? { ...found, ...this.#judge(number) }
          : { ...found, state: 'incomplete' };
      });
  }

  /** The generation to load by default: HEAD's; without a valid HEAD the newest complete one. */
  current(found: Generation[]): number | undefined {
    const head = this.readHead();
    return typeof head === 'number' ? head : found.find(({ state }) => state === 'complete')?.number;
  }

  /** Open a generation's manifest: the caller closes `fd`, and holds what locks it wants on it. */
  openManifest(generation: number): { fd: number; manifest: Manifest } {
    const name = manifestName(generation);
    const fd = this.openFile(name, constants.O_RDONLY);
    try {
      const { size } = fstatSync(fd);
      if (size > maxManifestBytes)
        throw new PodError('damaged', `${name} is damaged: it is ${size} bytes long`);
      const bytes = Buffer.alloc(size);
      let length = 0;
      for (let got = -1; got !== 0 && length < size; length += got)
        got = readSync(fd, bytes, length, size - length, length);
      const manifest = parseManifest(bytes.subarray(0, length), name);
      if (manifest.generation !== generation)
        throw new PodError('damaged', `${name} is damaged: it describes generation ${manifest.generation}`);
      return { fd, manifest };
    } catch (cause) {
      closeSync(fd);
      throw cause;
    }
  }

  /** Throw `damaged` unless all segments are there with the right sizes. */
  checkSizes(manifest: Manifest): void {
    for (const [index, { bytes }] of manifest.segments.entries()) {
      const name = segmentName(manifest.generation, index);
      const status = this.stat(name);
      if (!status?.isFile()) throw new PodError('damaged', `${name} is missing`);
      if (status.size !== bytes)
        throw new PodError('damaged', `${name} has ${status.size} bytes, not ${bytes}`);
    }
  }

  #judge(number: number): Pick<Generation, 'manifest' | 'state' | 'problem'> {
    let manifest: Manifest | undefined;
    try {
      const opened = this.openManifest(number);
      closeSync(opened.fd);
      manifest = opened.manifest;
      this.checkSizes(manifest);
      return { manifest, state: 'complete', problem: undefined };
    } catch (cause) {
      return { manifest, state: 'damaged', problem: PodError.from(cause) };
    }
  }

  #at(name: string): string {
    return `/proc/self/fd/${this.#fd}/${name}`;
  }
}

function makeDurably(path: string): void {
  const parent = dirname(path);
  if (statSync(parent, { throwIfNoEntry: false }) === undefined)
    throw new PodError('drive', `there is no folder ${parent}`, 'is the drive plugged in and mounted?');
  mkdirSync(path);
  const fd = openSync(parent, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    syncDirectory(fd);
  } finally {
    closeSync(fd);
  }
}

function headText(generation: number): string {
  const line = `podstream ${String(generation).padStart(8, '0')}`;
  return `${line} ${crc32(Buffer.from(line)).toString(16).padStart(8, '0')}\n`;
}

/** fsync(2) of a directory. Some FUSE file systems know no such thing; there the files' own syncs must do. */
function syncDirectory(fd: number): void {
  try {
    fsyncSync(fd);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== 'EINVAL' && code !== 'ENOSYS') throw cause;
  }
}
