/**
 * The forward stage of a wrap filter: the whole input, as it came, through the filter's encoder into the DATA
 * frames of a layer. The input is parsed beside that, for the image id and because END of the layer may only be
 * written when END of the input was seen and checked.
 */
import { readRecord } from '../image/record.ts';
import type { Frame } from '../stream/frame.ts';
import { maxData } from '../stream/frame.ts';
import { kinds } from '../stream/kind.ts';
import { encodeMeta } from '../stream/meta.ts';
import type { Sink } from '../stream/sink.ts';
import { StreamParser } from '../stream/stream-parser.ts';
import { StreamWriter } from '../stream/stream-writer.ts';
import { failStream } from './fail.ts';
import { watchFrames } from './watch-frames.ts';

export interface WrapParts {
  name: string;
  version: string;
  encode(output: Sink): { params: object; sink: Sink };
}

const emptyMeta = encodeMeta({});

/** Takes encoded bytes, writes LAYER before the first of them and END behind the last. */
class LayerWriter implements Sink {
  readonly #writer: StreamWriter;
  readonly #downstream: Sink;
  readonly #stage: string;
  layer: object | undefined;

  constructor(stage: string, downstream: Sink) {
    this.#stage = stage;
    this.#downstream = downstream;
    this.#writer = new StreamWriter(downstream);
  }

  write(chunk: Uint8Array): void {
    this.#open();
    for (let at = 0; at < chunk.length; at += maxData) {
      this.#writer.frame(kinds.data, 1, emptyMeta, chunk.subarray(at, at + maxData));
    }
  }

  end(): void {
    this.#open();
    this.#writer.end();
    this.#downstream.end();
  }

  abort(cause: unknown): void {
    failStream(this.#writer, this.#stage, cause, this.#downstream);
  }

  #open(): void {
    if (!this.#writer.untouched) return;
    if (!this.layer) throw new Error(`${this.#stage}: the encoder wrote before it got input`);
    this.#writer.record(kinds.layer, this.layer);
  }
}

class WrapStage implements Sink {
  readonly #parts: WrapParts;
  readonly #parser = new StreamParser(
    watchFrames((frame) => this.#frame(frame)),
    {
      unknownCritical: true,
    },
  );
  readonly #encoder: Sink;
  readonly #params: object;
  readonly #output: LayerWriter | undefined;
  /** Input from before the first frame was whole. */
  #held: Uint8Array[] | undefined = [];
  #imageId: string | undefined;

  constructor(parts: WrapParts, downstream: Sink, raw: boolean) {
    this.#parts = parts;
    this.#output = raw ? undefined : new LayerWriter(parts.name, downstream);
    const { params, sink } = parts.encode(this.#output ?? downstream);
    this.#params = params;
    this.#encoder = sink;
  }

  write(chunk: Uint8Array): void {
    this.#parser.write(chunk);
    if (!this.#held) {
      this.#encoder.write(chunk);
    } else if (this.#imageId === undefined) {
      this.#held.push(new Uint8Array(chunk));
    } else {
      const { name: filter, version } = this.#parts;
      if (this.#output) {
        this.#output.layer = { filter, version, params: this.#params, imageId: this.#imageId };
      }
      for (const held of this.#held) this.#encoder.write(held);
      this.#held = undefined;
      this.#encoder.write(chunk);
    }
  }

  end(): void {
    this.#parser.end();
    this.#encoder.end();
  }

  /** The encoder frees what it holds and passes the abort to the layer's writer, which says ERROR. */
  abort(cause: unknown): void {
    this.#encoder.abort(cause);
  }

  #frame(frame: Frame): void {
    if (frame.kind === kinds.hello) this.#imageId = readRecord('hello', frame).imageId;
    else if (frame.kind === kinds.layer) this.#imageId = readRecord('layer', frame).imageId;
  }
}

/** Stream bytes in, the layer's stream bytes out (with `raw`, the bare encoding). */
export function wrapStage(parts: WrapParts, downstream: Sink, raw: boolean): Sink {
  return new WrapStage(parts, downstream, raw);
}
