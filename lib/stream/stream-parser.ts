/**
 * Reads a stream that is pushed at it in chunks of any size.
 *
 * Frames that lie whole in a chunk are handed on as views of it; only a frame cut by a chunk's end is gathered,
 * in one buffer that never grows above the largest frame. Memory is therefore flat whatever lengths a hostile
 * header claims: a length is checked against its limit before a byte of it is awaited.
 *
 * The parser vouches for order (sequence numbers), integrity (CRCs, the counts in END) and completeness (END
 * seen, nothing behind it). What the records mean is not its business.
 */
import { crc32 } from './crc.ts';
import { PodError, UpstreamError } from './error.ts';
import { Frame, headerLength, major, maxData, maxFrame, preamble, trailerLength } from './frame.ts';
import { kindName, kinds } from './kind.ts';
import { printable } from './printable.ts';
import type { Sink } from './sink.ts';
import { Tally } from './tally.ts';

export interface FrameHandler {
  /** Every frame in order, END and ERROR included; the frame is valid until this returns. */
  frame(frame: Frame): void;
  /** The input ended well: END was seen and checked, and then end of file. */
  end(): void;
  /** Upstream failed (see Sink). */
  abort(cause: unknown): void;
}

export interface ParserOptions {
  /** Let critical frames of unknown kind through (for stages that only carry bytes). Default false: exit 8. */
  unknownCritical?: boolean;
}

export class StreamParser implements Sink {
  readonly #handler: FrameHandler;
  readonly #unknownCritical: boolean;
  readonly #tally = new Tally();
  #held = new Uint8Array(0);
  #heldLength = 0;
  #sawPreamble = false;
  #preamble = preamble;
  #last: 'end' | 'error' | undefined;
  #error: PodError | undefined;
  #failed: unknown;
  /** Kind of the first frame: what the stream is. */
  #opened = 0;

  constructor(handler: FrameHandler, options: ParserOptions = {}) {
    this.#handler = handler;
    this.#unknownCritical = options.unknownCritical ?? false;
  }

  write(chunk: Uint8Array): void {
    // A stream once found wrong stays wrong, whatever is pushed behind.
    if (this.#failed) throw this.#failed;
    try {
      this.#write(chunk);
    } catch (cause) {
      this.#failed = cause;
      throw cause;
    }
  }

  #write(chunk: Uint8Array): void {
    let rest = chunk;
    // First complete what an earlier chunk began; then take frames straight out of this one.
    while (this.#heldLength > 0 && rest.length > 0) {
      const wanted = this.#wanted(this.#held.subarray(0, this.#heldLength));
      const taken = Math.min(wanted - this.#heldLength, rest.length);
      this.#hold(rest.subarray(0, taken), wanted);
      rest = rest.subarray(taken);
      const held = this.#held.subarray(0, this.#heldLength);
      if (this.#wanted(held) > held.length) continue;
      this.#heldLength = 0;
      this.#take(held);
    }
    while (rest.length > 0) {
      const wanted = this.#wanted(rest);
      if (wanted > rest.length) {
        this.#hold(rest, wanted);
        return;
      }
      this.#take(rest.subarray(0, wanted));
      rest = rest.subarray(wanted);
    }
  }

  /** The preamble as it came, once it was read; a stage that only carries the stream on repeats it. */
  get preamble(): Uint8Array {
    return this.#preamble;
  }

  end(): void {
    if (this.#failed) throw this.#failed;
    if (this.#error) throw this.#error;
    if (this.#last !== 'end') {
      const at = this.#tally.bytes + this.#heldLength;
      throw at === 0
        ? new PodError(
            'truncated',
            'the stream is empty',
            'the command before this one wrote nothing: see its own message',
          )
        : new PodError(
            'truncated',
            `the stream ends after ${at} bytes without END`,
            'the command before this one stopped early: see its own message',
          );
    }
    this.#handler.end();
  }

  abort(cause: unknown): void {
    this.#handler.abort(cause);
  }

  #hold(bytes: Uint8Array, wanted: number): void {
    const length = this.#heldLength + bytes.length;
    if (length > this.#held.length) {
      const grown = new Uint8Array(Math.min(Math.max(wanted, 2 * this.#held.length, 4096), maxFrame));
      grown.set(this.#held.subarray(0, this.#heldLength));
      this.#held = grown;
    }
    this.#held.set(bytes, this.#heldLength);
    this.#heldLength = length;
  }

  /** How many bytes the item at the start of `bytes` needs, as far as they tell; rejects what can't be right. */
  #wanted(bytes: Uint8Array): number {
    if (this.#last) {
      throw new PodError(
        'damaged',
        `there are bytes after ${this.#last.toUpperCase()}`,
        'two streams joined into one?',
      );
    }
    if (!this.#sawPreamble) {
      for (let i = 0; i < bytes.length && i < 8; i++) {
        if (bytes[i] !== preamble[i]) {
          throw new PodError(
            'foreign',
            'the input is not a pod stream',
            'a stream starts with \\x89POD: was it compressed or encrypted by another tool?',
          );
        }
      }
      return preamble.length;
    }
    if (bytes.length < headerLength) return headerLength;
    const view = new DataView(bytes.buffer, bytes.byteOffset, headerLength);
    const metaLength = view.getUint16(2, true);
    const dataLength = view.getUint32(4, true);
    if (view.getUint32(12, true) !== crc32(bytes.subarray(0, 12))) {
      throw this.#damaged('its header checksum is wrong');
    }
    if (dataLength > maxData) {
      throw new PodError(
        'limit',
        `frame ${this.#tally.frames} claims ${dataLength} bytes of data, more than ${maxData}`,
        'the stream is damaged or hostile',
      );
    }
    return headerLength + metaLength + dataLength + trailerLength;
  }

  #take(bytes: Uint8Array): void {
    if (this.#sawPreamble) this.#takeFrame(bytes);
    else this.#takePreamble(bytes);
  }

  #takePreamble(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, preamble.length);
    const theirs = view.getUint16(8, true);
    if (theirs > major) {
      throw new PodError(
        'version',
        `the stream has format version ${theirs}, this podstream reads up to ${major}`,
        'update podstream',
      );
    }
    if (theirs < 1) throw new PodError('damaged', `the stream claims format version ${theirs}`);
    if (view.getUint32(12, true) !== 0)
      throw new PodError('damaged', 'a reserved field of the preamble is not zero');
    this.#sawPreamble = true;
    this.#preamble = new Uint8Array(bytes);
    this.#tally.bytes = preamble.length;
  }

  #takeFrame(raw: Uint8Array): void {
    const view = new DataView(raw.buffer, raw.byteOffset, raw.length);
    const kind = view.getUint8(0);
    const flags = view.getUint8(1);
    const metaLength = view.getUint16(2, true);
    const seq = view.getUint32(8, true);
    if ((flags & ~1) !== 0) throw this.#damaged('it has reserved flags set');
    // Sequence numbers wrap: a stream of more than 2^32 small frames is long, not damaged.
    if (seq !== this.#tally.frames % 2 ** 32)
      throw this.#damaged(`its sequence number is ${seq}: a frame was lost, doubled or moved`);
    const bodyCrc = view.getUint32(raw.length - trailerLength, true);
    if (bodyCrc !== crc32(raw.subarray(headerLength, raw.length - trailerLength))) {
      throw this.#damaged('its checksum is wrong');
    }
    const frame = new Frame(raw, kind, flags, seq, metaLength);
    this.#check(frame);
    this.#tally.add(view.getUint32(12, true), bodyCrc, raw.length);
    this.#handler.frame(frame);
  }

  #check(frame: Frame): void {
    const first = this.#tally.frames === 0;
    const { kind } = frame;
    if (first) this.#opened = kind;
    const opens = kind === kinds.hello || kind === kinds.layer;
    // A maker that fails before it knows what it makes may send ERROR alone.
    if (first !== opens && !(first && kind === kinds.error)) {
      throw this.#damaged(first ? 'the stream must start with HELLO or LAYER' : 'a second HELLO or LAYER');
    }
    const known = kindName(kind) !== undefined;
    const final = kind === kinds.end || kind === kinds.error;
    // A layer carries DATA and nothing else that matters; DATA means nothing outside a layer.
    const layer = this.#opened === kinds.layer;
    if (kind === kinds.data && !layer) throw this.#damaged('DATA outside a layer');
    if (layer && !first && known && kind !== kinds.data && !final) {
      throw this.#damaged('a record inside a layer');
    }
    if (final && frame.data.length > 0) throw this.#damaged('END and ERROR carry no data');
    if (kind === kinds.end) {
      const { frames, bytes, crc } = frame.meta;
      const ours = this.#tally.meta;
      if (frames !== ours.frames || bytes !== ours.bytes || crc !== ours.crc) {
        throw this.#damaged('END does not match the frames before it');
      }
      this.#last = 'end';
    } else if (kind === kinds.error) {
      this.#last = 'error';
      this.#error = upstreamError(frame);
    } else if (frame.critical && !this.#unknownCritical && !known) {
      throw new PodError(
        'unknown-critical',
        `frame ${this.#tally.frames} is of the unknown critical kind ${kind}`,
        'the stream was made by a newer podstream: update',
      );
    }
  }

  #damaged(why: string): PodError {
    return new PodError(
      'damaged',
      `frame ${this.#tally.frames} is damaged: ${why}`,
      'the stream was changed on its way; load it again or use an older generation',
    );
  }
}

function upstreamError(frame: Frame): UpstreamError {
  const { stage, code, message, hint } = frame.meta;
  return new UpstreamError({
    stage: printable(stage, 64) || 'an unnamed stage',
    code: typeof code === 'number' && Number.isInteger(code) && code > 0 && code < 256 ? code : 1,
    message: printable(message, 1024) || 'no reason given',
    hint: printable(hint, 1024),
  });
}
