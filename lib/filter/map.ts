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

/**
 * Looking ahead: frames are kept, owned or not, until the first for which `ready` says true; what was kept then
 * goes through `take` in one go, and that frame and all later ones go the usual way. An image whose frames are
 * never ready is taken at its end.
 */
export interface Gather {
  /** Most bytes kept; more is exit 9. */
  limit: number;
  /** What the user can do when it is more. */
  hint: string;
  /** Asked once for each frame; the item is valid until it returns. */
  ready(item: Item): boolean;
  /** What leaves instead of the kept items. */
  take(items: readonly Item[]): readonly Item[];
}

export interface MapParts {
  name: string;
  version: string;
  /** Kinds the functions get to see. */
  owns: ReadonlySet<number>;
  functions: readonly MapFunction[];
  gather?: Gather | undefined;
  /** Public parameters for HELLO.history; undefined for none. */
  params: object | undefined;
}

type Chain = (value: unknown) => { values: unknown[] } | Promise<unknown>;

class MapHandler implements FrameHandler {
  readonly #parts: MapParts;
  readonly #downstream: Sink;
  readonly #writer: StreamWriter;
  readonly #chain: Chain;
  #kept: Item[] | undefined;
  #keptBytes = 0;

  constructor(parts: MapParts, downstream: Sink) {
    this.#parts = parts;
    this.#downstream = downstream;
    this.#writer = new StreamWriter(downstream);
    this.#chain = fun(...(parts.functions as never[])) as unknown as Chain;
    this.#kept = parts.gather ? [] : undefined;
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
    if (kind === kinds.hello) this.#checkHello(frame);
    if (this.#kept && this.#keep(this.#kept, frame)) return;
    if (this.#parts.owns.has(kind)) this.#run(Item.fromFrame(frame));
    else if (kind === kinds.hello) this.#send(Item.fromFrame(frame));
    else this.#writer.forward(frame);
  }

  end(): void {
    this.#release();
    this.#run(none);
    this.#writer.end();
    this.#downstream.end();
  }

  abort(cause: unknown): void {
    failStream(this.#writer, this.#parts.name, cause, this.#downstream);
  }

  #checkHello(frame: Frame): void {
    const { history } = readRecord('hello', frame);
    if (history.length >= 256) throw new PodError('limit', 'the image went through 256 map filters already');
  }

  /** Whether the frame is kept for later. */
  #keep(kept: Item[], frame: Frame): boolean {
    const { limit, hint, ready } = this.#parts.gather!;
    if (ready(Item.fromFrame(frame))) {
      this.#release();
      return false;
    }
    this.#keptBytes += frame.raw.length;
    if (this.#keptBytes > limit) {
      throw new PodError(
        'limit',
        `${this.#parts.name} would have to keep more than ${limit} bytes of the image`,
        hint,
      );
    }
    kept.push(Item.fromFrame(frame.copy()));
    return true;
  }

  #release(): void {
    const kept = this.#kept;
    this.#kept = undefined;
    if (!kept || kept.length === 0) return;
    for (const item of this.#parts.gather!.take(kept)) this.#send(item);
  }

  /** Send an item on; HELLO gets the filter's line in its history. */
  #send(item: Item): void {
    if (item.kind !== kinds.hello) {
      item.writeTo(this.#writer);
      return;
    }
    const { name, version, params } = this.#parts;
    const line = params === undefined ? { filter: name, version } : { filter: name, version, params };
    const history = item.meta.history as unknown[];
    item.with({ meta: { ...item.meta, history: [...history, line] } }).writeTo(this.#writer);
  }

  #run(value: Item | typeof none): void {
    for (const item of this.#collect(value)) this.#send(item);
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
