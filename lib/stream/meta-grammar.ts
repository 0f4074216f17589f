/**
 * What may stand in a meta, checked on the bytes before a general msgpack decoder sees them: one map, string keys,
 * nil, booleans, numbers, strings, byte strings, arrays, maps; nothing else. A full decoder offers a stranger far
 * more: extensions that build functions, dates, regular expressions and cycles, counts of four billion that are
 * believed before a byte of them came, depth that overflows the stack, `__proto__`, and doubled keys of which two
 * readers may each take another one. Time and memory here are bounded by the 64 KiB that a meta may have.
 */
import { isUtf8 } from 'node:buffer';

/** Most containers inside each other, the map itself included. */
export const maxMetaDepth = 16;

/** The reason why `bytes` are not a lawful meta, or undefined when they are. */
export function faultOfMeta(bytes: Uint8Array): string | undefined {
  const scan = new Scan(bytes);
  try {
    scan.whole();
  } catch (cause) {
    if (cause instanceof Fault) return cause.message;
    throw cause;
  }
  return undefined;
}

/** Bytes behind the types whose length the type alone tells: nil, booleans, floats, unsigned and signed integers. */
const fixedWidth = new Map([
  [0xc0, 0],
  [0xc2, 0],
  [0xc3, 0],
  [0xca, 4],
  [0xcb, 8],
  [0xcc, 1],
  [0xcd, 2],
  [0xce, 4],
  [0xcf, 8],
  [0xd0, 1],
  [0xd1, 2],
  [0xd2, 4],
  [0xd3, 8],
]);

class Fault extends Error {}

class Scan {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  whole(): void {
    const first = this.#bytes[0];
    if (first === undefined) throw new Fault('it is empty');
    if (!(first >= 0x80 && first <= 0x8f) && first !== 0xde && first !== 0xdf) {
      throw new Fault('it is not a msgpack map');
    }
    this.#value(1);
    if (this.#at !== this.#bytes.length) throw new Fault('there are bytes behind its map');
  }

  #value(depth: number): void {
    const type = this.#number(1);
    if (type <= 0x7f || type >= 0xe0) return;
    if (type <= 0x8f) this.#map(type & 0x0f, depth);
    else if (type <= 0x9f) this.#array(type & 0x0f, depth);
    else if (type <= 0xbf) this.#string(type & 0x1f);
    else if (fixedWidth.has(type)) this.#skip(fixedWidth.get(type)!);
    else if (type >= 0xc4 && type <= 0xc6) this.#skip(this.#number(1 << (type - 0xc4)));
    else if (type >= 0xd9 && type <= 0xdb) this.#string(this.#number(1 << (type - 0xd9)));
    else if (type === 0xdc || type === 0xdd) this.#array(this.#number(type === 0xdc ? 2 : 4), depth);
    else if (type === 0xde || type === 0xdf) this.#map(this.#number(type === 0xde ? 2 : 4), depth);
    else throw new Fault(`it holds the msgpack type 0x${type.toString(16)}, which is not allowed`);
  }

  #array(count: number, depth: number): void {
    this.#enter(count, 1, depth);
    for (let index = 0; index < count; index += 1) this.#value(depth + 1);
  }

  #map(count: number, depth: number): void {
    this.#enter(count, 2, depth);
    const keys = new Set<string>();
    for (let index = 0; index < count; index += 1) {
      const key = this.#key();
      if (keys.has(key)) throw new Fault('a key stands twice in one map');
      if (key === '__proto__') throw new Fault('a key is __proto__');
      keys.add(key);
      this.#value(depth + 1);
    }
  }

  #key(): string {
    const type = this.#number(1);
    let bytes: Uint8Array;
    if (type >= 0xa0 && type <= 0xbf) bytes = this.#string(type & 0x1f);
    else if (type >= 0xd9 && type <= 0xdb) bytes = this.#string(this.#number(1 << (type - 0xd9)));
    else throw new Fault('a key is not a string');
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
  }

  /** Each element takes at least `least` bytes, so a count is checked before it is believed. */
  #enter(count: number, least: number, depth: number): void {
    if (depth > maxMetaDepth) throw new Fault(`it is nested deeper than ${maxMetaDepth}`);
    if (count * least > this.#bytes.length - this.#at) throw new Fault('it claims more elements than it has');
  }

  #string(length: number): Uint8Array {
    const from = this.#at;
    this.#skip(length);
    const bytes = this.#bytes.subarray(from, this.#at);
    if (!isUtf8(bytes)) throw new Fault('a string is not UTF-8');
    return bytes;
  }

  #skip(length: number): void {
    if (length > this.#bytes.length - this.#at) throw new Fault('a value is cut short');
    this.#at += length;
  }

  #number(width: number): number {
    const from = this.#at;
    this.#skip(width);
    if (width === 1) return this.#view.getUint8(from);
    return width === 2 ? this.#view.getUint16(from) : this.#view.getUint32(from);
  }
}
