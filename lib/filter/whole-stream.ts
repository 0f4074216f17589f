import type { Frame } from '../stream/frame.ts';
import { kinds } from '../stream/kind.ts';
import type { Sink } from '../stream/sink.ts';
import { StreamParser } from '../stream/stream-parser.ts';
import { StreamWriter } from '../stream/stream-writer.ts';
import { failStream } from './fail.ts';
import { watchFrames } from './watch-frames.ts';

/**
 * Carries a stream on byte for byte, but keeps END back until end(): what comes out of a layer may only be
 * called whole when the layer around it was whole. On a failure ERROR takes END's place.
 */
export class WholeStream implements Sink {
  readonly #stage: string;
  readonly #downstream: Sink;
  readonly #writer: StreamWriter;
  readonly #parser = new StreamParser(
    watchFrames((frame) => this.#frame(frame)),
    {
      unknownCritical: true,
    },
  );
  #end: Frame | undefined;

  constructor(stage: string, downstream: Sink) {
    this.#stage = stage;
    this.#downstream = downstream;
    this.#writer = new StreamWriter(downstream);
  }

  write(chunk: Uint8Array): void {
    this.#parser.write(chunk);
  }

  #frame(frame: Frame): void {
    if (this.#writer.untouched) this.#writer.usePreamble(this.#parser.preamble);
    if (frame.kind === kinds.end) this.#end = frame.copy();
    else if (frame.kind !== kinds.error) this.#writer.forward(frame);
  }

  end(): void {
    this.#parser.end();
    this.#writer.forward(this.#end!);
    this.#downstream.end();
  }

  abort(cause: unknown): void {
    failStream(this.#writer, this.#stage, cause, this.#downstream);
  }
}
