/** The locked folder while a generation is written into it: the steps of docs/drive.md that touch the drive. */
import { closeSync, constants, fstatSync, fsyncSync, readSync, writeSync } from 'node:fs';
import { hostname } from 'node:os';
import { tryLock } from '../runtime/lock.ts';
import { PodError } from '../stream/error.ts';
import { goneError } from './drive-error.ts';
import type { FirstFrame } from './first-frame.ts';
import { formatManifest, type Manifest, manifestFormat } from './manifest.ts';
import { headName, lockName, manifestName, maxGeneration, segmentName } from './names.ts';
import { type Generation, PodFolder } from './pod-folder.ts';
import { SegmentWriter } from './segment-writer.ts';

export class Place {
  readonly folder: PodFolder;
  readonly writer: SegmentWriter;
  readonly #generation: number;
  readonly #keep: number;
  readonly #lock: number;
  /** The manifest may be durable: from now on nothing of the generation is taken back. */
  #committed = false;

  constructor(path: string, options: { segmentSize: number; keep: number; mode: number }) {
    this.#keep = options.keep;
    this.folder = PodFolder.open(path, { create: true });
    let lock: number | undefined;
    try {
      lock = takeLock(this.folder);
      const found = this.folder.scan();
      checkOurs(this.folder, found);
      this.#generation = (found[0]?.number ?? 0) + 1;
      if (this.#generation > maxGeneration) throw new PodError('limit', 'the generation numbers are used up');
      removeLeftovers(this.folder, found);
    } catch (cause) {
      if (this.folder.created && lock !== undefined) this.folder.remove(lockName);
      this.folder.removeIfOwn();
      if (lock !== undefined) closeSync(lock);
      this.folder.close();
      throw cause;
    }
    this.#lock = lock;
    this.writer = new SegmentWriter(this.folder, this.#generation, {
      segmentSize: options.segmentSize,
      // On a drive the reader is somebody else by number: an encrypted image may be read, a plain one not.
      mode: options.mode,
      makeRoom: () => this.#makeRoom(),
    });
  }

  /** Segments, manifest, HEAD: each durable before the next. */
  commit(about: FirstFrame & { bytes: number; producer: string }): Manifest {
    const { folder } = this;
    const manifest: Manifest = {
      format: manifestFormat,
      generation: this.#generation,
      ...about,
      segments: this.writer.finish(),
      created: new Date().toISOString(),
    };
    folder.sync();
    // The descriptor would still take everything; but a generation that cannot be found again is not stored.
    folder.checkAttached();
    for (const [index, { bytes }] of manifest.segments.entries())
      if (folder.stat(segmentName(this.#generation, index))?.size !== bytes) throw goneError(folder.path);
    this.#writeManifest(manifest);
    folder.sync();
    folder.checkAttached();
    this.#committed = true;
    folder.writeHead(this.#generation);
    return manifest;
  }

  /** Remove what `keep` does not cover, oldest first. A generation that somebody reads stays for the next time. */
  prune(current: number): void {
    for (const generation of expired(this.folder.scan(), current, this.#keep))
      remove(this.folder, generation);
  }

  close(): void {
    closeSync(this.#lock);
    this.folder.close();
  }

  /** Take back what was written, as far as the drive still allows; the next store does the rest. */
  discard(): void {
    const steps = [
      () => {
        if (!this.#committed) this.writer.discard();
      },
      () => {
        if (!this.#committed) this.folder.remove(manifestName(this.#generation));
      },
      () => {
        if (this.folder.created && !this.#committed) this.folder.remove(lockName);
      },
      () => this.folder.removeIfOwn(),
      () => closeSync(this.#lock),
      () => this.folder.close(),
    ];
    for (const step of steps) {
      try {
        step();
      } catch {
        // The first cause is what matters.
      }
    }
  }

  #writeManifest(manifest: Manifest): void {
    const bytes = formatManifest(manifest);
    const name = manifestName(this.#generation);
    for (;;) {
      try {
        const fd = this.folder.openFile(name, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL);
        try {
          for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
          fsyncSync(fd);
        } finally {
          closeSync(fd);
        }
        return;
      } catch (cause) {
        this.folder.remove(name);
        if ((cause as NodeJS.ErrnoException).code !== 'ENOSPC' || !this.#makeRoom()) throw cause;
      }
    }
  }

  /** The drive is full: remove the oldest of those that would go anyway when this one is stored. */
  #makeRoom(): boolean {
    const found = this.folder.scan();
    const current = this.folder.current(found);
    if (current === undefined) return false;
    return expired(found, current, Math.max(this.#keep - 1, 1)).some((generation) =>
      remove(this.folder, generation),
    );
  }
}

/** Generations older than the `keep` newest complete ones up to `current`, oldest first. */
function expired(found: Generation[], current: number, keep: number): Generation[] {
  const complete = found.filter(({ number, state }) => state === 'complete' && number <= current);
  const oldest = complete[keep - 1]?.number;
  return oldest === undefined ? [] : found.filter(({ number }) => number < oldest).reverse();
}

/** Remove a generation: first the manifest, so that a half-removed one is incomplete and not damaged. */
function remove(folder: PodFolder, generation: Generation): boolean {
  if (generation.state !== 'incomplete') {
    const fd = folder.openFile(manifestName(generation.number), constants.O_RDONLY);
    try {
      if (!tryLock(fd, 'exclusive')) return false;
      folder.remove(manifestName(generation.number));
    } finally {
      closeSync(fd);
    }
    folder.sync();
  }
  for (const segment of generation.segments) folder.remove(segmentName(generation.number, segment));
  return true;
}

/** What a store that died left behind: segments without a manifest; a torn manifest that HEAD never came to. */
function removeLeftovers(folder: PodFolder, found: Generation[]): void {
  const head = folder.readHead();
  for (const generation of found) {
    const torn =
      generation.state === 'damaged' &&
      generation.manifest === undefined &&
      typeof head === 'number' &&
      generation.number > head;
    if (generation.state === 'incomplete' || torn) remove(folder, generation);
  }
}

/** HEAD is a common name: never overwrite one that is somebody else's. */
function checkOurs(folder: PodFolder, found: Generation[]): void {
  if (found.length > 0 || folder.readHead() !== 'invalid') return;
  if (folder.stat(headName)?.size === 0) return;
  throw new PodError(
    'drive',
    `${folder.path} holds a HEAD that is not podstream's`,
    'give the pod a folder of its own, as in /media/stick/quake',
  );
}

/** Be the only store in the folder. The file stays: removing a lock file is how two come to hold it. */
function takeLock(folder: PodFolder): number {
  for (;;) {
    const fd = folder.openFile(lockName, constants.O_RDWR | constants.O_CREAT);
    try {
      if (!tryLock(fd, 'exclusive')) {
        const holder = Buffer.alloc(128);
        const text = holder
          .toString('latin1', 0, readSync(fd, holder, 0, 128, 0))
          .replace(/[^ -~]/g, '')
          .trim();
        throw new PodError(
          'drive',
          `another pod-store is writing to ${folder.path}${text ? ` (${text})` : ''}`,
          'wait for it or end it',
        );
      }
      // A store that failed in a folder it had made removes the lock file with it.
      const status = folder.stat(lockName);
      if (status === undefined || status.ino !== fstatSync(fd).ino) {
        closeSync(fd);
        continue;
      }
    } catch (cause) {
      closeSync(fd);
      throw cause;
    }
    try {
      // Always of one length, as HEAD is: overwriting in place asks nothing of the file system's tables.
      writeSync(fd, `pid ${process.pid} on ${hostname()}`.slice(0, 63).padEnd(63).concat('\n'), 0);
    } catch {
      // For the reader's eye only; a full drive is told when there is something to store.
    }
    return fd;
  }
}
