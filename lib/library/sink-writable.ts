import { Writable } from 'node:stream';
import type { Sink } from '../stream/sink.ts';
import { Stage } from './stage.ts';

/** A Node Writable around a Sink. Destroyed before its end, it aborts the sink. */
export class SinkWritable extends Writable {
  readonly #stage: Stage;

  constructor(sink: Sink) {
    super({ highWaterMark: 1 << 20 });
    this.#stage = new Stage(sink);
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#stage.write(chunk, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#stage.end(done);
  }

  override _destroy(cause: Error | null, done: (error?: Error | null) => void): void {
    this.#stage.destroy(cause, done);
  }
}
