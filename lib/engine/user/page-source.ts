/**
 * Where pages that go into the image can be read, and which of them are worth reading: through an address space, or
 * through a descriptor of ours.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { native } from '../../../native/index.ts';
import { pageSize, SYS } from './abi.ts';
import { codeOf } from './objects/local-calls.ts';
import { type MappedArea, readAreas } from './proc.ts';
import type { Remote } from './remote.ts';

/** Pages of one object that go into the image, and where they can be read. */
export interface PageSource {
  /** Key of the PAGES record. */
  key: { mm: number } | { shm: number } | { file: number };
  /** Host pid to read through; or, for `fd`, none. */
  pid?: number;
  /** Our own descriptor to read from: a file that no path leads to. */
  fd?: number;
  /** Where it can be read: [start, end) in that process or file. */
  start: bigint;
  end: bigint;
  /** Added to an address to give the PAGES address (shm: offset). */
  shift: bigint;
  /** What to read of it. */
  wanted: 'own' | 'present' | 'all';
  /** Known already which pages: exactly these, pairs of start and end address. */
  ranges?: BigUint64Array;
}

/** Descriptors of /proc/PID/pagemap, kept for the next that asks. */
export class Pagemaps {
  readonly #open = new Map<number, number>();
  readonly #found = new Map<string, BigUint64Array>();

  /** scanPages() of a stopped process, asked once: of a parent each child wants to know. */
  scan(pid: number, start: bigint, end: bigint, privateOnly: boolean): BigUint64Array {
    const key = `${pid} ${start} ${end} ${privateOnly}`;
    const found = this.#found.get(key) ?? native().scanPages(this.of(pid), start, end, privateOnly);
    this.#found.set(key, found);
    return found;
  }

  /** Stays open until as many others were asked for. */
  of(pid: number): number {
    const fd = this.#open.get(pid) ?? openSync(`/proc/${pid}/pagemap`, 'r');
    this.#open.delete(pid);
    this.#open.set(pid, fd);
    const [oldest] = this.#open;
    if (this.#open.size > mostPagemaps && oldest) {
      this.#open.delete(oldest[0]);
      closeSync(oldest[1]);
    }
    return fd;
  }

  close(): void {
    for (const fd of this.#open.values()) closeSync(fd);
    this.#open.clear();
    this.#found.clear();
  }
}

const mostPagemaps = 64;

/** Ranges of a source that hold pages to save, pairs of start and end address. */
export function findPages(source: PageSource, pagemaps: Pagemaps): BigUint64Array {
  const { pid, fd, start, end, ranges } = source;
  if (ranges !== undefined) return ranges;
  if (fd !== undefined) return BigUint64Array.from(dataRanges(fd, start, end) ?? [start, end]);
  if (source.wanted === 'all')
    return ('shm' in source.key && sharedRanges(pid!, start, end)) || BigUint64Array.of(start, end);
  return pagemaps.scan(pid!, start, end, source.wanted === 'own');
}

/**
 * Where the object behind a mapping has data, by the file behind it (needs CAP_CHECKPOINT_RESTORE); undefined when
 * that can't be asked. Reading a hole would allocate it.
 */
function sharedRanges(pid: number, start: bigint, end: bigint): BigUint64Array | undefined {
  const area = readAreas(pid, 'maps').find((each) => each.start <= start && end <= each.end);
  const fd = area && openMapping(pid, area);
  if (area === undefined || fd === undefined) return undefined;
  const shift = area.start - area.offset;
  try {
    const ranges = dataRanges(fd, start - shift, end - shift);
    return ranges && BigUint64Array.from(ranges, (at) => at + shift);
  } finally {
    closeSync(fd);
  }
}

/** Open the file behind an area; undefined when that takes a right we don't have. The caller closes it. */
export function openMapping(pid: number, area: MappedArea): number | undefined {
  const name = `${area.start.toString(16)}-${area.end.toString(16)}`;
  return openQuietly(`/proc/${pid}/map_files/${name}`);
}

/**
 * Whether a shared mapping reaches the end of its file: the task maps the file once more, a page further, and that page
 * can't be read.
 */
export function reachesEnd(area: MappedArea, remote: Remote): boolean {
  const length = area.end - area.start;
  const longer = length + BigInt(pageSize);
  const [again] = remote.run([[SYS.mremap, area.start, 0, longer, MREMAP_MAYMOVE]]);
  if (again! < 0n && again! > -4096n) return false;
  try {
    return readableLength(remote.tid, { start: again!, length: longer }) < longer;
  } finally {
    remote.run([[SYS.munmap, again!, longer]]);
  }
}

const MREMAP_MAYMOVE = 1;

/** For reading, and without a trace in its access time where we may. */
export function openQuietly(path: string): number | undefined {
  for (const more of [constants.O_NOATIME, 0]) {
    try {
      return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | more);
    } catch (cause) {
      if (codeOf(cause) !== 'EPERM') return undefined;
    }
  }
  return undefined;
}

/** Bytes of a mapping that lie before the end of what is mapped, in whole pages: behind it reading is a fault. */
export function readableLength(pid: number, range: { start: bigint; length: bigint }): bigint {
  const page = BigInt(pageSize);
  const byte = new Uint8Array(1);
  const readable = (index: bigint) => {
    try {
      native().readMemory(pid, range.start + index * page, byte);
      return true;
    } catch (cause) {
      if (codeOf(cause) !== 'EFAULT' && codeOf(cause) !== 'EIO') throw cause;
      return false;
    }
  };
  let low = 0n;
  let high = range.length / page;
  if (readable(high - 1n)) return range.length;
  while (low < high) {
    const middle = (low + high) / 2n;
    if (readable(middle)) low = middle + 1n;
    else high = middle;
  }
  return low * page;
}

const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** Where a file has data between two offsets, in whole pages; undefined when its file system can't say. */
export function dataRanges(fd: number, low: bigint, high: bigint): bigint[] | undefined {
  const page = BigInt(pageSize);
  const ranges: bigint[] = [];
  try {
    for (let at = low; at < high; ) {
      const data = native().syscall(SYS.lseek, fd, at, SEEK_DATA);
      if (data >= high) break;
      const hole = native().syscall(SYS.lseek, fd, data, SEEK_HOLE);
      const to = hole < high ? hole : high;
      const from = data & ~(page - 1n);
      // Blocks may be smaller than pages: two pieces of data in one page are one.
      if (ranges.at(-1)! > from) ranges.pop();
      else ranges.push(from);
      ranges.push((to + page - 1n) & ~(page - 1n));
      at = to;
    }
  } catch (cause) {
    // ENXIO: nothing but a hole from here on.
    if (codeOf(cause) !== 'ENXIO') return undefined;
  }
  return ranges;
}
