/** Streams put together by hand, right or wrong, without lib/stream's writer: what it would refuse to write. */

import { crc32 } from '../../lib/stream/crc.ts';
import { kinds } from '../../lib/stream/kind.ts';
import { encodeMeta } from '../../lib/stream/meta.ts';

export interface ForgedFrame {
  kind: number;
  /** Default 1: critical. */
  flags?: number;
  /** An object is encoded; bytes stand as they are. Default {}. */
  meta?: object | Uint8Array;
  data?: Uint8Array;
  /** Default: its place. */
  seq?: number;
  /** data_len as the header claims it. Default the truth. */
  claims?: number;
  /** Turned over in the CRC. Default 0: right. */
  headerCrcXor?: number;
  bodyCrcXor?: number;
}

export const goodPreamble = Uint8Array.from([137, 80, 79, 68, 13, 10, 26, 10, 1, 0, 0, 0, 0, 0, 0, 0]);

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
};

export function forgeFrame(frame: ForgedFrame, index: number): Buffer {
  const { kind, flags = 1, meta = {}, data = new Uint8Array(0), seq = index } = frame;
  const metaBytes = meta instanceof Uint8Array ? meta : encodeMeta(meta);
  const head = Buffer.alloc(12);
  head.writeUInt8(kind, 0);
  head.writeUInt8(flags, 1);
  head.writeUInt16LE(metaBytes.length, 2);
  head.writeUInt32LE(frame.claims ?? data.length, 4);
  head.writeUInt32LE(seq >>> 0, 8);
  const body = Buffer.concat([metaBytes, data]);
  return Buffer.concat([
    head,
    u32(crc32(head) ^ (frame.headerCrcXor ?? 0)),
    body,
    u32(crc32(body) ^ (frame.bodyCrcXor ?? 0)),
  ]);
}

/** What END says about frames. */
export function tallyOf(frames: Buffer[]): { frames: bigint; bytes: bigint; crc: number } {
  let crc = 0;
  let bytes = goodPreamble.length;
  for (const frame of frames) {
    crc = crc32(Buffer.concat([frame.subarray(12, 16), frame.subarray(frame.length - 4)]), crc);
    bytes += frame.length;
  }
  return { frames: BigInt(frames.length), bytes: BigInt(bytes), crc };
}

export interface Forgery {
  preamble?: Uint8Array;
  frames: ForgedFrame[];
  /** Turns the END frame that closes the stream; undefined leaves it out. Default: a right one. */
  end?: ((right: ForgedFrame) => ForgedFrame) | undefined;
  after?: Uint8Array;
}

export function forge(forgery: Forgery): Buffer {
  const frames = forgery.frames.map(forgeFrame);
  const close = 'end' in forgery ? forgery.end : (right: ForgedFrame) => right;
  if (close) frames.push(forgeFrame(close({ kind: kinds.end, meta: tallyOf(frames) }), frames.length));
  return Buffer.concat([forgery.preamble ?? goodPreamble, ...frames, forgery.after ?? new Uint8Array(0)]);
}
