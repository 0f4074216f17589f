/**
 * A frame's meta: one msgpack map. 64-bit integers are bigints on both sides, so an address never goes through
 * a double; the decoder always gets an exact slice, because a byte behind the value can change how msgpackr
 * reads it.
 */
import { Packr } from 'msgpackr';
import { PodError } from './error.ts';
import { faultOfMeta } from './meta-grammar.ts';

const packr = new Packr({
  useRecords: false,
  variableMapSize: true,
  int64AsType: 'bigint',
  moreTypes: false,
  // A field that is undefined is left out, as JSON does; msgpackr would write an extension.
  skipValues: [undefined],
} as ConstructorParameters<typeof Packr>[0]);

export function encodeMeta(value: object): Uint8Array {
  // pack() returns a view of a shared buffer that the next pack() overwrites.
  return new Uint8Array(packr.pack(value));
}

/** Decode a meta; no bytes at all are the empty map. Throws `damaged` for what docs/format.md does not allow. */
export function decodeMeta(bytes: Uint8Array): Record<string, unknown> {
  if (bytes.length === 0) return {};
  const fault = faultOfMeta(bytes);
  if (fault !== undefined) {
    throw new PodError(
      'damaged',
      `a record cannot be read: ${fault}`,
      'the stream was made by a faulty or hostile program',
    );
  }
  // Not slice(): of a Buffer that is a view, and decoded byte strings would change with the chunk.
  return packr.unpack(new Uint8Array(bytes)) as Record<string, unknown>;
}
