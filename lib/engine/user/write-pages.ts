/**
 * Memory into the stream: large reads into one buffer, frames straight out of it. Pages that are all zero are left
 * out where a fresh mapping has them anyway; a page that was written to in a private mapping of a file, or in an
 * inherited area, lies over another.
 */
import { readSync } from 'node:fs';
import { native } from '../../../native/index.ts';
import { criticalFlag, maxData } from '../../stream/frame.ts';
import { kinds } from '../../stream/kind.ts';
import { encodeMeta } from '../../stream/meta.ts';
import type { StreamWriter } from '../../stream/stream-writer.ts';
import { pageSize } from './abi.ts';
import { findPages, type Pagemaps, type PageSource } from './page-source.ts';

/** Bytes that writePages() will read at most. */
export function countPages(
  sources: readonly PageSource[],
  pagemaps: Pagemaps,
): { source: PageSource; ranges: BigUint64Array }[] {
  return sources.map((source) => ({ source, ranges: findPages(source, pagemaps) }));
}

/** Where the memory of a session goes on its way. */
export interface PageWriter {
  writer: StreamWriter;
  /** Of the largest piece that is read at once. */
  buffer: Uint8Array;
  pagemaps: Pagemaps;
  onRead: (bytes: number) => void;
}

/** `ranges`: pairs of start and end address as findPages() gave them. */
export function writePages(
  { writer, buffer, pagemaps, onRead }: PageWriter,
  source: PageSource,
  ranges: BigUint64Array,
): void {
  const { pid, fd } = source;
  for (let index = 0; index < ranges.length; index += 2) {
    const end = ranges[index + 1]!;
    for (let at = ranges[index]!; at < end; ) {
      const length = Math.min(Number(end - at), maxData);
      const piece = buffer.subarray(0, length);
      if (fd === undefined) native().readPages(pid!, pagemaps.of(pid!), at, piece);
      else readFile(fd, at, piece);
      const whole = source.wanted === 'own' || source.ranges !== undefined;
      const runs = whole ? [0, length / pageSize] : native().nonZeroRuns(piece, pageSize);
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

/** Whole pages of a file; what lies behind its end is zero, as in a mapping of it. */
function readFile(fd: number, at: bigint, target: Uint8Array): void {
  let done = 0;
  for (let got = -1; got !== 0 && done < target.length; done += got)
    got = readSync(fd, target, done, target.length - done, at + BigInt(done));
  target.fill(0, done);
}
