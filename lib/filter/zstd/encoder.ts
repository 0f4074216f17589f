import type { Sink } from '../../stream/sink.ts';
import { ParallelStage } from '../parallel/stage.ts';
import { inputOfFrame, makeCompressJob } from './jobs.ts';

/** Bytes in, a zstd file of independent frames out, each with its content size. */
export class ZstdEncoder implements Sink {
  readonly #output: Sink;
  readonly #level: number;
  #stage: ParallelStage | undefined;
  #length = 0;

  constructor(level: number, output: Sink) {
    this.#level = level;
    this.#output = output;
  }

  write(chunk: Uint8Array): void {
    const stage = (this.#stage ??= this.#start());
    for (let at = 0; at < chunk.length; ) {
      const part = chunk.subarray(at, at + inputOfFrame - this.#length);
      stage.input.set(part, this.#length);
      this.#length += part.length;
      at += part.length;
      if (this.#length === inputOfFrame) this.#submit(stage);
    }
  }

  end(): void {
    const stage = (this.#stage ??= this.#start());
    if (this.#length > 0) this.#submit(stage);
    stage.finish();
    this.#output.end();
  }

  abort(cause: unknown): void {
    this.#output.abort(cause);
  }

  #submit(stage: ParallelStage): void {
    const length = this.#length;
    this.#length = 0;
    stage.submit(length);
  }

  #start(): ParallelStage {
    const params = { level: this.#level };
    return new ParallelStage({
      inputSize: inputOfFrame,
      outputSize: 1 << 20,
      job: makeCompressJob(params),
      source: { module: 'lib/filter/zstd/jobs.js', make: 'makeCompressJob', params },
      output: (bytes) => this.#output.write(bytes),
    });
  }
}
