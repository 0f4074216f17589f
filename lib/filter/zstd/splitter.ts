/**
 * Cuts the payload of a compress layer into its zstd frames, reading headers only (RFC 8878, 3.1.1). All limits
 * are judged by what a header claims, before a byte is decompressed: a frame that would grow large is refused
 * by arithmetic.
 */
import { PodError } from '../../stream/error.ts';
import { maxCompressed, maxContent } from './jobs.ts';

const damaged = (why: string): PodError =>
  new PodError(
    'damaged',
    `the compressed data are damaged: ${why}`,
    'load the image again or use an older generation',
  );

export class FrameSplitter {
  readonly #give: (frame: Uint8Array, contentSize: number) => void;
  readonly #held = new Uint8Array(maxCompressed);
  #heldLength = 0;
  /** Bytes of the current frame that were understood so far (header and whole blocks), its content size. */
  #known = 0;
  #last = false;
  #checksum = false;
  #content = 0;

  constructor(give: (frame: Uint8Array, contentSize: number) => void) {
    this.#give = give;
  }

  write(chunk: Uint8Array): void {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#heldLength === 0) {
        const length = this.#measure(rest);
        if (length <= rest.length) {
          this.#finish(rest.subarray(0, length));
          rest = rest.subarray(length);
          continue;
        }
      }
      // The frame is cut by the chunk's end: gather what the next step of measuring needs.
      const wanted = this.#measure(this.#held.subarray(0, this.#heldLength));
      const taken = Math.min(Math.max(wanted - this.#heldLength, 0), rest.length);
      this.#held.set(rest.subarray(0, taken), this.#heldLength);
      this.#heldLength += taken;
      rest = rest.subarray(taken);
      const held = this.#held.subarray(0, this.#heldLength);
      if (this.#measure(held) <= held.length) {
        this.#heldLength = 0;
        this.#finish(held);
      }
    }
  }

  end(): void {
    if (this.#heldLength > 0) {
      throw new PodError(
        'truncated',
        'the compressed data end in the middle of a frame',
        'the command before this one stopped early: see its own message',
      );
    }
  }

  #finish(frame: Uint8Array): void {
    const content = this.#content;
    this.#known = 0;
    this.#last = false;
    this.#give(frame, content);
  }

  /** How long the frame at the start of `bytes` is, as far as they tell; goes on where it stopped last time. */
  #measure(bytes: Uint8Array): number {
    if (this.#known === 0) {
      const header = this.#header(bytes);
      if (header > bytes.length || this.#known === 0) return header;
    }
    while (!this.#last) {
      const at = this.#known;
      if (bytes.length < at + 3) return this.#bounded(at + 3);
      const header = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16);
      const type = (header >> 1) & 3;
      if (type === 3) throw damaged('a block is of the reserved type');
      const end = at + 3 + (type === 1 ? 1 : header >> 3);
      this.#bounded(end);
      // The block is counted once it is here, so that measuring can stop and go on at block borders.
      if (bytes.length < end) return end;
      this.#known = end;
      this.#last = (header & 1) === 1;
    }
    return this.#bounded(this.#known + (this.#checksum ? 4 : 0));
  }

  #bounded(length: number): number {
    if (length > maxCompressed) {
      throw new PodError(
        'limit',
        `a compressed frame is longer than ${maxCompressed} bytes`,
        'the stream is damaged or hostile',
      );
    }
    return length;
  }

  /** Reads the frame header; sets #known when it is whole. Returns how many bytes it needs. */
  #header(bytes: Uint8Array): number {
    const magic = [0x28, 0xb5, 0x2f, 0xfd];
    for (let i = 0; i < 4 && i < bytes.length; i++) {
      if (bytes[i] !== magic[i]) throw damaged('a frame does not start with the zstd magic');
    }
    if (bytes.length < 5) return 5;
    const descriptor = bytes[4]!;
    const single = (descriptor & 0x20) !== 0;
    if ((descriptor & 0x08) !== 0) throw damaged('a reserved bit is set');
    if ((descriptor & 3) !== 0) throw damaged('a frame wants a dictionary');
    const sizeBytes = [single ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
    if (sizeBytes === 0) throw damaged('a frame does not declare its content size');
    const at = 5 + (single ? 0 : 1);
    if (bytes.length < at + sizeBytes) return at + sizeBytes;
    let size = 0n;
    for (let i = sizeBytes - 1; i >= 0; i--) size = (size << 8n) | BigInt(bytes[at + i]!);
    if (sizeBytes === 2) size += 256n;
    if (size > BigInt(maxContent)) {
      throw new PodError(
        'limit',
        `a compressed frame claims to hold ${size} bytes, more than ${maxContent}`,
        'the stream is damaged or hostile',
      );
    }
    this.#content = Number(size);
    this.#checksum = (descriptor & 4) !== 0;
    this.#known = at + sizeBytes;
    return this.#known;
  }
}
