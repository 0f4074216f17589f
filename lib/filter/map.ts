/**
 * How a map filter runs: frames of the kinds it owns go through its stream-chain functions, all others pass on
 * the fast path, in order. HELLO gets the filter's line in `history`.
 */
import { many, none } from 'stream-chain/defs.js';
import { fun } from 'stream-chain/fun.js';
import { readRecord } from '../image/record.ts';
import { PodError } from '../stream/error.ts';
import type { Frame } from '../stream/frame.ts';
import { kindName, kinds } from '../stream/kind.ts';
import type { Sink } from '../stream/sink.ts';
import { type FrameHandler, StreamParser } from '../stream/stream-parser.ts';
import { StreamWriter } from '../stream/stream-writer.ts';
import { failStream } from './fail.ts';
import { Item } from './item.ts';

export { many, none };

/** What a function of a map filter may return: one item, `none`, or `many([...])`. Never a promise. */
export type MapResult = Item | typeof none | ReturnType<typeof many>;
export type MapFunction = (item: Item) => MapResult;

export interface MapParts {
  name: string;
  version: string;
  /** Kinds the functions get to see. */
  owns: ReadonlySet<number>;
  functions: readonly MapFunction[];
  /** Public parameters for HELLO.history; undefined for none. */
  params: object | undefined;
}

type Chain = (value: unknown) => { values: unknown[] } | Promise<unknown>;

class MapHandler implements FrameHandler {
  readonly #parts: MapParts;
  readonly #downstream: Sink;
  readonly #writer: StreamWriter;
  readonly #chain: Chain;

  constructor(parts: MapParts, downstream: Sink) {
    this.#parts = parts;
    this.#downstream = downstream;
    this.#writer = new StreamWriter(downstream);
    this.#chain = fun(...(parts.functions as never[])) as unknown as Chain;
  }

  frame(frame: Frame): void {
    const { kind } = frame;
    // END is ours to write, when our own input is known to be whole; ERROR surfaces when the parser ends.
    if (kind === kinds.end || kind === kinds.error) return;
    if (kind === kinds.layer) {
      const layer = readRecord('layer', frame).filter;
      throw new PodError(
        'usage',
        `${this.#parts.name} reads images, but this one is inside the layer ${layer}`,
        `put ${this.#parts.name} before ${layer}, or undo it first: pod-filter --undo ${layer}`,
      );
    }
    if (kind === kinds.hello) this.#hello(frame);
    else if (this.#parts.owns.has(kind)) this.#run(Item.fromFrame(frame));
    else this.#writer.forward(frame);
  }

  end(): void {
    this.#run(none);
    this.#writer.end();
    this.#downstream.end();
  }

  abort(cause: unknown): void {
    failStream(this.#writer, this.#parts.name, cause, this.#downstream);
  }

  #hello(frame: Frame): void {
    const { name, version, params } = this.#parts;
    const { history } = readRecord('hello', frame);
    const line = params === undefined ? { filter: name, version } : { filter: name, version, params };
    if (history.length >= 256) throw new PodError('limit', 'the image went through 256 map filters already');
    // The functions see HELLO as it came; the line is added to what they make of it.
    const own = this.#parts.owns.has(kinds.hello);
    const items = own ? this.#collect(Item.fromFrame(frame)) : [Item.fromFrame(frame)];
    for (const item of items) {
      const out =
        item.kind === kinds.hello ? item.with({ meta: { ...item.meta, history: [...history, line] } }) : item;
      out.writeTo(this.#writer);
    }
  }

  #run(value: Item | typeof none): void {
    for (const item of this.#collect(value)) item.writeTo(this.#writer);
  }

  #collect(value: Item | typeof none): Item[] {
    const result = this.#chain(value);
    if (!('values' in result))
      throw new Error(`${this.#parts.name}: a map filter's function must be synchronous`);
    for (const item of result.values) {
      if (!(item instanceof Item))
        throw new Error(`${this.#parts.name}: a map filter's function returned no item`);
    }
    return result.values as Item[];
  }
}

/** The stage: stream bytes in, stream bytes out. */
export function mapStage(parts: MapParts, downstream: Sink): Sink {
  const handler = new MapHandler(parts, downstream);
  return new StreamParser(handler);
}

/** Numbers of kinds by name, for MapParts.owns. */
export function kindNumbers(names: readonly (keyof typeof kinds)[]): Set<number> {
  const reserved: number[] = [kinds.layer, kinds.data, kinds.end, kinds.error];
  const numbers = names.map((name) => kinds[name]);
  const bad = numbers.find((number) => reserved.includes(number));
  if (bad !== undefined) throw new Error(`a map filter cannot own ${kindName(bad)}`);
  return new Set(numbers);
}
