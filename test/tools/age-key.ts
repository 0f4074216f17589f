import { createPrivateKey, createPublicKey } from 'node:crypto';

/** The X25519 public key of a private one. */
export function x25519Public(secret: Uint8Array): Uint8Array {
  // PKCS #8 of RFC 8410: the key itself is the last 32 bytes; so it is in the public one's SPKI.
  const head = Buffer.from('302e020100300506032b656e04220420', 'hex');
  const key = createPrivateKey({ key: Buffer.concat([head, secret]), format: 'der', type: 'pkcs8' });
  return new Uint8Array(createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32));
}
