/**
 * pod-store: a stream in, a generation on the drive out. The steps and what a power cut leaves after each are in
 * docs/drive.md; in short: first frame proved → folder, lock, number → segments, each synced → END checked and end
 * of file → the dumper still waits → manifest, synced → HEAD, synced → receipt → older generations removed.
 */
import { beginReceipt, type PendingReceipt } from '../runtime/receipt.ts';
import { PodError } from '../stream/error.ts';
import { maxFrame, preamble } from '../stream/frame.ts';
import type { Sink } from '../stream/sink.ts';
import { StreamParser } from '../stream/stream-parser.ts';
import { onDrive } from './drive-error.ts';
import { type FirstFrame, readFirstFrame } from './first-frame.ts';
import type { Manifest } from './manifest.ts';
import { Place } from './place.ts';

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
  /** Why an earlier write failed. Who writes once more (an ERROR frame, say) must not begin anew. */
  #failed: unknown;

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
    if (this.#failed) throw this.#failed;
    this.#receipt?.working(true);
    try {
      this.#take(chunk);
    } catch (cause) {
      this.#failed = cause;
      throw cause;
    }
    this.#receipt?.working(false);
  }

  #take(chunk: Uint8Array): void {
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
    if (this.#failed) throw this.#failed;
    this.#parser.end();
    const place = this.#place;
    const first = this.#first;
    if (!this.#ended || place === undefined || first === undefined)
      throw new Error('the parser passed no frame');
    this.#seal();
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

  /** All has come. A dumper that waited no longer has let its session go on: its image must not become current. */
  #seal(): void {
    try {
      this.#receipt?.seal();
    } catch (cause) {
      if (cause instanceof PodError) throw cause;
      this.#options.warn?.(`no receipt will be left: ${PodError.from(cause).message}`);
    }
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
