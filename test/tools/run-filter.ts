/** Run a filter in this process over bytes cut in some way. */
import type { AnyValues, FilterDefinition } from '../../lib/filter/define.ts';
import { defaultValues } from '../../lib/filter/options.ts';
import type { Sink } from '../../lib/stream/sink.ts';

export interface Ran {
  output: Buffer;
  error: unknown;
}

/** Sizes of the chunks that are pushed; undefined: one chunk. */
export type Cuts = (length: number) => Iterable<number>;

export const wholeInput: Cuts = (length) => [length];
export const byteByByte: Cuts = (length) => Array.from({ length }, () => 1);
export function randomCuts(seed: number, most: number): Cuts {
  return function* (length) {
    let state = seed;
    for (let at = 0; at < length; ) {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      const size = 1 + ((state >>> 8) % most);
      yield size;
      at += size;
    }
  };
}

export function runFilter(
  filter: FilterDefinition,
  input: Uint8Array,
  options: AnyValues = {},
  cuts: Cuts = wholeInput,
): Ran {
  const chunks: Buffer[] = [];
  const sink: Sink = { write: (chunk) => void chunks.push(Buffer.from(chunk)), end() {}, abort() {} };
  const stage = filter.forward({ ...defaultValues(filter.options), ...options }, sink);
  let error: unknown;
  try {
    let at = 0;
    for (const size of cuts(input.length)) {
      // A copy that is spoilt afterwards: whoever keeps a chunk is found out.
      const chunk = Buffer.from(input.subarray(at, at + size));
      stage.write(chunk);
      chunk.fill(0xee);
      at += size;
    }
    stage.end();
  } catch (cause) {
    error = cause;
    stage.abort(cause);
  }
  return { output: Buffer.concat(chunks), error };
}
