/** Compressing and decompressing one frame of at most 1 MiB: the work of the threads. See parallel/job.ts. */
import type { Job } from '../parallel/job.ts';
import { zstd } from './binding.ts';

/**
 * Input bytes of a frame. 4 KiB below 1 MiB, so that a frame of incompressible data still fits in one DATA frame
 * and zstd's bound for it in a buffer of that size.
 */
export const inputOfFrame = (1 << 20) - 4096;
/** Most bytes that a frame of a layer may decompress to. */
export const maxContent = 1 << 20;
/** Most bytes of a compressed frame of a layer: zstd's own bound for maxContent, rounded up. */
export const maxCompressed = maxContent + (8 << 10);

const maxBlock = 128 << 10;
const sample = 4096;

/** Write a frame of raw blocks: what zstd would make of noise, without looking at every byte. */
function storeRaw(input: Uint8Array, output: Uint8Array): number {
  const view = new DataView(output.buffer, output.byteOffset, output.length);
  view.setUint32(0, 0xfd2fb528, true);
  // Frame header descriptor: a 4-byte content size, single segment, no checksum, no dictionary (RFC 8878, 3.1.1.1).
  output[4] = 0xa0;
  view.setUint32(5, input.length, true);
  let at = 9;
  for (let from = 0; from < input.length; from += maxBlock) {
    const block = input.subarray(from, from + maxBlock);
    const header = (block.length << 3) | (from + maxBlock >= input.length ? 1 : 0);
    output[at] = header & 0xff;
    output[at + 1] = (header >> 8) & 0xff;
    output[at + 2] = header >> 16;
    output.set(block, at + 3);
    at += 3 + block.length;
  }
  return at;
}

export function makeCompressJob(params: unknown): Job {
  const { level } = params as { level: number };
  const context = new (zstd().CCtx)();
  const scratch = new Uint8Array(zstd().compressBound(sample));
  const isNoise = (input: Uint8Array, at: number): boolean =>
    context.compress(scratch, input.subarray(at, at + sample), 1) >= sample;
  return (input, output) => {
    const { length } = input;
    // Three samples that all do not shrink: noise (already compressed or encrypted). It is stored as it is.
    if (
      length >= 16 * sample &&
      isNoise(input, 0) &&
      isNoise(input, (length >> 1) & ~4095) &&
      isNoise(input, length - sample)
    ) {
      return storeRaw(input, output);
    }
    return context.compress(output, input, level);
  };
}

/** `note` is the content size that the frame declares. Throws when the frame is not what it says. */
export function makeDecompressJob(): Job {
  const context = new (zstd().DCtx)();
  return (input, output, _index, note) => {
    const made = context.decompress(output.subarray(0, note), input);
    if (made !== note) throw new Error('a frame is shorter than it says');
    return made;
  };
}
