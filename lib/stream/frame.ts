/** One frame: 16-byte header, meta, data, CRC. See docs/format.md. */
import { crc32 } from './crc.ts';
import { decodeMeta } from './meta.ts';

export const preamble = Uint8Array.from([
  0x89, 0x50, 0x4f, 0x44, 0x0d, 0x0a, 0x1a, 0x0a, 1, 0, 0, 0, 0, 0, 0, 0,
]);
export const major = 1;
export const minor = 0;
export const headerLength = 16;
export const trailerLength = 4;
/** Most bytes of data in a frame. */
export const maxData = 1 << 20;
export const maxMeta = 0xffff;
export const maxFrame = headerLength + maxMeta + maxData + trailerLength;
export const criticalFlag = 1;

/** A frame as read: views into the reader's buffer, valid until the handler returns. */
export class Frame {
  readonly kind: number;
  readonly flags: number;
  readonly seq: number;
  /** The whole frame as it came, header to CRC. */
  readonly raw: Uint8Array;
  readonly metaBytes: Uint8Array;
  readonly data: Uint8Array;
  #meta: Record<string, unknown> | undefined;

  constructor(raw: Uint8Array, kind: number, flags: number, seq: number, metaLength: number) {
    this.raw = raw;
    this.kind = kind;
    this.flags = flags;
    this.seq = seq;
    this.metaBytes = raw.subarray(headerLength, headerLength + metaLength);
    this.data = raw.subarray(headerLength + metaLength, raw.length - trailerLength);
  }

  get critical(): boolean {
    return (this.flags & criticalFlag) !== 0;
  }

  /** The meta map, decoded once. */
  get meta(): Record<string, unknown> {
    this.#meta ??= decodeMeta(this.metaBytes);
    return this.#meta;
  }

  /** A copy that outlives the reader's buffer. */
  copy(): Frame {
    // Not slice(): a chunk may be a Buffer, whose slice() is a view.
    return new Frame(new Uint8Array(this.raw), this.kind, this.flags, this.seq, this.metaBytes.length);
  }
}

/**
 * Write a header, its CRC included, into `target` (at least 16 bytes).
 * Returns the header's CRC, which END sums up.
 */
export function writeHeader(
  target: Uint8Array,
  kind: number,
  flags: number,
  metaLength: number,
  dataLength: number,
  seq: number,
): number {
  const view = new DataView(target.buffer, target.byteOffset, headerLength);
  view.setUint8(0, kind);
  view.setUint8(1, flags);
  view.setUint16(2, metaLength, true);
  view.setUint32(4, dataLength, true);
  view.setUint32(8, seq, true);
  const crc = crc32(target.subarray(0, 12));
  view.setUint32(12, crc, true);
  return crc;
}
