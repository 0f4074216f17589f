/**
 * Reads a stream the way every reader must at least: the parser's rules, and every record of a known kind against
 * its schema. Says what class the stream is of and what was released before the verdict.
 */
import { createHash } from 'node:crypto';
import { readRecord } from '../../lib/image/record.ts';
import { PodError } from '../../lib/stream/error.ts';
import { kindName } from '../../lib/stream/kind.ts';
import { StreamParser } from '../../lib/stream/stream-parser.ts';
import { validators } from '../../schemas/generated/validators.js';

export interface Verdict {
  /** `done`, or the failure class of lib/stream/error.ts. */
  class: string;
  /** Frames handed on before the verdict. */
  frames: number;
  /** SHA-256 over those frames' bytes, in hex. */
  released: string;
  /** The message, for people; not part of what vectors promise. */
  message?: string;
}

/** Sizes of the cuts in which a stream is fed; the last one repeats. */
export type Cuts = (remaining: number) => number;

export const whole: Cuts = (remaining) => remaining;
export const byteByByte: Cuts = () => 1;

/** Feed `bytes` in cuts. Throws only what no reader may throw: anything but a PodError. */
export function judge(bytes: Uint8Array, cuts: Cuts = whole): Verdict {
  const hash = createHash('sha256');
  let frames = 0;
  let ended = false;
  const parser = new StreamParser({
    frame(frame) {
      const name = kindName(frame.kind);
      if (name !== undefined && name in validators) readRecord(name as keyof typeof validators, frame);
      frames += 1;
      hash.update(frame.raw);
    },
    end() {
      ended = true;
    },
    abort() {},
  });
  const verdict = (kind: string, message?: string): Verdict => ({
    class: kind,
    frames,
    released: hash.digest('hex'),
    ...(message === undefined ? {} : { message }),
  });
  // One buffer for all chunks: whoever keeps a view of a chunk is found out.
  const shared = new Uint8Array(bytes.length);
  try {
    for (let at = 0; at < bytes.length; ) {
      const length = Math.min(Math.max(1, cuts(bytes.length - at)), bytes.length - at);
      const chunk = shared.subarray(0, length);
      chunk.set(bytes.subarray(at, at + length));
      parser.write(chunk);
      shared.fill(0xa5, 0, length);
      at += length;
    }
    parser.end();
  } catch (cause) {
    if (!(cause instanceof PodError)) throw cause;
    return verdict(cause.failure, cause.message);
  }
  if (!ended) throw new Error('neither an end nor an error');
  return verdict('done');
}
