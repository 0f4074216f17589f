import { Writable } from 'node:stream';
import type { Sink } from '../stream/sink.ts';

/** A Node Writable around a Sink. Destroyed before its end, it aborts the sink. */
export class SinkWritable extends Writable {
  readonly #sink: Sink;
  #open = true;

  constructor(sink: Sink) {
    super({ highWaterMark: 1 << 20 });
    this.#sink = sink;
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#try(done, () => this.#sink.write(chunk));
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#try(done, () => {
      this.#sink.end();
      this.#open = false;
    });
  }

  override _destroy(cause: Error | null, done: (error?: Error | null) => void): void {
    this.#abort(cause ?? new Error('the stream was destroyed'));
    done(cause);
  }

  #try(done: (error?: Error | null) => void, act: () => void): void {
    try {
      act();
    } catch (cause) {
      this.#abort(cause);
      done(cause as Error);
      return;
    }
    done();
  }

  #abort(cause: unknown): void {
    if (!this.#open) return;
    this.#open = false;
    this.#sink.abort(cause);
  }
}
