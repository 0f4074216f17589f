import { createRequire } from 'node:module';

// Native code is loaded at the first checksum, so that `--help` never pays for it.
let native: ((bytes: Uint8Array, state?: number) => number) | undefined;

/** CRC-32 (ISO-HDLC, as in zlib and PNG) of bytes, going on from `state`. */
export function crc32(bytes: Uint8Array, state = 0): number {
  native ??= (createRequire(import.meta.url)('@node-rs/crc32') as { crc32: typeof crc32 }).crc32;
  return bytes.length === 0 ? state : native(bytes, state);
}
