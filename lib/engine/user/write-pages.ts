/**
 * Memory into the stream: large reads into one buffer, frames straight out of it. Pages that are all zero are left
 * out; a fresh mapping has them anyway.
 */
import { native } from '../../../native/index.ts';
import { criticalFlag, maxData } from '../../stream/frame.ts';
import { kinds } from '../../stream/kind.ts';
import { encodeMeta } from '../../stream/meta.ts';
import type { StreamWriter } from '../../stream/stream-writer.ts';
import { pageSize } from './abi.ts';
import { findPages, type PageSource } from './collect-memory.ts';

/** Bytes that writePages() will read at most. */
export function countPages(sources: readonly PageSource[]): { source: PageSource; ranges: BigUint64Array }[] {
  return sources.map((source) => ({ source, ranges: findPages(source) }));
}

/** `ranges`: pairs of start and end address as findPages() gave them. */
export function writePages(
  writer: StreamWriter,
  source: PageSource,
  ranges: BigUint64Array,
  buffer: Uint8Array,
  onRead: (bytes: number) => void,
): void {
  for (let index = 0; index < ranges.length; index += 2) {
    const end = ranges[index + 1]!;
    for (let at = ranges[index]!; at < end; ) {
      const length = Math.min(Number(end - at), maxData);
      const piece = buffer.subarray(0, length);
      native().readMemory(source.pid, at, piece);
      const runs = native().nonZeroRuns(piece, pageSize);
      for (let run = 0; run < runs.length; run += 2) {
        const from = runs[run]! * pageSize;
        const to = runs[run + 1]! * pageSize;
        const meta = encodeMeta({ ...source.key, addr: at + BigInt(from) + source.shift });
        writer.frame(kinds.pages, criticalFlag, meta, piece.subarray(from, to));
      }
      onRead(length);
      at += BigInt(length);
    }
  }
}
