/** Decompression of a layer (many small frames, on every core) and of a bare zstd file (any frames, bounded window). */
import { PodError } from '../../stream/error.ts';
import type { Sink } from '../../stream/sink.ts';
import { ParallelStage } from '../parallel/stage.ts';
import { zstd } from './binding.ts';
import { makeDecompressJob, maxCompressed, maxContent } from './jobs.ts';
import { FrameSplitter } from './splitter.ts';

const damaged = (cause: unknown): PodError =>
  new PodError(
    'damaged',
    'the compressed data are damaged',
    'load the image again or use an older generation',
    { cause },
  );

export class ZstdLayerDecoder implements Sink {
  readonly #output: Sink;
  readonly #splitter: FrameSplitter;
  readonly #stage: ParallelStage;

  constructor(output: Sink) {
    this.#output = output;
    const decompress = makeDecompressJob();
    this.#stage = new ParallelStage({
      inputSize: maxCompressed,
      outputSize: maxContent,
      job: (...job) => {
        try {
          return decompress(...job);
        } catch (cause) {
          throw damaged(cause);
        }
      },
      source: { module: 'lib/filter/zstd/jobs.js', make: 'makeDecompressJob', params: undefined },
      output: (bytes) => this.#output.write(bytes),
    });
    this.#splitter = new FrameSplitter((frame, contentSize) => {
      this.#stage.input.set(frame);
      this.#stage.submit(frame.length, contentSize);
    });
  }

  write(chunk: Uint8Array): void {
    this.#splitter.write(chunk);
  }

  end(): void {
    this.#splitter.end();
    this.#stage.finish();
    this.#output.end();
  }

  abort(cause: unknown): void {
    this.#output.abort(cause);
  }
}

/** 64 MiB: what `zstd -19` and the usual `--long` of smaller files need, and what still is bounded memory. */
const windowLog = 26;

export class ZstdFileDecoder implements Sink {
  readonly #output: Sink;
  readonly #context;
  readonly #buffer = new Uint8Array(256 << 10);
  /** What zstd last said: 0 at the end of a frame. */
  #wants = 0;

  constructor(output: Sink) {
    this.#output = output;
    const { DCtx, DParameter } = zstd();
    this.#context = new DCtx();
    this.#context.setParameter(DParameter.windowLogMax, windowLog);
  }

  write(chunk: Uint8Array): void {
    let rest = chunk;
    let full = false;
    while (rest.length > 0 || full) {
      const [wants, made, taken] = this.#step(rest);
      this.#wants = wants;
      rest = rest.subarray(taken);
      full = made === this.#buffer.length && wants !== 0;
      if (made > 0) this.#output.write(this.#buffer.subarray(0, made));
    }
  }

  end(): void {
    if (this.#wants !== 0) {
      throw new PodError(
        'truncated',
        'the zstd file ends in the middle of a frame',
        'copy it again: the rest of it is missing',
      );
    }
    this.#output.end();
  }

  abort(cause: unknown): void {
    this.#output.abort(cause);
  }

  #step(input: Uint8Array): [number, number, number] {
    try {
      return this.#context.decompressStream(this.#buffer, input);
    } catch (cause) {
      if (/memory/i.test((cause as Error).message)) {
        throw new PodError(
          'limit',
          `the zstd file needs a window of more than ${1 << (windowLog - 20)} MiB`,
          'decompress it with zstd -d --long=31 and give the result',
          { cause },
        );
      }
      throw damaged(cause);
    }
  }
}
