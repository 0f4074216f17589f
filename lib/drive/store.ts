/**
 * pod-store: a stream in, a generation on the drive out. The steps and what a power cut leaves after each are in
 * docs/drive.md; in short: first frame proved → folder, lock, number → segments, each synced → END checked and end
 * of file → manifest, synced → HEAD, synced → receipt → older generations removed.
 */
import { closeSync, constants, fstatSync, fsyncSync, ftruncateSync, readSync, writeSync } from 'node:fs';
import { hostname } from 'node:os';
import { beginReceipt, type PendingReceipt } from '../runtime/receipt.ts';
import { PodError } from '../stream/error.ts';
import { maxFrame, preamble } from '../stream/frame.ts';
import type { Sink } from '../stream/sink.ts';
import { StreamParser } from '../stream/stream-parser.ts';
import { goneError, onDrive } from './drive-error.ts';
import { type FirstFrame, readFirstFrame } from './first-frame.ts';
import { tryLock } from './lock.ts';
import { formatManifest, type Manifest, manifestFormat } from './manifest.ts';
import { headName, lockName, manifestName, maxGeneration, segmentName } from './names.ts';
import { type Generation, PodFolder } from './pod-folder.ts';
import { SegmentWriter } from './segment-writer.ts';

export interface StoreOptions {
  /** Most bytes of a segment, at least 512. Default 2 GiB, which every FAT32 takes. */
  segmentSize?: number;
  /** Generations kept, the new one included. Default 2: the new one and the one before. */
  keep?: number;
  /** Program named in the manifest. Default podstream. */
  producer?: string;
  /** Told of things that are no failure: a plain image, a receipt that could not be left. */
  warn?(message: string, hint?: string): void;
  /** Told when the generation is durable and current. */
  stored?(manifest: Manifest): void;
}

export const defaultSegmentSize = 2 * 1024 ** 3;
export const defaultKeep = 2;

/** A Sink that keeps the stream pushed into it as the next generation of the pod in `folder` (DRIVE/NAME). */
export function storeSink(folder: string, options: StoreOptions = {}): Sink {
  const { segmentSize = defaultSegmentSize, keep = defaultKeep } = options;
  if (!Number.isSafeInteger(segmentSize) || segmentSize < 512)
    throw new PodError('usage', 'the segment size must be at least 512 bytes');
  if (!Number.isSafeInteger(keep) || keep < 1)
    throw new PodError('usage', 'at least 1 generation must be kept', 'use --keep 1 or more');
  return new Store(folder, { ...options, segmentSize, keep });
}

class Store implements Sink {
  readonly #path: string;
  readonly #options: StoreOptions & { segmentSize: number; keep: number };
  readonly #parser: StreamParser;
  /** Bytes that came before the first frame was whole. */
  #held = new Uint8Array(0);
  #heldLength = 0;
  #first: FirstFrame | undefined;
  #ended = false;
  #receipt: PendingReceipt | undefined;
  #place: Place | undefined;
  #bytes = 0;

  constructor(path: string, options: StoreOptions & { segmentSize: number; keep: number }) {
    this.#path = path;
    this.#options = options;
    this.#parser = new StreamParser(
      {
        frame: (frame) => {
          this.#first ??= readFirstFrame(frame);
        },
        end: () => {
          this.#ended = true;
        },
        abort: () => undefined,
      },
      { unknownCritical: true },
    );
  }

  write(chunk: Uint8Array): void {
    this.#parser.write(chunk);
    this.#bytes += chunk.length;
    if (this.#place === undefined) {
      if (this.#first === undefined) {
        this.#hold(chunk);
        return;
      }
      this.#open(this.#first);
    }
    onDrive(this.#path, () => {
      if (this.#heldLength > 0) this.#place?.writer.write(this.#held.subarray(0, this.#heldLength));
      this.#heldLength = 0;
      this.#place?.writer.write(chunk);
    });
  }

  end(): void {
    this.#parser.end();
    const place = this.#place;
    const first = this.#first;
    if (!this.#ended || place === undefined || first === undefined)
      throw new Error('the parser passed no frame');
    const manifest = onDrive(this.#path, () =>
      place.commit({ ...first, bytes: this.#bytes, producer: this.#options.producer ?? 'podstream' }),
    );
    this.#commitReceipt(manifest, place.folder.path);
    this.#options.stored?.(manifest);
    try {
      place.prune(manifest.generation);
    } catch (cause) {
      this.#options.warn?.(`an older generation could not be removed: ${PodError.from(cause).message}`);
    }
    place.close();
    this.#place = undefined;
  }

  abort(cause: unknown): void {
    try {
      this.#receipt?.fail(cause);
    } catch {
      // The waiting dumper then sees that this process ended without a word.
    }
    const place = this.#place;
    this.#place = undefined;
    place?.discard();
  }

  /** Keep bytes until the first frame is whole; the parser lets it grow no further than that. */
  #hold(chunk: Uint8Array): void {
    const length = this.#heldLength + chunk.length;
    if (length > this.#held.length) {
      const grown = new Uint8Array(Math.max(length, Math.min(2 * length, preamble.length + maxFrame)));
      grown.set(this.#held.subarray(0, this.#heldLength));
      this.#held = grown;
    }
    this.#held.set(chunk, this.#heldLength);
    this.#heldLength = length;
  }

  #open(first: FirstFrame): void {
    const encrypted = first.layers[0]?.filter === 'encrypt';
    if (!encrypted) {
      this.#options.warn?.(
        'the image is stored without encryption: whoever has the drive can read the memory of the session',
        'send it through pod-filter encrypt -R RECIPIENTS or -p PASSPHRASE-FILE',
      );
    }
    // Before the drive is touched: a full or read-only one must reach the waiting dumper too.
    try {
      this.#receipt = beginReceipt(first.imageId);
    } catch (cause) {
      this.#options.warn?.(`no receipt will be left: ${PodError.from(cause).message}`);
    }
    this.#place = onDrive(
      this.#path,
      () => new Place(this.#path, { ...this.#options, mode: encrypted ? 0o666 : 0o600 }),
    );
  }

  #commitReceipt(manifest: Manifest, drive: string): void {
    const { generation, bytes, created } = manifest;
    try {
      this.#receipt?.commit({ drive, generation, bytes, stored: created });
    } catch (cause) {
      this.#options.warn?.(
        `the image is stored, but no receipt could be left: ${PodError.from(cause).message}`,
        'a suspending pod-dump will let its session go on',
      );
    }
  }
}

/** The locked folder while a generation is written into it. */
class Place {
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
        const text = holder.toString('latin1', 0, readSync(fd, holder, 0, 128, 0)).replace(/[^ -~]/g, '');
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
      ftruncateSync(fd);
      writeSync(fd, `pid ${process.pid} on ${hostname()}\n`, 0);
    } catch {
      // For the reader's eye only; a full drive is told when there is something to store.
    }
    return fd;
  }
}
