/**
 * Undoing one layer: LAYER and DATA frames in (or, from a stock tool, the bare encoding), the inner stream out.
 */
import { readRecord } from '../image/record.ts';
import { PodError } from '../stream/error.ts';
import { type Frame, preamble } from '../stream/frame.ts';
import { kindName, kinds } from '../stream/kind.ts';
import type { Sink } from '../stream/sink.ts';
import { type FrameHandler, StreamParser } from '../stream/stream-parser.ts';
import type { FilterDefinition } from './define.ts';
import type { AnyValues } from './options.ts';
import { WholeStream } from './whole-stream.ts';

/** Bytes that a filter gets to see to recognise a bare file. */
export const startLength = 32;

class LayerReader implements FrameHandler {
  readonly #definition: FilterDefinition;
  readonly #options: AnyValues;
  readonly #inner: WholeStream;
  #decoder: Sink | undefined;

  constructor(definition: FilterDefinition, options: AnyValues, downstream: Sink) {
    this.#definition = definition;
    this.#options = options;
    this.#inner = new WholeStream(definition.name, downstream);
  }

  frame(frame: Frame): void {
    switch (frame.kind) {
      case kinds.data:
        this.#decoder!.write(frame.data);
        return;
      case kinds.layer: {
        const { filter, params } = readRecord('layer', frame);
        const { name } = this.#definition;
        if (filter !== name) {
          throw new PodError(
            'usage',
            `the outermost layer is ${filter}, not ${name}`,
            `undo it first: pod-filter --undo ${filter} ${name}`,
          );
        }
        this.#decoder = this.#definition.undo(params, this.#options, this.#inner);
        return;
      }
      case kinds.hello:
        throw new PodError(
          'usage',
          `there is no layer ${this.#definition.name} to undo: the stream is a plain image`,
          'leave out --undo',
        );
      case kinds.end:
      case kinds.error:
        return;
      default:
        // Unknown frames that are not critical belong to whoever added them to the layer: they go with it.
        if (frame.critical) {
          throw new PodError(
            'damaged',
            `frame ${frame.seq} is a ${kindName(frame.kind) ?? frame.kind} record inside a layer`,
          );
        }
    }
  }

  end(): void {
    this.#decoder!.end();
  }

  abort(cause: unknown): void {
    if (this.#decoder) this.#decoder.abort(cause);
    else this.#inner.abort(cause);
  }
}

/** Collects the first bytes, lets `choose` make the Sink that takes them and all that follows. */
export class Peek implements Sink {
  readonly #length: number;
  readonly #choose: (start: Uint8Array) => Sink;
  readonly #downstream: Sink;
  #start: Uint8Array<ArrayBufferLike> = new Uint8Array(0);
  #next: Sink | undefined;

  constructor(length: number, choose: (start: Uint8Array) => Sink, downstream: Sink) {
    this.#length = length;
    this.#choose = choose;
    this.#downstream = downstream;
  }

  write(chunk: Uint8Array): void {
    if (this.#next) {
      this.#next.write(chunk);
      return;
    }
    this.#start = this.#start.length === 0 ? new Uint8Array(chunk) : Buffer.concat([this.#start, chunk]);
    if (this.#start.length >= this.#length) this.#open();
  }

  end(): void {
    (this.#next ?? this.#open()).end();
  }

  abort(cause: unknown): void {
    (this.#next ?? this.#downstream).abort(cause);
  }

  #open(): Sink {
    this.#next = this.#choose(this.#start.subarray(0, this.#length));
    if (this.#start.length > 0) this.#next.write(this.#start);
    this.#start = new Uint8Array(0);
    return this.#next;
  }
}

/** Whether the bytes can be the start of a pod stream. */
export function looksLikeStream(start: Uint8Array): boolean {
  return start.subarray(0, 8).every((byte, index) => byte === preamble[index]);
}

/** The `--undo` stage of a wrap filter: a layer's stream, or a bare file of its encoding, in; inner stream out. */
export function undoStage(definition: FilterDefinition, options: AnyValues, downstream: Sink): Sink {
  if (definition.class === 'map') definition.undo(undefined, options, downstream);
  const choose = (start: Uint8Array): Sink => {
    if (start.length > 0 && !looksLikeStream(start) && definition.recognises(start)) {
      return definition.undo(undefined, options, new WholeStream(definition.name, downstream));
    }
    return new StreamParser(new LayerReader(definition, options, downstream));
  };
  return new Peek(startLength, choose, new WholeStream(definition.name, downstream));
}
