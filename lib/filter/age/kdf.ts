import { createHmac, scryptSync } from 'node:crypto';
import { sodium } from './sodium.ts';

const none = new Uint8Array(0);

export function hmac(key: Uint8Array, ...parts: (Uint8Array | string)[]): Buffer {
  const mac = createHmac('sha256', key);
  for (const part of parts) mac.update(part);
  return mac.digest();
}

/** HKDF-SHA256 (RFC 5869), 32 bytes, written into `out`. */
export function hkdf(out: Uint8Array, secret: Uint8Array, salt: Uint8Array, info: string): void {
  const extracted = hmac(salt.length > 0 ? salt : new Uint8Array(32), secret);
  const expanded = hmac(extracted, none, info, Uint8Array.of(1));
  out.set(expanded);
  sodium().sodium_memzero(extracted);
  sodium().sodium_memzero(expanded);
}

/** scrypt with r = 8, p = 1 (RFC 7914): 32 bytes. Takes 2^(logN + 10) bytes of memory. */
export function scrypt(passphrase: Uint8Array, salt: Uint8Array, logN: number): Buffer {
  const N = 2 ** logN;
  return scryptSync(passphrase, Buffer.concat([Buffer.from('age-encryption.org/v1/scrypt'), salt]), 32, {
    N,
    r: 8,
    p: 1,
    maxmem: 1024 * N + (2 << 20),
  });
}
