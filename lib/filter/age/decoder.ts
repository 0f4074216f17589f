import { PodError } from '../../stream/error.ts';
import type { Sink } from '../../stream/sink.ts';
import { ParallelStage } from '../parallel/stage.ts';
import { type Header, headerEnd, maxHeader, parseHeader } from './header.ts';
import { derivePayloadKey } from './payload-key.ts';
import { dropSecret } from './sodium.ts';
import { batch, chunkSize, lastBatch, makeOpenJob, sealedSize } from './stream.ts';

const batchInput = batch * sealedSize;
const nonceLength = 16;

const damaged = (cause?: unknown): PodError =>
  new PodError(
    'damaged',
    'the encrypted data are damaged or cut',
    'load the image again or use an older generation',
    { cause },
  );
const truncated = (): PodError =>
  new PodError(
    'truncated',
    'the encrypted data end too early',
    'the command before this one stopped early: see its own message',
  );

/** An age file in, what it holds out. `unwrap` finds the file key; nothing is released before it did. */
export class AgeDecoder implements Sink {
  readonly #output: Sink;
  readonly #unwrap: (header: Header) => Buffer;
  readonly #forget: () => void;
  #head = Buffer.alloc(0);
  #payload: { stage: ParallelStage; wipe: () => void } | undefined;
  #length = 0;
  #batches = 0;

  /** `forget` drops the keys; called as soon as the file key is known, or will not be. */
  constructor(unwrap: (header: Header) => Buffer, forget: () => void, output: Sink) {
    this.#unwrap = unwrap;
    this.#forget = forget;
    this.#output = output;
  }

  write(chunk: Uint8Array): void {
    const rest = this.#payload ? chunk : this.#readHead(chunk);
    if (!this.#payload) return;
    const { stage } = this.#payload;
    for (let at = 0; at < rest.length; ) {
      // Opened only when more comes: the last chunk has a nonce of its own.
      if (this.#length === batchInput) this.#submit(stage, 0);
      const part = rest.subarray(at, at + batchInput - this.#length);
      stage.input.set(part, this.#length);
      this.#length += part.length;
      at += part.length;
    }
  }

  end(): void {
    if (!this.#payload || (this.#length === 0 && this.#batches === 0)) throw truncated();
    const { stage, wipe } = this.#payload;
    this.#submit(stage, lastBatch);
    stage.finish();
    wipe();
    this.#output.end();
  }

  abort(cause: unknown): void {
    this.#forget();
    this.#payload?.stage.settle();
    this.#payload?.wipe();
    this.#output.abort(cause);
  }

  #submit(stage: ParallelStage, note: number): void {
    const length = this.#length;
    this.#length = 0;
    this.#batches += 1;
    stage.submit(length, note);
  }

  /** Collect the header and the nonce; returns what lies behind them. */
  #readHead(chunk: Uint8Array): Uint8Array {
    const before = this.#head.length;
    // A header is text; more than its limit is never held.
    this.#head = Buffer.concat([this.#head, chunk.subarray(0, maxHeader + nonceLength)]);
    const end = headerEnd(this.#head);
    if (end === undefined || this.#head.length < end + nonceLength) {
      if (end === undefined && this.#head.length > maxHeader) {
        throw new PodError(
          'limit',
          `the header of the encrypted data is longer than ${maxHeader} bytes`,
          'the stream is damaged or hostile',
        );
      }
      return new Uint8Array(0);
    }
    const fileKey = this.#unwrap(parseHeader(this.#head.subarray(0, end)));
    this.#forget();
    const { key, wipe } = derivePayloadKey(fileKey, this.#head.subarray(end, end + nonceLength));
    dropSecret(fileKey);
    const open = makeOpenJob({ key });
    const stage = new ParallelStage({
      inputSize: batchInput,
      outputSize: batch * chunkSize,
      job: (input, output, index, note) => {
        try {
          return open(input, output, index, note);
        } catch (cause) {
          throw this.#judge(() => open(input, output, index, 0), note, cause);
        }
      },
      source: { module: 'lib/filter/age/stream.js', make: 'makeOpenJob', params: { key } },
      output: (bytes) => this.#output.write(bytes),
    });
    this.#payload = { stage, wipe };
    return chunk.subarray(end + nonceLength - before);
  }

  /** A last batch that opens as one in the middle was cut at a chunk's border. */
  #judge(openAsMiddle: () => unknown, note: number, cause: unknown): PodError {
    if (note !== lastBatch) return damaged(cause);
    try {
      openAsMiddle();
      return truncated();
    } catch {
      return damaged(cause);
    }
  }
}
