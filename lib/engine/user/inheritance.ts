/**
 * Pages that a process has from its parent by fork and that neither has written to since: the kernel keeps them once
 * for both. In the image an address space names its parent's as its base, and an area that is part of the same area
 * there is inherited: only pages in which it differs are sent. At restart such a process is forked when the pages of
 * its parent are there, so the kernel keeps them once again.
 */
import { native } from '../../../native/index.ts';
import type { Records } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import { type Area, type ImageRecords, needed } from './image-records.ts';
import { findPages, type Pagemaps, type PageSource } from './page-source.ts';

/** HELLO's word in `requires`: who does not know it would leave the pages out. */
export const inheritedMemory = 'inherited-memory';

/**
 * Whoever runs another program has nothing from its parent; and a protection key that the kernel took for the parent's
 * memory the child can't be rid of.
 */
export function mayInherit(own: Records['mm'], base: Records['mm']): boolean {
  return (
    own.exe.path === base.exe.path &&
    own.exeShm === base.exeShm &&
    (base.executeOnlyKey === undefined || base.executeOnlyKey === own.executeOnlyKey)
  );
}

/** The area of a base that a private area is part of, alike in all that a fork hands down. `areas` ascend. */
export function findBaseArea<Each extends Area>(areas: readonly Each[], area: Area): Each | undefined {
  let low = 0;
  for (let high = areas.length; low < high; ) {
    const middle = (low + high) >> 1;
    if (areas[middle]!.end <= area.start) low = middle + 1;
    else high = middle;
  }
  const found = areas[low];
  return found !== undefined && isPartOf(area, found) ? found : undefined;
}

function isPartOf(area: Area, base: Area): boolean {
  const backed = area.kind === 'file' || area.kind === 'shm';
  return (
    base.start <= area.start &&
    area.end <= base.end &&
    !area.shared &&
    !base.shared &&
    area.kind === base.kind &&
    (backed || area.kind === 'anonymous') &&
    (!backed || (area.offset ?? 0n) - (base.offset ?? 0n) === area.start - base.start) &&
    area.file?.path === base.file?.path &&
    area.shm === base.shm &&
    area.guards === undefined &&
    base.guards === undefined &&
    area.flock === undefined &&
    base.flock === undefined &&
    (area.growsDown ?? false) === (base.growsDown ?? false) &&
    (area.noReserve ?? false) === (base.noReserve ?? false)
  );
}

/** Where pages differ from those of `base` (host pid) at the same addresses; undefined when there are not fewer. */
export function findOwnPages(
  source: PageSource & { pid: number },
  base: number,
  pagemaps: Pagemaps,
): BigUint64Array | undefined {
  const { pid } = source;
  const present = findPages(source, pagemaps);
  if (present.length === 0) return undefined;
  const there = findPages({ ...source, pid: base }, pagemaps);
  const own: bigint[] = [];
  for (const [start, end] of unite(present, there)) {
    const found = native().differingPages(pid, pagemaps.of(pid), base, pagemaps.of(base), start, end);
    for (const address of found) own.push(address);
  }
  return lengthOf(own) < lengthOf(present) ? BigUint64Array.from(own) : undefined;
}

/** Ranges of one or the other, ascending, each address once. */
function unite(a: BigUint64Array, b: BigUint64Array): [start: bigint, end: bigint][] {
  const pairs = [a, b].flatMap((ranges) =>
    Array.from({ length: ranges.length / 2 }, (_none, index): [bigint, bigint] => [
      ranges[2 * index]!,
      ranges[2 * index + 1]!,
    ]),
  );
  const united: [bigint, bigint][] = [];
  for (const [start, end] of pairs.sort((x, y) => (x[0] < y[0] ? -1 : 1))) {
    const last = united.at(-1);
    if (!last || last[1] < start) united.push([start, end]);
    else if (last[1] < end) last[1] = end;
  }
  return united;
}

function lengthOf(ranges: ArrayLike<bigint>): bigint {
  let sum = 0n;
  for (let index = 0; index < ranges.length; index += 2) sum += ranges[index + 1]! - ranges[index]!;
  return sum;
}

/** What check-references.ts leaves to whoever has all areas: that inherited ones are the base's. */
export function checkInheritance(image: Pick<ImageRecords, 'spaces'>): void {
  for (const { record, areas } of image.spaces.values()) {
    if (record.base === undefined) continue;
    const base = needed(image.spaces, record.base, 'address space');
    const refuse = (what: string): never => {
      throw new PodError(
        'damaged',
        `address space ${record.id} inherits from ${record.base}, ${what}`,
        'the stream was damaged or made by a hostile program; load it again or use an older generation',
      );
    };
    if (!mayInherit(record, base.record)) refuse('which runs another program or has other protection keys');
    for (const area of areas)
      if (area.inherited && !findBaseArea(base.areas, area))
        refuse(`which has no such area at ${area.start.toString(16)}`);
  }
}
