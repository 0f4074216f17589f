/**
 * The payload of an age file (age-encryption.org/v1, STREAM): chunks of 64 KiB, each sealed with
 * ChaCha20-Poly1305 under a nonce of an 11-byte counter and a byte that is 1 for the last chunk. Chunks are
 * worked on in batches, one batch a job.
 */
import type { Job } from '../parallel/job.ts';
import { sodium } from './sodium.ts';

export const chunkSize = 64 << 10;
export const tagSize = 16;
export const sealedSize = chunkSize + tagSize;
/** 15 sealed chunks are the most that fit in one DATA frame of 1 MiB. */
export const batch = 15;

/** `note` of a job: whether its last chunk is the file's last. */
export const lastBatch = 1;

function nonceWriter(): (chunk: number, last: boolean) => Uint8Array {
  const nonce = new Uint8Array(12);
  const view = new DataView(nonce.buffer);
  return (chunk, last) => {
    // The counter has 88 bits; 2^53 chunks of 64 KiB are more than anybody has.
    view.setUint32(3, Math.floor(chunk / 2 ** 32));
    view.setUint32(7, chunk >>> 0);
    nonce[11] = last ? 1 : 0;
    return nonce;
  };
}

/** `params.key`: 32 bytes on shared memory, wiped by the main thread when no job runs any more. */
export function makeSealJob(params: unknown): Job {
  const { key } = params as { key: Uint8Array };
  const writeNonce = nonceWriter();
  return (input, output, index, note) => {
    let made = 0;
    let chunk = index * batch;
    // An empty file still has one chunk, an empty one.
    for (let at = 0; at < input.length || at === 0; at += chunkSize) {
      const part = input.subarray(at, at + chunkSize);
      const last = note === lastBatch && at + chunkSize >= input.length;
      const sealed = output.subarray(made, made + part.length + tagSize);
      sodium().crypto_aead_chacha20poly1305_ietf_encrypt(
        sealed,
        part,
        null,
        null,
        writeNonce(chunk++, last),
        key,
      );
      made += sealed.length;
    }
    return made;
  };
}

/** Throws when a chunk is not what was sealed. */
export function makeOpenJob(params: unknown): Job {
  const { key } = params as { key: Uint8Array };
  const writeNonce = nonceWriter();
  return (input, output, index, note) => {
    let made = 0;
    let chunk = index * batch;
    for (let at = 0; at < input.length; at += sealedSize) {
      const part = input.subarray(at, at + sealedSize);
      if (part.length < tagSize) throw new Error('a chunk is shorter than its tag');
      const last = note === lastBatch && at + sealedSize >= input.length;
      // Only an empty file may end with an empty chunk.
      if (part.length === tagSize && chunk > 0) throw new Error('an empty last chunk');
      const opened = output.subarray(made, made + part.length - tagSize);
      sodium().crypto_aead_chacha20poly1305_ietf_decrypt(
        opened,
        null,
        part,
        null,
        writeNonce(chunk++, last),
        key,
      );
      made += opened.length;
    }
    return made;
  };
}
