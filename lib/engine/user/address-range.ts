/** Ranges of user memory. */
import { PodError } from '../../stream/error.ts';

/** [start, end). */
export interface Range {
  start: bigint;
  end: bigint;
}

/** End of user memory. */
export const highest = 0x7ffffffff000n;

export function overlaps(a: Range, b: Range): boolean {
  return a.start < b.end && b.start < a.end;
}

/** An address where `length` bytes are free among the ranges, with a page of distance. */
export function findGap(ranges: readonly Range[], length: bigint): bigint {
  const sorted = [...ranges].sort((a, b) => (a.start < b.start ? -1 : 1));
  const margin = 1n << 20n;
  let at = 0x10000000n;
  for (const range of sorted) {
    if (range.start >= at + length + 2n * margin) return at + margin;
    if (range.end > at) at = (range.end + 0xfffn) & ~0xfffn;
  }
  if (at + length + 2n * margin < highest) return at + margin;
  throw new PodError('cannot-restart', 'the address space of the session has no gap to work from');
}
