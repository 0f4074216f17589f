/**
 * Address spaces: the areas, what backs them, and which of their pages are the session's own.
 *
 * Pages of a private mapping are saved when they are not the file's any more; anonymous ones when they exist.
 * Shared memory and files without a name are objects of their own (carriers.ts), saved once however many map them.
 * A mapped file stays a file: the session's file system goes along with it.
 */
import { type BigIntStats, closeSync, fstatSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { native } from '../../../native/index.ts';
import type { Records } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import { PR, SYS } from './abi.ts';
import { overlaps, type Range } from './address-range.ts';
import { type Carriers, isAnonymousShared, keyOf, memfdName } from './carriers.ts';
import type { HiddenLocks } from './collect-files.ts';
import { findBaseArea, findOwnPages, mayInherit } from './inheritance.ts';
import { askMemoryAttributes, type MemoryAttributes } from './memory-attributes.ts';
import { placeKey } from './objects/file-locks.ts';
import type { OutRecord } from './objects/file-object.ts';
import { belowRoot, findSibling, formerPath } from './objects/paths.ts';
import { findExecuteOnlyKey, keyCalls, parseKeys } from './objects/protection-keys.ts';
import { isSysvArea, type SysvSegment } from './objects/sysv-shm.ts';
import type { Obstacles } from './obstacles.ts';
import { refuseSharers } from './outside-sharers.ts';
import {
  openMapping,
  openQuietly,
  type Pagemaps,
  type PageSource,
  reachesEnd,
  readableLength,
} from './page-source.ts';
import { describeProcess, type MappedArea, readAreas, statField } from './proc.ts';
import type { Asking, Remote } from './remote.ts';
import type { SessionView } from './session-view.ts';
import { digestVdso, listFunctions } from './vdso.ts';

type AreaRecord = Records['areas']['areas'][number];

export interface CollectedMemory {
  records: OutRecord[];
  pages: PageSource[];
}

/** System V IPC that the session can name. */
export interface SessionIpc {
  segments: ReadonlyMap<number, SysvSegment>;
  /** It has an IPC namespace of its own, so all of it is the session's. */
  own: boolean;
}

/** What the rest of the dump knows already. */
export interface MemoryContext {
  /** Knows the open files of the session. */
  carriers: Carriers;
  ipc: SessionIpc;
  hiddenLocks: HiddenLocks;
  pagemaps: Pagemaps;
  obstacles: Obstacles;
  loss: (sentence: string) => void;
}

/** What only the process itself can tell about its address space. */
export interface AskedMemory {
  brk: bigint;
  dumpable: number;
  attributes: MemoryAttributes;
  /** Protection keys that are handed out, bit n = key n. */
  keys: number;
  /** Of /proc/PID/stat. */
  fields: readonly string[];
}

const areasAFrame = 192;
/** As many as the schema has room for. */
const mostGuards = 256;
const anonymousNames = new Set(['', '[heap]', '[stack]']);

export class MemoryCollector {
  readonly #carriers: Carriers;
  readonly #hiddenLocks: HiddenLocks;
  readonly #loss: (sentence: string) => void;
  readonly #records: OutRecord[] = [];
  readonly #pages: PageSource[] = [];

  readonly #ipc: SessionIpc;
  readonly #attachedSegments = new Set<number>();
  readonly #ends = new Set<string>();
  readonly #pagemaps: Pagemaps;
  /** The root of each process, and what lies at paths below a root. */
  readonly #roots = new Map<number, string>();
  readonly #stats = new Map<string, BigIntStats | undefined>();
  readonly #obstacles: Obstacles;
  readonly #spaces = new Map<number, { pid: number; areas: readonly AreaRecord[]; record: Records['mm'] }>();
  /** Address spaces that others inherit pages from. */
  readonly #bases = new Set<number>();

  constructor({ carriers, ipc, hiddenLocks, pagemaps, obstacles, loss }: MemoryContext) {
    this.#carriers = carriers;
    this.#ipc = ipc;
    this.#hiddenLocks = hiddenLocks;
    this.#pagemaps = pagemaps;
    this.#obstacles = obstacles;
    this.#loss = loss;
  }

  /** While the session can be asked: which mappings that we can't open reach the end of their files. */
  probe(pid: number, view: SessionView): void {
    const unknown = view.areas(pid).filter((area) => isNameless(area) && !isOpenable(pid, area));
    if (unknown.length === 0) return;
    view.within(pid, (remote) => {
      for (const area of unknown) if (reachesEnd(area, remote)) this.#ends.add(`${pid} ${area.start}`);
    });
  }

  /** An address space with its areas; `pid` is a process that has it, `parent` the parent's address space. */
  add(id: number, pid: number, asked: AskedMemory, parent: number | undefined): void {
    const mapped = readAreas(pid).filter((area) => area.path !== '[vsyscall]' && area.path !== '[uprobes]');
    const areas: AreaRecord[] = [];
    // Before the areas: who may not open a mapping may open the executable.
    const space = this.#obstacles.past(() => addressSpace(id, pid, asked, mapped, this.#executable(pid)));
    if (!space) return;
    const found = parent === undefined ? undefined : this.#spaces.get(parent);
    const base = found && mayInherit(space, found.record) ? found : undefined;
    const guarded = this.#guarded(pid, mapped);
    for (const area of mapped) {
      const record = this.#obstacles.past(() => this.#describe(pid, area, guarded));
      if (!record) continue;
      const { guards = [] } = record;
      const source = this.#pagesOf(id, pid, area, record);
      const own =
        base && source && findBaseArea(base.areas, record) && findOwnPages(source, base.pid, this.#pagemaps);
      areas.push(own ? { ...record, inherited: true } : record);
      if (source) this.#pages.push(...(own ? [{ ...source, ranges: own }] : besides(source, guards)));
    }
    this.#spaces.set(id, { pid, areas, record: space });
    if (base && areas.some((area) => area.inherited)) {
      space.base = base.record.id;
      this.#bases.add(base.record.id);
    }
    this.#records.push({ name: 'mm', meta: space });
    for (let at = 0; at < areas.length; at += areasAFrame) {
      this.#records.push({ name: 'areas', meta: { mm: id, areas: areas.slice(at, at + areasAFrame) } });
    }
  }

  /** `processes`: host pids of the session. */
  finish(processes: ReadonlySet<number>): CollectedMemory {
    // A pod shares none: nothing of who makes it is inherited.
    if (!this.#ipc.own) refuseSharers(this.#carriers.mapped(describeProcess), processes);
    for (const { id, key, attached } of this.#ipc.segments.values()) {
      if (!this.#ipc.own || this.#attachedSegments.has(id) || attached === 0n) continue;
      throw new PodError(
        'cannot-checkpoint',
        `the session has System V shared memory ${id} (key ${key}) that only a process outside has attached`,
        'end what was run in the pod from outside (nsenter)',
      );
    }
    const { records, pages } = this.#carriers.finish(this.#loss);
    const isBase = ({ key }: PageSource) => 'mm' in key && this.#bases.has(key.mm);
    const own = [...this.#pages.filter(isBase), ...this.#pages.filter((source) => !isBase(source))];
    return { records: [...records, ...this.#records], pages: [...pages, ...own] };
  }

  #describe(pid: number, area: MappedArea, guarded: readonly Range[]): AreaRecord {
    const shared = area.permissions[3] === 's';
    const prot =
      (area.permissions[0] === 'r' ? 1 : 0) |
      (area.permissions[1] === 'w' ? 2 : 0) |
      (area.permissions[2] === 'x' ? 4 : 0);
    refuseArea(pid, area);
    const guards = this.#guards(pid, area, guarded);
    return {
      start: area.start,
      end: area.end,
      prot,
      shared,
      ...this.#lockedBacking(pid, area, shared),
      ...sticky(area),
      ...(guards.length > 0 ? { guards } : {}),
    };
  }

  /** With the lock that this area alone keeps. */
  #lockedBacking(
    pid: number,
    area: MappedArea,
    shared: boolean,
  ): Pick<AreaRecord, 'kind'> & Partial<AreaRecord> {
    const backing = this.#backing(pid, area, shared);
    const flock = this.#hiddenLocks.get(placeKey({ pid, start: area.start }));
    if (flock === undefined) return backing;
    if (backing.kind !== 'file')
      throw refusal(
        pid,
        area,
        'it has no name any more, is locked, and its descriptor was closed',
        'let the program keep the locked file open, or release the lock first',
      );
    return { ...backing, flock };
  }

  #backing(pid: number, area: MappedArea, shared: boolean): Pick<AreaRecord, 'kind'> & Partial<AreaRecord> {
    const { path } = area;
    if (path === '[vdso]') return { kind: 'vdso' };
    if (path.startsWith('[vvar')) return { kind: 'vvar' };
    if (shared && isAnonymousShared(path))
      return { kind: 'shm', shm: this.#carriers.ofAnonymous(pid, area), offset: area.offset };
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
    if (isSysvArea(path)) return this.#attached(pid, area, shared);
    if (path.startsWith('/dev/') && !path.startsWith('/dev/shm/'))
      throw refusal(pid, area, 'the memory of a device cannot go along');
    if (!path.startsWith('/')) throw refusal(pid, area, 'this kind of mapping is not handled');
    const file = this.#namedFile(pid, area, area.path);
    if (file === undefined) return this.#nameless(pid, area, shared);
    return { kind: 'file', file, offset: area.offset, ...writable(area, shared) };
  }

  #attached(pid: number, area: MappedArea, shared: boolean): Pick<AreaRecord, 'kind'> & Partial<AreaRecord> {
    const segment = this.#ipc.segments.get(Number(area.inode));
    if (!segment || !shared) throw refusal(pid, area, 'this System V shared memory is not found');
    const owner = `${describeProcess(pid)}, memory at ${area.start.toString(16)} (System V shared memory ${segment.id})`;
    this.#attachedSegments.add(segment.id);
    const shm = this.#carriers.ofSysv(pid, area, segment, owner);
    return { kind: 'shm', shm, offset: area.offset, ...writable(area, shared) };
  }

  /** The file at a path in the process's root, when it is the mapped one. */
  #namedFile(pid: number, area: MappedArea, path: string, key?: string): AreaRecord['file'] | undefined {
    const found = this.#statBelow(pid, path);
    if (!found || (key === undefined ? found.ino !== area.inode : keyOf(found) !== key)) return undefined;
    return { path, size: found.size, mode: Number(found.mode), mtimeNs: found.mtimeNs };
  }

  /** What lies at a path in the process's root, asked once of each root: most processes map the same files. */
  #statBelow(pid: number, path: string): BigIntStats | undefined {
    const root = this.#roots.get(pid) ?? readlinkSync(`/proc/${pid}/root`);
    this.#roots.set(pid, root);
    const place = `${root}\0${path}`;
    if (!this.#stats.has(place)) this.#stats.set(place, statQuietly(`/proc/${pid}/root${path}`));
    return this.#stats.get(place);
  }

  /** A mapping of what does not lie under the name it was opened by. */
  #nameless(pid: number, area: MappedArea, shared: boolean): Pick<AreaRecord, 'kind'> & Partial<AreaRecord> {
    const path = formerPath(belowRoot(pid, area.path));
    const memory = memfdName(area.path) !== undefined;
    const owner = `${describeProcess(pid)}, memory at ${area.start.toString(16)} (${area.path})`;
    const opened = openMapping(pid, area);
    const stat = opened === undefined ? undefined : fstatSync(opened, { bigint: true });
    const known = opened === undefined ? this.#carriers.keyOfKnown(area, owner) : undefined;
    if (!memory && known === undefined) {
      const key = stat ? keyOf(stat) : `${area.device}:${area.inode}`;
      const name = findSibling(pid, path, key);
      const file = name === undefined ? undefined : this.#namedFile(pid, area, name, key);
      const elsewhere = stat ? stat.nlink > 0n : shared && !area.path.endsWith(' (deleted)');
      if (opened !== undefined && (file || elsewhere)) closeSync(opened);
      if (file) return { kind: 'file', file, offset: area.offset, ...writable(area, shared) };
      if (elsewhere)
        throw refusal(
          pid,
          area,
          'the mapped file is not found under its name, but has another elsewhere',
          'restart the program that maps it',
        );
    }
    // Its bytes are only in memory now: they travel as anonymous memory, which reads the same.
    if (opened === undefined && known === undefined && !shared) return { kind: 'anonymous' };
    const toEnd = this.#ends.has(`${pid} ${area.start}`);
    const shm = this.#carriers.ofMapping(pid, area, { opened, toEnd }, path, owner);
    return { kind: 'shm', shm, offset: area.offset, ...writable(area, shared) };
  }

  /** The executable of a process, `shm` when no path leads to it any more. */
  #executable(pid: number): { exe: Records['mm']['exe']; exeShm?: number } {
    const link = readlinkSync(`/proc/${pid}/exe`);
    const running = statSync(`/proc/${pid}/exe`, { bigint: true });
    const describe = (path: string) => ({
      path,
      size: running.size,
      mode: Number(running.mode),
      mtimeNs: running.mtimeNs,
    });
    const isIt = (path: string) => {
      const found = this.#statBelow(pid, path);
      return found !== undefined && keyOf(found) === keyOf(running);
    };
    const named = belowRoot(pid, link);
    if (isIt(named)) return { exe: describe(named) };
    const path = formerPath(named);
    const owner = `the executable of ${describeProcess(pid)} (${link})`;
    if (memfdName(link) === undefined) {
      const other = findSibling(pid, path, keyOf(running));
      if (other !== undefined) return { exe: describe(other) };
      const root = readlinkSync(`/proc/${pid}/root`);
      if (running.nlink > 0n && root !== '/' && !link.startsWith(`${root}/`))
        throw new PodError(
          'cannot-checkpoint',
          `${owner} lies outside of its root (chroot to ${root})`,
          'let it change its root before it runs the program, with all that is mapped below that root',
        );
      if (running.nlink > 0n) {
        throw new PodError(
          'cannot-checkpoint',
          `${owner} was removed, but has another name elsewhere`,
          'put the file back, or restart the program from the new one',
        );
      }
    }
    const fd = openQuietly(`/proc/${pid}/exe`);
    if (fd === undefined)
      throw new PodError(
        'cannot-checkpoint',
        `${owner} was removed and can't be read`,
        'put the file back, or dump as root',
      );
    try {
      return { exe: describe(path), exeShm: this.#carriers.ofFile(fd, link, path, owner) };
    } finally {
      closeSync(fd);
    }
  }

  /** Guard regions: nothing can be read there. They may lie across areas. */
  #guarded(pid: number, areas: readonly MappedArea[]): Range[] {
    const [first] = areas;
    if (!first) return [];
    const ranges = native().scanGuards(this.#pagemaps.of(pid), first.start, areas.at(-1)!.end);
    return Array.from({ length: ranges.length / 2 }, (_none, index) => ({
      start: ranges[2 * index]!,
      end: ranges[2 * index + 1]!,
    }));
  }

  #guards(pid: number, area: MappedArea, guarded: readonly Range[]): NonNullable<AreaRecord['guards']> {
    const guards = guarded
      .filter((range) => overlaps(range, area))
      .map(({ start, end }) => ({
        start: start < area.start ? area.start : start,
        end: end > area.end ? area.end : end,
      }));
    if (guards.length > mostGuards)
      throw refusal(pid, area, `more than ${mostGuards} guard regions (MADV_GUARD_INSTALL) are not handled`);
    if (guards.length > 0 && area.permissions[3] === 's')
      throw refusal(pid, area, 'guard regions (MADV_GUARD_INSTALL) in shared memory are not handled');
    return guards;
  }

  #pagesOf(
    mm: number,
    pid: number,
    area: MappedArea,
    record: AreaRecord,
  ): (PageSource & { pid: number }) | undefined {
    // What may vanish at any time does so now: a generator of random numbers lies there, which must not go on twice.
    if (record.shared || record.kind === 'vvar' || record.droppable) return undefined;
    const fromFile = record.kind === 'anonymous' && area.path.startsWith('/') && area.path !== '/dev/zero';
    const wanted =
      fromFile || record.kind === 'vdso' ? 'all' : record.kind === 'anonymous' ? 'present' : 'own';
    const { start } = area;
    const length = area.end - start;
    const end = start + (fromFile ? readableLength(pid, { start, length }) : length);
    return end > start ? { key: { mm }, pid, start, end, shift: 0n, wanted } : undefined;
  }
}

function statQuietly(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true });
  } catch {
    return undefined;
  }
}

/** What lies before, between and behind the guards. */
function besides(source: PageSource, guards: NonNullable<AreaRecord['guards']>): PageSource[] {
  const starts = [source.start, ...guards.map(({ end }) => end)];
  const ends = [...guards.map(({ start }) => start), source.end];
  return starts
    .map((start, index) => ({ ...source, start, end: ends[index]! }))
    .filter(({ start, end }) => start < end);
}

/** A shared mapping of a file that lost its name, or never had one. */
function isNameless({ permissions, path }: MappedArea): boolean {
  return (
    permissions[3] === 's' &&
    path.startsWith('/') &&
    path.endsWith(' (deleted)') &&
    !isAnonymousShared(path) &&
    !isSysvArea(path)
  );
}

function isOpenable(pid: number, area: MappedArea): boolean {
  const fd = openMapping(pid, area);
  if (fd !== undefined) closeSync(fd);
  return fd !== undefined;
}

/** Whether a shared mapping may become writable: whether its file was opened for writing. */
function writable(area: MappedArea, shared: boolean): Partial<AreaRecord> {
  return shared ? { maxProt: area.flags.has('mw') ? 7 : 5 } : {};
}

function refusal(pid: number, area: MappedArea, why: string, hint?: string): PodError {
  return new PodError(
    'cannot-checkpoint',
    `${describeProcess(pid)}, memory at ${area.start.toString(16)} (${area.path || 'anonymous'}): ${why}`,
    hint,
  );
}

/** Files of the kernel's own that look like deleted ones: what is behind them is not in their bytes. */
const kernelFiles: Readonly<Record<string, readonly [why: string, hint: string]>> = {
  '/[aio] (deleted)': [
    'asynchronous input and output by the kernel (io_setup) has requests that can not be read back',
    'run the program without it (nginx: aio off, MySQL: innodb_use_native_aio=0)',
  ],
  '/secretmem (deleted)': [
    'memory from memfd_secret is made not to be read by anybody',
    'run the program without it',
  ],
};

function refuseArea(pid: number, area: MappedArea): void {
  const kernelFile = kernelFiles[area.path];
  if (kernelFile) throw refusal(pid, area, ...kernelFile);
  const kernelOwned = area.path === '[vdso]' || area.path.startsWith('[vvar');
  if (area.flags.has('ht')) throw refusal(pid, area, 'huge page memory (hugetlb) is not handled');
  if (!kernelOwned && (area.flags.has('io') || area.flags.has('pf')))
    throw refusal(pid, area, 'the memory of a device cannot go along');
  if (area.flags.has('um') || area.flags.has('uw'))
    throw refusal(pid, area, 'memory under userfaultfd is not handled');
  if (kernelOwned && area.protectionKey !== 0)
    throw refusal(pid, area, "the kernel's own memory with a protection key (pkey_mprotect) is not handled");
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
    ...(area.flags.has('dp') ? { droppable: true } : {}),
    ...(area.flags.has('gd') ? { growsDown: true } : {}),
    ...(area.flags.has('lo') ? { locked: true } : {}),
    // Older kernels have no name for it.
    ...(area.flags.has('lf') || (area.flags.has('lo') && area.flags.has('??')) ? { lockOnFault: true } : {}),
    ...(area.flags.has('nr') ? { noReserve: true } : {}),
    ...(area.protectionKey === 0 ? {} : { protectionKey: area.protectionKey }),
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
  exe: Pick<Records['mm'], 'exe' | 'exeShm'>,
): Records['mm'] {
  const at = (number: number) => BigInt(statField(asked.fields, number));
  const vdso = areas.find((area) => area.path === '[vdso]');
  const vvars = areas.filter((area) => area.path.startsWith('[vvar'));
  const executeOnlyKey = findExecuteOnlyKey(areas, asked.keys, pid);
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
    ...exe,
    dumpable: asked.dumpable,
    ...asked.attributes,
    ...(asked.keys === 0 ? {} : { protectionKeys: asked.keys }),
    ...(executeOnlyKey === undefined ? {} : { executeOnlyKey }),
    ...(vdso
      ? {
          vdso: {
            ...describeVdso(pid, vdso),
            start: vdso.start,
            size: vdso.end - vdso.start,
            vvarStart: vvars[0]?.start ?? vdso.start,
            vvarSize: (vvars.at(-1)?.end ?? vdso.start) - (vvars[0]?.start ?? vdso.start),
          },
        }
      : {}),
  };
}

let lastVdso:
  | { bytes: Uint8Array; digest: Uint8Array; functions: ReturnType<typeof listFunctions> }
  | undefined;

/** Most often all processes have the same. */
function describeVdso(pid: number, { start, end }: MappedArea) {
  const bytes = new Uint8Array(Number(end - start));
  native().readMemory(pid, start, bytes);
  if (!lastVdso || Buffer.compare(bytes, lastVdso.bytes) !== 0)
    lastVdso = { bytes, digest: digestVdso(bytes), functions: listFunctions(bytes) };
  const { digest, functions } = lastVdso;
  return { digest, functions };
}

/** Ask a process about its address space. */
export function* askMemory(remote: Remote, pid: number, fields: readonly string[]): Asking<AskedMemory> {
  const [brk, dumpable, ...keys] = yield [[SYS.brk, 0], [SYS.prctl, PR.getDumpable], ...keyCalls()];
  return {
    brk: brk!,
    dumpable: Number(dumpable),
    keys: parseKeys(keys),
    fields,
    attributes: yield* askMemoryAttributes(remote, pid),
  };
}
