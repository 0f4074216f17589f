/** Writes a generation's bytes into segments, each synced before the next is begun. Copies nothing. */
import { closeSync, constants, fsyncSync, writeSync } from 'node:fs';
import { native } from '../../native/index.ts';
import { crc32 } from '../stream/crc.ts';
import type { Manifest } from './manifest.ts';
import { segmentName } from './names.ts';
import type { PodFolder } from './pod-folder.ts';

/** So many bytes are handed to the drive at a time, early, so that the last fsync has little left to do. */
const window = 16 << 20;
const syncFileRange = 277;
const syncFileRangeWrite = 2;

export interface SegmentWriterOptions {
  segmentSize: number;
  /** Of the files, less umask. */
  mode: number;
  /** The drive is full: make room and say true to try again. */
  makeRoom(): boolean;
}

export class SegmentWriter {
  readonly #folder: PodFolder;
  readonly #generation: number;
  readonly #options: SegmentWriterOptions;
  readonly #done: Manifest['segments'] = [];
  #fd: number | undefined;
  #bytes = 0;
  #crc = 0;
  #handed = 0;
  #begun = 0;

  constructor(folder: PodFolder, generation: number, options: SegmentWriterOptions) {
    this.#folder = folder;
    this.#generation = generation;
    this.#options = options;
  }

  write(chunk: Uint8Array): void {
    const { segmentSize } = this.#options;
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#bytes === segmentSize) this.#close();
      this.#fd ??= this.#open();
      const part = rest.subarray(0, segmentSize - this.#bytes);
      this.#writeAll(this.#fd, part);
      this.#crc = crc32(part, this.#crc);
      rest = rest.subarray(part.length);
    }
  }

  /** Sync the last segment. Returns all of them. */
  finish(): Manifest['segments'] {
    this.#close();
    return this.#done;
  }

  /** Remove what was written. */
  discard(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
    for (let index = 0; index < this.#begun; index++)
      this.#folder.remove(segmentName(this.#generation, index));
  }

  #open(): number {
    this.#folder.checkAttached();
    const name = segmentName(this.#generation, this.#begun);
    const fd = this.#again(() =>
      this.#folder.openFile(
        name,
        constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL,
        this.#options.mode,
      ),
    );
    this.#begun += 1;
    this.#bytes = 0;
    this.#crc = 0;
    this.#handed = 0;
    return fd;
  }

  #writeAll(fd: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const written = this.#again(() => writeSync(fd, bytes, at, bytes.length - at));
      at += written;
      this.#bytes += written;
    }
    if (this.#bytes - this.#handed < window) return;
    try {
      native().syscall(syncFileRange, fd, this.#handed, this.#bytes - this.#handed, syncFileRangeWrite);
    } catch {
      // Not every file system can; what matters is said by fsync.
    }
    this.#handed = this.#bytes;
    this.#folder.checkAttached();
  }

  #close(): void {
    if (this.#fd === undefined) return;
    const fd = this.#fd;
    // Delayed allocation may find the drive full only now.
    this.#again(() => fsyncSync(fd));
    this.#fd = undefined;
    closeSync(fd);
    this.#done.push({ bytes: this.#bytes, crc32: this.#crc });
  }

  #again<T>(call: () => T): T {
    for (;;) {
      try {
        return call();
      } catch (cause) {
        const { code } = cause as NodeJS.ErrnoException;
        if (code === 'EINTR') continue;
        if ((code === 'ENOSPC' || code === 'EDQUOT') && this.#options.makeRoom()) continue;
        throw cause;
      }
    }
  }
}
