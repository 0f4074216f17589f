/**
 * Writes a stream into a Sink: preamble, frames in sequence, END or ERROR.
 *
 * A frame leaves as up to three chunks (header and meta, data, CRC), so that page data are never copied here;
 * the descriptor sink at the bottom gathers small ones into one system call.
 */
import { crc32 } from './crc.ts';
import { type PodError, UpstreamError } from './error.ts';
import {
  criticalFlag,
  type Frame,
  headerLength,
  maxData,
  maxMeta,
  preamble,
  trailerLength,
  writeHeader,
} from './frame.ts';
import { kinds } from './kind.ts';
import { encodeMeta } from './meta.ts';
import { printable } from './printable.ts';
import type { Sink } from './sink.ts';
import { Tally } from './tally.ts';

const noData = new Uint8Array(0);

export class StreamWriter {
  readonly #sink: Sink;
  readonly #tally = new Tally();
  readonly #head = new Uint8Array(headerLength + maxMeta);
  readonly #trailer = new Uint8Array(trailerLength);
  #started = false;
  #preamble: Uint8Array = preamble;
  #finished = false;

  constructor(sink: Sink) {
    this.#sink = sink;
  }

  /** Nothing was written yet. */
  get untouched(): boolean {
    return !this.#started;
  }

  /** END or ERROR was written. */
  get finished(): boolean {
    return this.#finished;
  }

  /** A frame from a meta object; `kind` is critical unless said otherwise. */
  record(kind: number, meta: object, data: Uint8Array = noData, flags: number = criticalFlag): void {
    this.frame(kind, flags, encodeMeta(meta), data);
  }

  /** A frame from encoded meta. */
  frame(kind: number, flags: number, meta: Uint8Array, data: Uint8Array = noData): void {
    if (meta.length > maxMeta) throw new RangeError(`meta of ${meta.length} bytes`);
    if (data.length > maxData) throw new RangeError(`data of ${data.length} bytes`);
    if (this.#finished) throw new Error('frame after the end of the stream');
    this.#start();
    const headerCrc = writeHeader(this.#head, kind, flags, meta.length, data.length, this.#tally.frames);
    this.#head.set(meta, headerLength);
    const bodyCrc = crc32(data, crc32(meta));
    this.#sink.write(this.#head.subarray(0, headerLength + meta.length));
    if (data.length > 0) this.#sink.write(data);
    this.#close(headerCrc, bodyCrc, headerLength + meta.length + data.length + trailerLength);
  }

  /** Repeat this preamble (its minor version may be newer than ours) instead of our own; before any frame. */
  usePreamble(bytes: Uint8Array): void {
    this.#preamble = bytes;
  }

  /**
   * A frame that was read, unchanged but for its sequence number. Its body CRC was checked by the reader.
   * A forwarded END or ERROR finishes the stream; END fits only when every frame before it was forwarded.
   */
  forward(frame: Frame): void {
    if (this.#finished) throw new Error('frame after the end of the stream');
    this.#start();
    const { raw } = frame;
    const headerCrc = writeHeader(
      this.#head,
      frame.kind,
      frame.flags,
      frame.metaBytes.length,
      frame.data.length,
      this.#tally.frames,
    );
    const bodyCrc = new DataView(raw.buffer, raw.byteOffset + raw.length - trailerLength).getUint32(0, true);
    this.#sink.write(this.#head.subarray(0, headerLength));
    this.#sink.write(raw.subarray(headerLength));
    this.#tally.add(headerCrc, bodyCrc, raw.length);
    if (frame.kind === kinds.end || frame.kind === kinds.error) this.#finished = true;
  }

  /** Finish with END. The caller has seen and checked the END of its own input. */
  end(): void {
    this.record(kinds.end, this.#tally.meta);
    this.#finished = true;
  }

  /** Finish with ERROR; what an earlier stage reported keeps that stage's name. */
  error(stage: string, cause: PodError): void {
    const origin =
      cause instanceof UpstreamError
        ? cause.origin
        : { stage, code: cause.exitCode, message: cause.message, hint: cause.hint ?? '' };
    this.record(kinds.error, {
      stage: printable(origin.stage, 64),
      code: origin.code,
      message: printable(origin.message, 1024),
      hint: printable(origin.hint, 1024),
    });
    this.#finished = true;
  }

  #start(): void {
    if (this.#started) return;
    this.#started = true;
    this.#sink.write(this.#preamble);
    this.#tally.bytes = preamble.length;
  }

  #close(headerCrc: number, bodyCrc: number, frameBytes: number): void {
    new DataView(this.#trailer.buffer).setUint32(0, bodyCrc, true);
    this.#sink.write(this.#trailer);
    this.#tally.add(headerCrc, bodyCrc, frameBytes);
  }
}
