import { Transform, type TransformCallback } from 'node:stream';
import type { Sink } from '../stream/sink.ts';

/**
 * A Node Transform around a stage made of Sinks. What the stage writes while it takes one chunk is handed on
 * behind it; a stage holds at most a few frames, so this stays bounded. Stages work synchronously: the event loop
 * waits while one takes a chunk.
 */
export class SinkTransform extends Transform {
  readonly #stage: Sink;
  #open = true;

  constructor(make: (output: Sink) => Sink) {
    super({ readableHighWaterMark: 1 << 20, writableHighWaterMark: 1 << 20 });
    this.#stage = make({
      // A chunk is the stage's own again when write() returns.
      write: (chunk) => void this.push(Buffer.from(chunk)),
      end: () => undefined,
      abort: () => undefined,
    });
  }

  override _transform(chunk: Uint8Array, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#try(done, () => this.#stage.write(chunk));
  }

  override _flush(done: TransformCallback): void {
    this.#try(done, () => {
      this.#stage.end();
      this.#open = false;
    });
  }

  override _destroy(cause: Error | null, done: (error?: Error | null) => void): void {
    this.#abort(cause ?? new Error('the stream was destroyed'));
    done(cause);
  }

  #try(done: TransformCallback, act: () => void): void {
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
    this.#stage.abort(cause);
  }
}
