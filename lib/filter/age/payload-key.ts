import { hkdf } from './kdf.ts';
import { sodium } from './sodium.ts';

/**
 * The key of the payload, on shared memory for the threads, locked into RAM where the limit on locked memory
 * allows. wipe() when no job runs any more.
 */
export function derivePayloadKey(
  fileKey: Uint8Array,
  nonce: Uint8Array,
): { key: Uint8Array; wipe: () => void } {
  const key = new Uint8Array(new SharedArrayBuffer(32));
  let locked = true;
  try {
    sodium().sodium_mlock(key);
  } catch {
    locked = false;
  }
  hkdf(key, fileKey, nonce, 'payload');
  return {
    key,
    wipe() {
      if (locked) sodium().sodium_munlock(key);
      sodium().sodium_memzero(key);
      locked = false;
    },
  };
}
