import type { Sink } from '../../stream/sink.ts';
import { ParallelStage } from '../parallel/stage.ts';
import { formatHeader, type Stanza } from './header.ts';
import { derivePayloadKey } from './payload-key.ts';
import { dropSecret, sodium, takeSecret } from './sodium.ts';
import { batch, chunkSize, lastBatch, makeSealJob, sealedSize } from './stream.ts';

const batchInput = batch * chunkSize;

/** Bytes in, an age file out. `wrap` makes the header's stanzas from the file key. */
export class AgeEncoder implements Sink {
  readonly #output: Sink;
  readonly #head: Uint8Array;
  readonly #key: { key: Uint8Array; wipe: () => void };
  readonly #stage: ParallelStage;
  #started = false;
  #length = 0;

  constructor(wrap: (fileKey: Uint8Array) => Stanza[], output: Sink) {
    this.#output = output;
    const fileKey = takeSecret(16);
    sodium().randombytes_buf(fileKey);
    const nonce = new Uint8Array(16);
    sodium().randombytes_buf(nonce);
    this.#head = Buffer.concat([Buffer.from(formatHeader(fileKey, wrap(fileKey)), 'latin1'), nonce]);
    this.#key = derivePayloadKey(fileKey, nonce);
    dropSecret(fileKey);
    const params = { key: this.#key.key };
    this.#stage = new ParallelStage({
      inputSize: batchInput,
      outputSize: batch * sealedSize,
      job: makeSealJob(params),
      source: { module: 'lib/filter/age/stream.js', make: 'makeSealJob', params },
      output: (bytes) => output.write(bytes),
    });
  }

  write(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length; ) {
      // Submitted only when more comes: the last chunk is sealed as the last one.
      if (this.#length === batchInput) this.#submit(0);
      const part = chunk.subarray(at, at + batchInput - this.#length);
      this.#stage.input.set(part, this.#length);
      this.#length += part.length;
      at += part.length;
    }
  }

  end(): void {
    this.#submit(lastBatch);
    this.#stage.finish();
    this.#key.wipe();
    this.#output.end();
  }

  abort(cause: unknown): void {
    this.#stage.settle();
    this.#key.wipe();
    this.#output.abort(cause);
  }

  #submit(note: number): void {
    if (!this.#started) this.#output.write(this.#head);
    this.#started = true;
    const length = this.#length;
    this.#length = 0;
    this.#stage.submit(length, note);
  }
}
