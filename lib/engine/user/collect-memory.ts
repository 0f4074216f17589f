/**
 * Address spaces: the areas, what backs them, and which of their pages are the session's own.
 *
 * Pages of a private mapping are saved when they are not the file's any more; anonymous ones when they exist.
 * Shared anonymous memory is an object of its own, saved once however many map it. A mapped file stays a file: the
 * session's file system goes along with it.
 */
import { closeSync, existsSync, openSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { native } from '../../../native/index.ts';
import type { Records } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import { pageSize, SYS } from './abi.ts';
import type { OutRecord } from './objects/file-object.ts';
import { describeProcess, type MappedArea, readAreas, readStat, statField } from './proc.ts';
import type { Remote } from './remote.ts';
import { segmentName } from './segment-name.ts';

type AreaRecord = Records['areas']['areas'][number];

/** Pages of one object that go into the image, in the address space where they can be read. */
export interface PageSource {
  /** Key of the PAGES record. */
  key: { mm: number } | { shm: number };
  /** Host pid to read through. */
  pid: number;
  /** Where it can be read: [start, end) in that process. */
  start: bigint;
  end: bigint;
  /** Added to an address to give the PAGES address (shm: offset). */
  shift: bigint;
  /** What to read of it. */
  wanted: 'own' | 'present' | 'all';
}

export interface CollectedMemory {
  records: OutRecord[];
  pages: PageSource[];
}

/** What only the process itself can tell about its address space. */
export interface AskedMemory {
  brk: bigint;
  dumpable: number;
  thpDisable: boolean;
}

const areasAFrame = 192;
const anonymousNames = new Set(['', '[heap]', '[stack]']);

interface SharedSegment {
  id: number;
  size: bigint;
  mapped: { pid: number; start: bigint; offset: bigint; length: bigint }[];
}

export class MemoryCollector {
  readonly #segments = new Map<string, SharedSegment>();
  readonly #records: OutRecord[] = [];
  readonly #pages: PageSource[] = [];

  /** An address space with its areas; `pid` is a process that has it. */
  add(id: number, pid: number, asked: AskedMemory): void {
    const mapped = readAreas(pid).filter((area) => area.path !== '[vsyscall]' && area.path !== '[uprobes]');
    const areas: AreaRecord[] = [];
    for (const area of mapped) {
      const record = this.#describe(pid, area);
      areas.push(record);
      this.#addPages(id, pid, area, record);
    }
    this.#records.push({ name: 'mm', meta: addressSpace(id, pid, asked, mapped) });
    for (let at = 0; at < areas.length; at += areasAFrame) {
      this.#records.push({ name: 'areas', meta: { mm: id, areas: areas.slice(at, at + areasAFrame) } });
    }
  }

  finish(): CollectedMemory {
    const segments: OutRecord[] = [];
    for (const segment of this.#segments.values()) {
      segments.push({ name: 'shm', meta: { id: segment.id, size: segment.size, origin: 'anonymous' } });
      let covered = 0n;
      for (const each of segment.mapped.sort((a, b) => Number(a.offset - b.offset))) {
        const from = each.offset > covered ? each.offset : covered;
        const to = each.offset + each.length;
        if (to <= from) continue;
        const start = each.start + (from - each.offset);
        // Pages another process put there need not be in this one's page table: read it whole.
        this.#pages.push({
          key: { shm: segment.id },
          pid: each.pid,
          start,
          end: start + (to - from),
          shift: from - start,
          wanted: 'all',
        });
        covered = to;
      }
    }
    return { records: [...segments, ...this.#records], pages: this.#pages };
  }

  #describe(pid: number, area: MappedArea): AreaRecord {
    const shared = area.permissions[3] === 's';
    const prot =
      (area.permissions[0] === 'r' ? 1 : 0) |
      (area.permissions[1] === 'w' ? 2 : 0) |
      (area.permissions[2] === 'x' ? 4 : 0);
    refuseArea(pid, area);
    return {
      start: area.start,
      end: area.end,
      prot,
      shared,
      ...this.#backing(pid, area, shared),
      ...sticky(area),
    };
  }

  #backing(pid: number, area: MappedArea, shared: boolean): Pick<AreaRecord, 'kind'> & Partial<AreaRecord> {
    const { path } = area;
    if (path === '[vdso]') return { kind: 'vdso' };
    if (path.startsWith('[vvar')) return { kind: 'vvar' };
    if (
      shared &&
      (path === '/dev/zero (deleted)' ||
        path.startsWith('[anon_shmem') ||
        path === `/memfd:${segmentName} (deleted)`)
    ) {
      return { kind: 'shm', shm: this.#segment(pid, area), offset: area.offset };
    }
    if (shared && (path === '' || path.startsWith('[anon:')))
      throw refusal(pid, area, 'shared memory without a name');
    if (anonymousNames.has(path) || path.startsWith('[anon:') || path.startsWith('[stack:')) {
      return {
        kind: 'anonymous',
        ...(path === '[stack]' ? { stack: true } : {}),
        ...(path === '[heap]' ? { heap: true } : {}),
        ...named(path),
      };
    }
    if (!shared && path === '/dev/zero') return { kind: 'anonymous' };
    if (path.startsWith('/SYSV')) throw refusal(pid, area, 'System V shared memory is not handled yet');
    if (path.startsWith('/memfd:')) throw refusal(pid, area, 'memfd memory is not handled yet');
    if (path.startsWith('/dev/') && !path.startsWith('/dev/shm/'))
      throw refusal(pid, area, 'the memory of a device cannot go along');
    if (!path.startsWith('/')) throw refusal(pid, area, 'this kind of mapping is not handled');
    const file = this.#mappedFile(pid, area);
    if (file === undefined) {
      if (shared)
        throw refusal(
          pid,
          area,
          'the mapped file was removed or replaced',
          'restart the program that maps it',
        );
      // Its bytes are only in memory now: they travel as anonymous memory, which reads the same.
      return { kind: 'anonymous' };
    }
    return {
      kind: 'file',
      file,
      offset: area.offset,
      ...(shared ? { maxProt: area.flags.has('mw') ? 7 : 5 } : {}),
    };
  }

  #mappedFile(pid: number, area: MappedArea): AreaRecord['file'] | undefined {
    if (area.path.endsWith(' (deleted)')) return undefined;
    try {
      const found = statSync(`/proc/${pid}/root${area.path}`, { bigint: true });
      if (found.ino !== area.inode) return undefined;
      return { path: area.path, size: found.size, mode: Number(found.mode), mtimeNs: found.mtimeNs };
    } catch {
      return undefined;
    }
  }

  #segment(pid: number, area: MappedArea): number {
    const key = `${area.device}:${area.inode}`;
    const length = area.end - area.start;
    const segment = this.#segments.get(key) ?? { id: this.#segments.size, size: 0n, mapped: [] };
    this.#segments.set(key, segment);
    segment.mapped.push({ pid, start: area.start, offset: area.offset, length });
    if (area.offset + length > segment.size) segment.size = area.offset + length;
    return segment.id;
  }

  #addPages(mm: number, pid: number, area: MappedArea, record: AreaRecord): void {
    if (record.shared || record.kind === 'vdso' || record.kind === 'vvar') return;
    const fromFile = record.kind === 'anonymous' && area.path.startsWith('/') && area.path !== '/dev/zero';
    const wanted = fromFile ? 'all' : record.kind === 'file' ? 'own' : 'present';
    this.#pages.push({ key: { mm }, pid, start: area.start, end: area.end, shift: 0n, wanted });
  }
}

function refusal(pid: number, area: MappedArea, why: string, hint?: string): PodError {
  return new PodError(
    'cannot-checkpoint',
    `${describeProcess(pid)}, memory at ${area.start.toString(16)} (${area.path || 'anonymous'}): ${why}`,
    hint,
  );
}

function refuseArea(pid: number, area: MappedArea): void {
  const kernelOwned = area.path === '[vdso]' || area.path.startsWith('[vvar');
  if (area.flags.has('ht')) throw refusal(pid, area, 'huge page memory (hugetlb) is not handled');
  if (!kernelOwned && (area.flags.has('io') || area.flags.has('pf')))
    throw refusal(pid, area, 'the memory of a device cannot go along');
  if (area.flags.has('um') || area.flags.has('uw'))
    throw refusal(pid, area, 'memory under userfaultfd is not handled');
  // "ss" is the shadow stack flag, "sl" mseal.
  if (area.flags.has('ss'))
    throw refusal(
      pid,
      area,
      'a shadow stack is not handled',
      'run the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off',
    );
  if (area.flags.has('sl') && !kernelOwned) throw refusal(pid, area, 'sealed memory (mseal) is not handled');
}

const adviceFlags = [
  ['dc', 'dontfork'],
  ['wf', 'wipeonfork'],
  ['hg', 'hugepage'],
  ['nh', 'nohugepage'],
  ['dd', 'dontdump'],
  ['mg', 'mergeable'],
  ['sr', 'sequential'],
  ['rr', 'random'],
] as const;

function sticky(area: MappedArea): Partial<AreaRecord> {
  const kernelOwned = area.path === '[vdso]' || area.path.startsWith('[vvar');
  if (kernelOwned) return {};
  const advice = adviceFlags.filter(([flag]) => area.flags.has(flag)).map(([, name]) => name);
  return {
    ...(area.flags.has('gd') ? { growsDown: true } : {}),
    ...(area.flags.has('lo') ? { locked: true } : {}),
    ...(area.flags.has('lf') ? { lockOnFault: true } : {}),
    ...(area.flags.has('nr') ? { noReserve: true } : {}),
    ...(advice.length > 0 ? { advice } : {}),
  };
}

function named(path: string): Partial<AreaRecord> {
  const match = /^\[anon:(.*)\]$/.exec(path);
  return match ? { name: match[1]! } : {};
}

/** prctl(PR_SET_MM_MAP)'s fields. */
function addressSpace(
  id: number,
  pid: number,
  asked: AskedMemory,
  areas: readonly MappedArea[],
): Records['mm'] {
  const { fields } = readStat(pid);
  const at = (number: number) => BigInt(statField(fields, number));
  const exe = readlinkSync(`/proc/${pid}/exe`);
  const path = `/proc/${pid}/root${exe}`;
  if (exe.endsWith(' (deleted)') || !existsSync(path)) {
    throw new PodError(
      'cannot-checkpoint',
      `the executable of ${describeProcess(pid)} (${exe}) was removed`,
      'put the file back, or restart the program from the new one',
    );
  }
  const status = statSync(path, { bigint: true });
  const vdso = areas.find((area) => area.path === '[vdso]');
  const vvars = areas.filter((area) => area.path.startsWith('[vvar'));
  return {
    id,
    startCode: at(26),
    endCode: at(27),
    startStack: at(28),
    startData: at(45),
    endData: at(46),
    startBrk: at(47),
    brk: asked.brk,
    argStart: at(48),
    argEnd: at(49),
    envStart: at(50),
    envEnd: at(51),
    auxv: new Uint8Array(readFileSync(`/proc/${pid}/auxv`)),
    exe: { path: exe, size: status.size, mode: Number(status.mode), mtimeNs: status.mtimeNs },
    dumpable: asked.dumpable,
    ...(asked.thpDisable ? { thpDisable: true } : {}),
    ...(vdso
      ? {
          vdso: {
            start: vdso.start,
            size: vdso.end - vdso.start,
            vvarStart: vvars[0]?.start ?? vdso.start,
            vvarSize: (vvars.at(-1)?.end ?? vdso.start) - (vvars[0]?.start ?? vdso.start),
          },
        }
      : {}),
  };
}

/** Ranges of a source that hold pages to save, pairs of start and end address. */
export function findPages(source: PageSource): BigUint64Array {
  const { pid, start, end } = source;
  if (source.wanted === 'all') return sharedRanges(pid, start, end) ?? BigUint64Array.of(start, end);
  const pagemap = openSync(`/proc/${pid}/pagemap`, 'r');
  try {
    return native().scanPages(pagemap, start, end, source.wanted === 'own');
  } finally {
    closeSync(pagemap);
  }
}

const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/**
 * Where the object behind a mapping has data, by the file behind it (needs CAP_CHECKPOINT_RESTORE); undefined when
 * that can't be asked. Reading a hole would allocate it.
 */
function sharedRanges(pid: number, start: bigint, end: bigint): BigUint64Array | undefined {
  const area = readAreas(pid, 'maps').find((each) => each.start <= start && end <= each.end);
  if (!area) return undefined;
  let fd: number;
  try {
    fd = openSync(`/proc/${pid}/map_files/${area.start.toString(16)}-${area.end.toString(16)}`, 'r');
  } catch {
    return undefined;
  }
  const ranges: bigint[] = [];
  const shift = area.start - area.offset;
  const low = start - shift;
  const high = end - shift;
  try {
    for (let at = low; at < high; ) {
      const data = native().syscall(SYS.lseek, fd, at, SEEK_DATA);
      if (data >= high) break;
      const hole = native().syscall(SYS.lseek, fd, data, SEEK_HOLE);
      const from = data & ~BigInt(pageSize - 1);
      const to = hole < high ? hole : high;
      ranges.push(from + shift, ((to + BigInt(pageSize - 1)) & ~BigInt(pageSize - 1)) + shift);
      at = to;
    }
  } catch (cause) {
    // ENXIO: nothing but a hole from here on.
    if ((cause as NodeJS.ErrnoException).code !== 'ENXIO') return undefined;
  } finally {
    closeSync(fd);
  }
  return BigUint64Array.from(ranges);
}

/** Ask a process about its address space. */
export function askMemory(remote: Remote): AskedMemory {
  const [brk, dumpable, thp] = remote.run([
    [SYS.brk, 0],
    [SYS.prctl, 3],
    [SYS.prctl, 42, 0, 0, 0, 0],
  ]);
  return { brk: brk!, dumpable: Number(dumpable), thpDisable: thp === 1n };
}
