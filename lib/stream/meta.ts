/**
 * A frame's meta: one msgpack map. 64-bit integers are bigints on both sides, so an address never goes through
 * a double; the decoder always gets an exact slice, because a byte behind the value can change how msgpackr
 * reads it.
 */
import { Packr } from 'msgpackr';
import { PodError } from './error.ts';

const packr = new Packr({
  useRecords: false,
  variableMapSize: true,
  int64AsType: 'bigint',
  moreTypes: false,
});

export function encodeMeta(value: object): Uint8Array {
  // pack() returns a view of a shared buffer that the next pack() overwrites.
  return new Uint8Array(packr.pack(value));
}

export function decodeMeta(bytes: Uint8Array): Record<string, unknown> {
  let value: unknown;
  try {
    value = packr.unpack(bytes.slice());
  } catch (cause) {
    throw new PodError('damaged', 'a record is not valid msgpack', undefined, { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof Uint8Array) {
    throw new PodError('damaged', 'a record is not a msgpack map');
  }
  return value as Record<string, unknown>;
}
