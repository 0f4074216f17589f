import { Transform, type TransformCallback } from 'node:stream';
import type { Sink } from '../stream/sink.ts';
import { Stage } from './stage.ts';

/**
 * A Node Transform around a stage made of Sinks. What the stage writes while it takes one chunk is handed on
 * behind it; a stage holds at most a few frames, so this stays bounded. Stages work synchronously: the event loop
 * waits while one takes a chunk.
 */
export class SinkTransform extends Transform {
  readonly #stage: Stage;

  constructor(make: (output: Sink) => Sink) {
    super({ readableHighWaterMark: 1 << 20, writableHighWaterMark: 1 << 20 });
    const output: Sink = {
      // A chunk is the stage's own again when write() returns.
      write: (chunk) => void this.push(Buffer.from(chunk)),
      end: () => undefined,
      abort: () => undefined,
    };
    this.#stage = new Stage(make(output));
  }

  override _transform(chunk: Uint8Array, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#stage.write(chunk, done);
  }

  override _flush(done: TransformCallback): void {
    this.#stage.end(done);
  }

  override _destroy(cause: Error | null, done: (error?: Error | null) => void): void {
    this.#stage.destroy(cause, done);
  }
}
