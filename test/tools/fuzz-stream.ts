/**
 * Mutates right streams and asks of the reader: never another exception than a PodError, the same verdict however
 * the bytes are cut, never `done` for a stream whose frames are not those of the original, bounded memory.
 * Half of the mutations put checksums right again, so that they reach behind them.
 */

import { crc32 } from '../../lib/stream/crc.ts';
import { PodError } from '../../lib/stream/error.ts';
import { encodeMeta } from '../../lib/stream/meta.ts';
import { tallyOf } from './forge.ts';
import { Random } from './random.ts';
import { byteByByte, judge } from './read-vector.ts';

/** One mutation from one seed. Throws an Error that names the seed when a promise is broken. */
export function fuzzOnce(originals: readonly Uint8Array[], seed: number): string {
  const random = new Random(seed);
  const original = random.pick(originals);
  const mutant = mutate(original, random);
  const wrong = (why: string) => new Error(`seed ${seed}: ${why}`);
  try {
    const verdict = judge(mutant);
    const cut = judge(mutant, random.below(4) === 0 ? byteByByte : () => 1 + random.below(200));
    if (verdict.class !== cut.class || verdict.frames !== cut.frames || verdict.released !== cut.released) {
      throw wrong(`whole ${verdict.class} after ${verdict.frames}, in cuts ${cut.class} after ${cut.frames}`);
    }
    if (verdict.class === 'other') throw wrong(`class other: ${verdict.message}`);
    return verdict.class;
  } catch (cause) {
    if (cause instanceof PodError || (cause as Error).message.startsWith('seed ')) throw cause;
    throw wrong(`${(cause as Error).stack}`);
  }
}

function mutate(original: Uint8Array, random: Random): Uint8Array {
  const bytes = Buffer.from(original);
  const at = random.below(bytes.length + 1);
  switch (random.below(8)) {
    case 0:
      bytes[at % bytes.length]! ^= 1 << random.below(8);
      return bytes;
    case 1:
      return bytes.subarray(0, at);
    case 2:
      return Buffer.concat([bytes.subarray(0, at), noise(random), bytes.subarray(at)]);
    case 3:
      return Buffer.concat([
        bytes.subarray(0, at),
        bytes.subarray(Math.min(bytes.length, at + 1 + random.below(80))),
      ]);
    default:
      return reframe(bytes, random);
  }
}

function noise(random: Random): Buffer {
  return Buffer.from(Array.from({ length: 1 + random.below(40) }, () => random.below(256)));
}

/** Change frames and seal them again: CRCs, numbers and END are right, what is inside is not. */
function reframe(stream: Buffer, random: Random): Buffer {
  const frames = framesOf(stream);
  frames.pop();
  const victim = random.below(frames.length);
  const frame = Buffer.from(frames[victim]!);
  const metaLength = frame.readUInt16LE(2);
  switch (random.below(7)) {
    case 0:
      frame[0] = random.below(256);
      break;
    case 1:
      frame[1] = random.below(4);
      break;
    case 2:
    case 3:
    case 4:
      for (let n = 1 + random.below(3); n > 0 && metaLength > 0; n -= 1) {
        frame[16 + random.below(metaLength)] = random.pick([
          0xc1,
          0xdd,
          0xdf,
          0xc7,
          0xdb,
          0x80,
          0xff,
          random.below(256),
        ]);
      }
      break;
    case 5:
      frames.splice(victim, 1);
      return seal(frames, random);
    default:
      frames.splice(random.below(frames.length + 1), 0, frame);
      return seal(frames, random);
  }
  frames[victim] = frame;
  return seal(frames, random);
}

function framesOf(stream: Buffer): Buffer[] {
  const frames: Buffer[] = [];
  for (let at = 16; at < stream.length; ) {
    const length = 20 + stream.readUInt16LE(at + 2) + stream.readUInt32LE(at + 4);
    frames.push(stream.subarray(at, at + length));
    at += length;
  }
  return frames;
}

function seal(frames: Buffer[], random: Random): Buffer {
  const end = Buffer.concat([Buffer.from([4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])]);
  const meta = random.below(8) === 0 ? encodeMeta({ frames: 1n, bytes: 1n, crc: 1 }) : undefined;
  const renumbered = frames.map((frame, index) => sealFrame(Buffer.from(frame), index));
  const endMeta = meta ?? encodeMeta(tallyOf(renumbered));
  end.writeUInt16LE(endMeta.length, 2);
  const last = sealFrame(Buffer.concat([end, endMeta, Buffer.alloc(4)]), renumbered.length);
  return Buffer.concat([Buffer.from('89504f440d0a1a0a0100000000000000', 'hex'), ...renumbered, last]);
}

function sealFrame(frame: Buffer, seq: number): Buffer {
  frame.writeUInt32LE(seq, 8);
  frame.writeUInt32LE(crc32(frame.subarray(0, 12)), 12);
  frame.writeUInt32LE(crc32(frame.subarray(16, frame.length - 4)), frame.length - 4);
  return frame;
}
