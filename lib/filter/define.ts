/**
 * How a filter is written: one call of defineFilter() in filters/NAME.ts, exported as `filter`.
 *
 * A *map* filter is a list of synchronous stream-chain functions over the frames it owns; a *wrap* filter is a
 * codec of bytes (`encode`, `decode`), and the layer around it is made here. Both become the same pieces, which
 * a program of its own (run.ts), a chain in one process (chain.ts) and restart (open-layers.ts) all use.
 */
import { PodError } from '../stream/error.ts';
import type { KindName } from '../stream/kind.ts';
import type { Sink } from '../stream/sink.ts';
import { type Gather, kindNumbers, type MapFunction, mapStage } from './map.ts';
import { type AnyValues, filterNamePattern, type OptionSpecs, type OptionValues } from './options.ts';
import { wrapStage } from './wrap.ts';

export { Item } from './item.ts';
export type { Gather, MapFunction, MapResult } from './map.ts';
export { many, none } from './map.ts';
export type { AnyValues, OptionSpec, OptionSpecs, OptionValues } from './options.ts';

interface Common<O extends OptionSpecs> {
  name: string;
  /** The filter's own version: goes into LAYER or HELLO.history. */
  version: string;
  /** One line, lower case. */
  summary: string;
  options: O;
}

export interface MapSpec<O extends OptionSpecs> extends Common<O> {
  class: 'map';
  /** Kinds the functions see (`hello` too, when named). All others pass untouched, in order. */
  owns: readonly KindName[];
  /**
   * The functions, made once a stream; what they remember lives in their closure. A function gets an Item and
   * returns one, `none` (drop it) or `many([...])`; to act at the end of the stream it is a stream-chain
   * `flushable`. The same Item returned leaves byte for byte as it came. A filter that must look ahead adds a
   * `gather`.
   */
  map(
    options: OptionValues<O>,
  ): MapFunction | readonly MapFunction[] | { gather: Gather; functions: readonly MapFunction[] };
  /** Public parameters for HELLO.history. */
  params?(options: OptionValues<O>): object | undefined;
}

export interface WrapSpec<O extends OptionSpecs> extends Common<O> {
  class: 'wrap';
  /**
   * Make an encoder. Options that cannot work (a missing key) throw here, before any input is read; nothing is
   * written to `output` before `sink` is used. `sink` takes the bytes of the inner stream; its end() finishes
   * the encoding and calls output.end(), its abort() frees what it holds and calls output.abort().
   */
  encode(options: OptionValues<O>, output: Sink): { params: object; sink: Sink };
  /**
   * Make a decoder: a Sink of encoded bytes that writes inner bytes to `output`. `params` is LAYER.params, a
   * stranger's data, or undefined for a bare file. Its end() throws when the encoding is not complete.
   */
  decode(params: unknown, options: OptionValues<O>, output: Sink): Sink;
  /** Whether a bare file that starts with these bytes (32, or fewer when it is shorter) is of this encoding. */
  recognises?(start: Uint8Array): boolean;
}

/** What a filter is to the rest of podstream. */
export interface FilterDefinition {
  readonly name: string;
  readonly version: string;
  readonly class: 'map' | 'wrap';
  readonly summary: string;
  readonly options: OptionSpecs;
  /** The forward stage: takes a stream, writes a stream (with `raw`, a wrap's encoding without the layer). */
  forward(options: AnyValues, downstream: Sink, how?: { raw?: boolean }): Sink;
  /** Decoder of a layer's joined DATA payload, or of a bare file when `params` is undefined. */
  undo(params: unknown, options: AnyValues, downstream: Sink): Sink;
  recognises(start: Uint8Array): boolean;
}

export function defineFilter<const O extends OptionSpecs>(spec: MapSpec<O> | WrapSpec<O>): FilterDefinition {
  const { name, version, summary, options } = spec;
  if (!filterNamePattern.test(name)) throw new Error(`not a filter's name: ${name}`);
  const common = { name, version, summary, options, class: spec.class };
  if (spec.class === 'map') {
    const owns = kindNumbers(spec.owns);
    return {
      ...common,
      forward(values, downstream, how) {
        if (how?.raw) {
          throw new PodError('usage', `--raw is for wrap filters, ${name} is a map filter`);
        }
        const typed = values as OptionValues<O>;
        const made = spec.map(typed);
        const parts =
          typeof made === 'object' && 'gather' in made ? made : { functions: [made].flat() as MapFunction[] };
        return mapStage({ name, version, owns, params: spec.params?.(typed), ...parts }, downstream);
      },
      undo() {
        throw new PodError(
          'usage',
          `${name} is a map filter: it converts, and cannot be undone`,
          'restart needs no undoing of it',
        );
      },
      recognises: () => false,
    };
  }
  return {
    ...common,
    forward(values, downstream, how) {
      const encode = (output: Sink) => spec.encode(values as OptionValues<O>, output);
      return wrapStage({ name, version, encode }, downstream, how?.raw ?? false);
    },
    undo: (params, values, downstream) => spec.decode(params, values as OptionValues<O>, downstream),
    recognises: (start) => spec.recognises?.(start) ?? false,
  };
}
