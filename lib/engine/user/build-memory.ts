/**
 * An address space, rebuilt inside a task that was forked from the builder, or from the process whose pages it
 * inherits: everything but these is unmapped, the kernel's vdso goes where the session knew it (or beside it: vdso.ts), the areas are mapped, and
 * filled while the pages come in: those that are not writable through /proc/PID/mem, which a tracer may.
 *
 * Meanwhile the task's calls run from a small area of our own in a gap of both address spaces. It goes last: a call
 * that unmaps the very instruction it came from is fine for a task that never returns to it.
 */
import { statSync } from 'node:fs';
import { native } from '../../../native/index.ts';
import { PodError } from '../../stream/error.ts';
import { AT_FDCWD, MAP, O, PR, PROT, SYS } from './abi.ts';
import { findGap, highest, type Range } from './address-range.ts';
import { isReadOnly } from './build-segments.ts';
import { VdsoBuilder } from './build-vdso.ts';
import { makeCallSite, siteLength } from './call-site.ts';
import type { Area, SpaceImage } from './image-records.ts';
import { setMemoryAttributes } from './memory-attributes.ts';
import type { NewTask } from './new-task.ts';
import { lockMapped } from './objects/file-locks.ts';
import { protAtFirst } from './objects/protection-keys.ts';
import { type Attachment, attachSysvSegment } from './objects/sysv-shm.ts';
import { type MappedArea, readAreas } from './proc.ts';
import { type Asking, attempt, type Remote, RemoteError, type Word } from './remote.ts';

const lowest = 0x10000n;

export interface Segments {
  /** The builder's descriptor of a shared memory object, which the task inherited; `reading` when for that only. */
  descriptor(id: number, reading: boolean): number;
  /** A System V segment is attached instead. */
  sysv(id: number): { id: number; size: bigint } | undefined;
}

export class SpaceBuilder {
  readonly #task: NewTask;
  readonly #space: SpaceImage;
  readonly #warn: (sentence: string) => void;
  readonly #vdso: VdsoBuilder;
  #site: Range = { start: 0n, end: 0n };
  /** Before anything is changed. */
  #found: readonly MappedArea[] = [];
  /** Its executable comes with the image: nobody may run what is still written. */
  readonly exeComesLate: boolean;

  constructor(
    task: NewTask,
    space: SpaceImage,
    { along, warn }: { along: (path: string) => boolean; warn: (sentence: string) => void },
  ) {
    this.#task = task;
    this.#space = space;
    this.#warn = warn;
    this.#vdso = new VdsoBuilder(task, space);
    const { exe, exeShm } = space.record;
    this.exeComesLate = exeShm !== undefined || along(exe.path);
  }

  /** Where the kernel's vdso is, and the session's. */
  get vdso(): VdsoBuilder {
    return this.#vdso;
  }

  /** First: afterwards the task's call site is a new one, that can stay. */
  *moveCallSite(): Asking<void> {
    this.#found = readAreas(this.#task.tid, 'maps').filter((area) => area.path !== '[vsyscall]');
    const start = findGap([...this.#found, ...this.#space.areas], siteLength);
    this.#site = { start, end: start + siteLength };
    this.#task.site = yield* makeCallSite(this.#task.tid, start);
  }

  /** Then: everything but the contents. */
  *map(remote: Remote, segments: Segments): Asking<void> {
    const kept = this.#vdso.place(this.#found, this.#site);
    // The areas themselves stay too: a fork has handed them down.
    yield* this.#unmapAllBut([...kept, this.#site, ...this.#space.areas.filter((area) => area.inherited)]);
    yield* this.#mapAreas(remote, segments);
    yield* this.#describe(remote);
  }

  /** Advice, locks, and what holds for all of it; then the call site is all that is not the session's. */
  *finish(remote: Remote): Asking<void> {
    this.#vdso.setDetours();
    const calls: Word[][] = [];
    yield* this.#setGuards();
    for (const area of this.#space.areas) {
      const length = area.end - area.start;
      for (const advice of area.advice ?? [])
        calls.push([SYS.madvise, area.start, length, adviceNumbers[advice]]);
      if (area.locked || area.lockOnFault)
        calls.push([SYS.mlock2, area.start, length, area.lockOnFault ? 1 : 0]);
    }
    yield* attempt(calls, (index) => {
      const call = calls[index]!;
      this.#warn(
        `memory at ${hex(call[1]!)}: ${call[0] === SYS.mlock2 ? 'could not be locked' : 'advice could not be given'}`,
      );
    });
    for (const area of this.#space.areas) if (area.name !== undefined) this.#name(remote, area);
    yield* setMemoryAttributes(this.#space.record, this.#warn);
  }

  /** Take the call site away; the task, which calls singly now, can make no call after this. */
  *removeCallSite(): Asking<void> {
    yield* attempt([[SYS.munmap, this.#site.start, this.#site.end - this.#site.start]], (_index, errno) => {
      throw new RemoteError('munmap', Number(errno));
    });
  }

  /** Before the areas are locked, which forbids it. */
  *#setGuards(): Asking<void> {
    const guards = this.#space.areas.flatMap((area) => area.guards ?? []);
    const calls = guards.map(({ start, end }) => [SYS.madvise, start, end - start, MADV_GUARD_INSTALL]);
    yield* attempt(calls, (index, errno) => {
      throw new PodError(
        'cannot-restart',
        `the session has a guard region at ${hex(calls[index]![1]!)}, which can't be made here (errno ${errno})`,
        'guard regions (MADV_GUARD_INSTALL) need Linux 6.13 or later',
      );
    });
  }

  #name(remote: Remote, area: Area): void {
    remote.reset();
    const name = remote.putString(area.name!);
    remote.run([[SYS.prctl, PR.setVma, PR.setVmaAnonName, area.start, area.end - area.start, name]]);
  }

  *#unmapAllBut(kept: readonly Range[]): Asking<void> {
    const calls: Word[][] = [];
    let at = lowest;
    for (const range of [...kept].sort((a, b) => (a.start < b.start ? -1 : 1))) {
      if (range.start > at) calls.push([SYS.munmap, at, range.start - at]);
      at = range.end;
    }
    calls.push([SYS.munmap, at, highest - at]);
    yield* attempt(calls, (_index, errno) => {
      throw new PodError('other', `an address space could not be emptied (errno ${errno})`);
    });
  }

  *#mapAreas(remote: Remote, segments: Segments): Asking<void> {
    let calls: Word[][] = [];
    let open = new Map<string, bigint>();
    const flush = function* (): Asking<void> {
      yield* attempt([...calls, ...[...open.values()].map((fd) => [SYS.close, fd])], (index, errno) => {
        if (index >= calls.length) return;
        throw new PodError(
          'cannot-restart',
          `memory at ${hex(calls[index]![1]!)} can't be mapped (errno ${errno})`,
          errno === 12n ? 'there is not enough memory, or ulimit -v is too small' : undefined,
        );
      });
      calls = [];
      open = new Map();
    };
    const attachments = this.#attachments(segments);
    for (const [index, area] of this.#space.areas.entries()) {
      if (area.kind === 'vvar' || (area.kind === 'vdso' && !this.#vdso.isForeign)) continue;
      const attachment = attachments.get(area);
      if (attachment) {
        yield* flush();
        if (attachment.areas[0] === area) attachSysvSegment(attachment, remote);
        continue;
      }
      const length = area.end - area.start;
      const prot = protAtFirst(area.prot);
      if (area.inherited) {
        calls.push([SYS.mprotect, area.start, length, prot]);
        continue;
      }
      const flags = MAP.fixed | (area.noReserve ? MAP.noReserve : 0) | (area.growsDown ? MAP.growsDown : 0);
      if (area.droppable) {
        yield* flush();
        mapDroppable(remote, area, flags);
      } else if (area.kind === 'anonymous' || area.kind === 'vdso') {
        calls.push([SYS.mmap, area.start, length, prot, flags | MAP.private | MAP.anonymous, -1, 0]);
      } else if (area.kind === 'shm') {
        calls.push([
          SYS.mmap,
          area.start,
          length,
          prot,
          flags | (area.shared ? MAP.shared : MAP.private),
          segments.descriptor(area.shm ?? -1, isReadOnly(area)),
          area.offset ?? 0n,
        ]);
      } else {
        const { key, path, mode } = mappedFile(area);
        if (!open.has(key) || area.flock !== undefined) {
          yield* flush();
          // One that carries a lock is an open file of its own.
          open = yield* openTogether(
            remote,
            area.flock === undefined ? this.#filesFrom(index) : [{ key, path, mode }],
          );
        }
        const fd = open.get(key)!;
        if (area.flock !== undefined) lockMapped(area.flock, remote, this.#task.tid, fd, path);
        calls.push([
          SYS.mmap,
          area.start,
          length,
          prot,
          flags | (area.shared ? MAP.shared : MAP.private),
          fd,
          area.offset ?? 0n,
        ]);
        if (area.flock !== undefined) yield* flush();
      }
    }
    yield* flush();
  }

  /** Files of the areas from this one on, to be opened together. */
  #filesFrom(first: number): MappedFile[] {
    const files = new Map<string, MappedFile>();
    for (let index = first; index < this.#space.areas.length && files.size < mostOpen; index++) {
      const area = this.#space.areas[index]!;
      if (area.kind !== 'file' || area.inherited || area.flock !== undefined) continue;
      const file = mappedFile(area);
      files.set(file.key, file);
    }
    return [...files.values()];
  }

  /** Areas of System V segments: those at one base are one attachment. */
  #attachments(segments: Segments): Map<Area, Attachment> {
    const found = new Map<Area, Attachment>();
    const byBase = new Map<string, Attachment & { areas: Area[] }>();
    for (const area of this.#space.areas) {
      const segment = area.kind === 'shm' ? segments.sysv(area.shm ?? -1) : undefined;
      if (!segment) continue;
      const key = `${segment.id} ${area.start - (area.offset ?? 0n)}`;
      const attachment = byBase.get(key) ?? { ...segment, areas: [] };
      byBase.set(key, attachment);
      attachment.areas.push(area);
      found.set(area, attachment);
    }
    return found;
  }

  /** Name an executable that comes with the image, when its bytes are there: a descriptor of the task, closed here. */
  setExecutable(fd: number | bigint): void {
    const { remote } = this.#task;
    remote.ask(this.#setMap(remote, BigInt(fd)));
  }

  *#describe(remote: Remote): Asking<void> {
    const { path } = this.#space.record.exe;
    // An heir has its base's executable already, and while areas of it are mapped can't name it again.
    const given = this.exeComesLate || this.#space.record.base !== undefined;
    const exe = given ? undefined : (yield* openTogether(remote, [{ key: path, path, mode: 0 }])).get(path);
    yield* this.#setMap(remote, exe);
    // While it is filled: a page here and there must not take two megabytes each, where the kernel always does so.
    yield [[SYS.prctl, PR.setThpDisable, 1, 0, 0, 0]];
  }

  /** prctl(PR_SET_MM, PR_SET_MM_MAP): struct prctl_mm_map. Without an executable that of the builder stays. */
  *#setMap(remote: Remote, exe: bigint | undefined): Asking<void> {
    const { record } = this.#space;
    remote.reset();
    const auxv = remote.put(record.auxv);
    const bytes = new Uint8Array(8 * 11 + 8 + 8);
    const view = new DataView(bytes.buffer);
    const order = [
      'startCode',
      'endCode',
      'startData',
      'endData',
      'startBrk',
      'brk',
      'startStack',
      'argStart',
      'argEnd',
      'envStart',
      'envEnd',
    ] as const;
    order.forEach((key, index) => {
      view.setBigUint64(8 * index, record[key], true);
    });
    view.setBigUint64(88, auxv, true);
    view.setUint32(96, record.auxv.length, true);
    view.setInt32(100, Number(exe ?? -1n), true);
    const map = remote.put(bytes);
    const set = [SYS.prctl, PR.setMm, PR.setMmMap, map, bytes.length, 0];
    let result = (yield [set])[0]!;
    if (result < 0n && exe !== undefined) {
      // Without the right to name another executable everything else can still be set.
      const errno = -result;
      view.setInt32(100, -1, true);
      native().writeMemory(this.#task.tid, map, bytes);
      result = (yield [set])[0]!;
      if (result >= 0n && !this.#runs(exe))
        this.#warn(`/proc/self/exe of process ${this.#task.inner} could not be set (errno ${errno})`);
    }
    if (result < 0n)
      throw new PodError(
        'cannot-restart',
        `the layout of process ${this.#task.inner} is not accepted (errno ${-result})`,
      );
    if (exe !== undefined) yield [[SYS.close, exe]];
  }

  /** Whoever was forked with its memory has the executable already, which can't be set while it is mapped. */
  #runs(exe: bigint): boolean {
    const [running, wanted] = ['exe', `fd/${exe}`].map((link) =>
      statSync(`/proc/${this.#task.tid}/${link}`, { bigint: true, throwIfNoEntry: false }),
    );
    return running !== undefined && running.ino === wanted?.ino && running.dev === wanted.dev;
  }
}

/** Before Linux 6.11 nothing of it ever vanishes, which nobody minds. */
function mapDroppable(remote: Remote, { start, end, prot }: Area, flags: number): void {
  const map = (type: number) =>
    remote.run([[SYS.mmap, start, end - start, prot, flags | type | MAP.anonymous, -1, 0]])[0]!;
  if (map(MAP.droppable) < 0n && map(MAP.private) < 0n)
    throw new PodError('cannot-restart', `memory at ${hex(start)} can't be mapped`);
}

const MADV_GUARD_INSTALL = 102;

const adviceNumbers = {
  dontfork: 10,
  wipeonfork: 18,
  hugepage: 14,
  nohugepage: 15,
  dontdump: 16,
  mergeable: 12,
  sequential: 2,
  random: 1,
} as const;

const hex = (word: Word) => word.toString(16);

interface MappedFile {
  key: string;
  path: string;
  mode: number;
}

/** Files that are open at once while areas are mapped: their paths must fit into the data area. */
const mostOpen = 16;

function mappedFile(area: Area): MappedFile {
  const { path } = area.file!;
  const mode = area.shared && ((area.maxProt ?? area.prot) & PROT.write) !== 0 ? O.rdwr : 0;
  return { key: `${mode} ${path}`, path, mode };
}

/** A descriptor of the task for a file that it maps, or runs. */
export function openMapped(remote: Remote, path: string, mode: number): bigint {
  return remote.ask(openTogether(remote, [{ key: path, path, mode }])).get(path)!;
}

/** The same for many, by key. */
function* openTogether(remote: Remote, files: readonly MappedFile[]): Asking<Map<string, bigint>> {
  remote.reset();
  const calls = files.map(({ path, mode }) => [
    SYS.openat,
    AT_FDCWD,
    remote.putString(path),
    mode | O.cloexec,
  ]);
  const results = yield calls;
  return new Map(
    files.map(({ key, path }, index) => {
      const fd = results[index]!;
      if (fd < 0n)
        throw new PodError(
          'cannot-restart',
          `${path} can't be opened (errno ${-fd})`,
          'the session needs this file where it was; see pod-filter relocate',
        );
      return [key, fd];
    }),
  );
}
