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
    if (type <= 0x8f) return this.#map(type & 0x0f, depth);
    if (type <= 0x9f) return this.#array(type & 0x0f, depth);
    if (type <= 0xbf) return void this.#string(type & 0x1f);
    switch (type) {
      case 0xc0: // nil
      case 0xc2: // false
      case 0xc3: // true
        return;
      case 0xc4:
        return this.#skip(this.#number(1));
      case 0xc5:
        return this.#skip(this.#number(2));
      case 0xc6:
        return this.#skip(this.#number(4));
      case 0xcc:
      case 0xd0:
        return this.#skip(1);
      case 0xcd:
      case 0xd1:
        return this.#skip(2);
      case 0xca:
      case 0xce:
      case 0xd2:
        return this.#skip(4);
      case 0xcb:
      case 0xcf:
      case 0xd3:
        return this.#skip(8);
      case 0xd9:
        return void this.#string(this.#number(1));
      case 0xda:
        return void this.#string(this.#number(2));
      case 0xdb:
        return void this.#string(this.#number(4));
      case 0xdc:
        return this.#array(this.#number(2), depth);
      case 0xdd:
        return this.#array(this.#number(4), depth);
      case 0xde:
        return this.#map(this.#number(2), depth);
      case 0xdf:
        return this.#map(this.#number(4), depth);
      default:
        throw new Fault(`it holds the msgpack type 0x${type.toString(16)}, which is not allowed`);
    }
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
