import { createRequire } from 'node:module';

/** What we use of sodium-native. Buffers may be any Uint8Array, also on shared memory. */
export interface Sodium {
  crypto_scalarmult(out: Uint8Array, secret: Uint8Array, point: Uint8Array): void;
  crypto_scalarmult_base(out: Uint8Array, secret: Uint8Array): void;
  crypto_aead_chacha20poly1305_ietf_encrypt(
    out: Uint8Array,
    message: Uint8Array,
    ad: null,
    nsec: null,
    nonce: Uint8Array,
    key: Uint8Array,
  ): number;
  /** Throws when the tag is wrong. */
  crypto_aead_chacha20poly1305_ietf_decrypt(
    out: Uint8Array,
    nsec: null,
    sealed: Uint8Array,
    ad: null,
    nonce: Uint8Array,
    key: Uint8Array,
  ): number;
  randombytes_buf(target: Uint8Array): void;
  /** Guarded, locked memory; sodium_free() it, for finalizers only run when the event loop does. */
  sodium_malloc(size: number): Buffer;
  /** Zeroes too. */
  sodium_free(target: Buffer): void;
  sodium_memzero(target: Uint8Array): void;
  sodium_memcmp(a: Uint8Array, b: Uint8Array): boolean;
  sodium_mlock(target: Uint8Array): void;
  /** Also zeroes. */
  sodium_munlock(target: Uint8Array): void;
}

let loaded: Sodium | undefined;

/** libsodium, loaded at first use. */
export function sodium(): Sodium {
  loaded ??= createRequire(import.meta.url)('sodium-native') as Sodium;
  return loaded;
}

/** What fits in one page: less would not take less. */
const small = 4000;
const pooled = new WeakSet<ArrayBufferLike>();
const unused: ArrayBufferLike[] = [];

/**
 * Secret memory: guarded, locked where the limit allows. Small pieces are used again, because what is freed is
 * given back to the system only when the event loop runs.
 */
export function takeSecret(size: number): Buffer {
  if (size > small) return sodium().sodium_malloc(size);
  const buffer = unused.pop() ?? sodium().sodium_malloc(small).buffer;
  pooled.add(buffer);
  return Buffer.from(buffer as ArrayBuffer, 0, size);
}

/** Zero it and give it back. Not to be used afterwards. */
export function dropSecret(secret: Buffer): void {
  sodium().sodium_memzero(secret);
  if (pooled.has(secret.buffer)) unused.push(secret.buffer);
  else sodium().sodium_free(secret);
}
