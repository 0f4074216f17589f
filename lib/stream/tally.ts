import { crc32 } from './crc.ts';

/** What END states about the frames before it: kept alike by reader and writer. */
export class Tally {
  frames = 0;
  bytes = 0;
  crc = 0;
  readonly #pair = new Uint8Array(8);
  readonly #view = new DataView(this.#pair.buffer);

  add(headerCrc: number, bodyCrc: number, frameBytes: number): void {
    this.#view.setUint32(0, headerCrc, true);
    this.#view.setUint32(4, bodyCrc, true);
    this.crc = crc32(this.#pair, this.crc);
    this.frames += 1;
    this.bytes += frameBytes;
  }

  get meta(): { frames: bigint; bytes: bigint; crc: number } {
    return { frames: BigInt(this.frames), bytes: BigInt(this.bytes), crc: this.crc };
  }
}
