/**
 * Shared memory objects and files without a name, made in the builder: the tasks that map them or have them open
 * inherit them from it. Filled while the pages come in; what would stand in the way of that (seals, a mode, times)
 * is set when all are there.
 *
 * A file that was unlinked is never given a name, not for a moment: whatever happens to the restart, nothing of it
 * stays. So it is an O_TMPFILE in the folder it lay in, or where such a file can be made; failing that, memory.
 */
import { writeSync } from 'node:fs';
import { posix } from 'node:path';
import { native } from '../../../native/index.ts';
import type { Records } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import { AT_FDCWD, F, O, PROT, SYS } from './abi.ts';
import { type ImageRecords, needed } from './image-records.ts';
import { borrow, closeLocal, codeOf, control } from './objects/local-calls.ts';
import { makeSysvSegment, settleSysvSegment } from './objects/sysv-shm.ts';
import { setAttributes, splitSeconds } from './places/attributes.ts';
import type { Remote } from './remote.ts';
import { segmentName } from './segment-name.ts';

type Record = Records['shm'];

interface Segment {
  record: Record;
  /** The builder's descriptor, for reading and writing. */
  fd?: number;
  /** System V: where the builder has it attached. */
  address?: bigint;
  /** The builder's descriptor for reading, when somebody maps it so. */
  reader?: number;
  /** Our own descriptor of the builder's, while it is filled. */
  local?: number;
}

/** The task in which they are made. */
export interface SegmentHost {
  /** Host tid. */
  readonly tid: number;
  readonly remote: Remote;
}

const MFD_ALLOW_SEALING = 2;
const F_SEAL_SEAL = 1;
const ST_NOEXEC = 8n;
/** Where unlinked files go when they can't be where they were. */
const otherFolders = ['/var/tmp', '/tmp'];

export class SegmentBuilder {
  readonly #builder: SegmentHost;
  readonly #remote: Remote;
  readonly #warn: (sentence: string) => void;
  readonly #segments = new Map<number, Segment>();

  constructor(builder: SegmentHost, warn: (sentence: string) => void) {
    this.#builder = builder;
    this.#remote = builder.remote;
    this.#warn = warn;
  }

  /** Make all of an image's. */
  make(image: Pick<ImageRecords, 'spaces' | 'segments'>): void {
    const executable = new Set<number>();
    const read = new Set<number>();
    for (const { record, areas } of image.spaces.values()) {
      if (record.exeShm !== undefined) executable.add(record.exeShm);
      for (const area of areas) {
        if (area.shm === undefined) continue;
        if ((area.prot & PROT.exec) !== 0) executable.add(area.shm);
        if (isReadOnly(area)) read.add(area.shm);
      }
    }
    // System V segments in the order of their numbers (createUnderNumber).
    const records = [...image.segments.values()].sort((a, b) => (a.sysv?.id ?? -1) - (b.sysv?.id ?? -1));
    for (const record of records) {
      const segment: Segment = { record };
      this.#segments.set(record.id, segment);
      if (record.origin === 'sysv') {
        segment.address = makeSysvSegment(record, this.#remote);
        continue;
      }
      segment.fd = this.#create(record, executable.has(record.id));
      segment.local = borrow(this.#builder.tid, segment.fd);
      if (read.has(record.id) || executable.has(record.id)) segment.reader = this.#open(segment.fd, 0);
    }
  }

  /** The builder's descriptor of an object: for reading and writing, or for reading. */
  descriptor(id: number, reading = false): number {
    const { record, reader, fd } = needed(this.#segments, id, 'shared memory');
    if (fd === undefined) throw new PodError('damaged', `${nameOf(record)} is no file`);
    return reading ? (reader ?? fd) : fd;
  }

  /** The record of a System V segment, which is not mapped but attached; undefined for anything else. */
  sysv(id: number): { id: number; size: bigint } | undefined {
    const { sysv, size } = needed(this.#segments, id, 'shared memory').record;
    return sysv && { id: sysv.id, size };
  }

  /** All descriptors of the builder. */
  get descriptors(): number[] {
    return [...this.#segments.values()].flatMap(({ fd, reader }) =>
      [fd, reader].filter((each) => each !== undefined),
    );
  }

  /** Pages of the image. What lies behind the end of a file fills its last page, and is not of it. */
  fill(id: number, at: bigint, data: Uint8Array): void {
    const { record, local, address } = needed(this.#segments, id, 'shared memory');
    if (at + BigInt(data.length) > ((record.size + 4095n) & ~4095n))
      throw new PodError('damaged', 'pages behind the end of shared memory');
    const rest = record.size - at;
    const length = rest < BigInt(data.length) ? Number(rest) : data.length;
    try {
      if (address !== undefined)
        native().writeMemory(this.#builder.tid, address + at, data.subarray(0, length));
      else
        for (let done = 0; done < length; )
          done += writeSync(local!, data, done, length - done, Number(at) + done);
    } catch (cause) {
      throw new PodError(
        'cannot-restart',
        `${nameOf(record)} can't be filled (${codeOf(cause)})`,
        codeOf(cause) === 'ENOSPC' ? 'make room on its file system, or in memory' : undefined,
        { cause },
      );
    }
  }

  /** All pages are there: what could not be set before them. */
  settle(): void {
    for (const segment of this.#segments.values()) {
      const { record, local, address } = segment;
      if (address !== undefined) {
        settleSysvSegment(record, address, this.#remote, this.#warn);
        continue;
      }
      if (record.origin !== 'anonymous') this.#setAttributes(record, local!);
      closeLocal(local!);
      delete segment.local;
    }
  }

  /** Nobody needs the builder's descriptors any more; what may be run must not be open for writing. */
  closeWriters(): void {
    const open = [...this.#segments.values()].flatMap(({ fd }) => (fd === undefined ? [] : [fd]));
    this.#remote.run(open.map((fd) => [SYS.close, fd]));
  }

  /** Our own descriptors; the builder's go with it. */
  close(): void {
    for (const segment of this.#segments.values()) {
      if (segment.local !== undefined) closeLocal(segment.local);
      delete segment.local;
    }
  }

  #create(record: Record, executable: boolean): number {
    const remote = this.#remote;
    const fd =
      record.origin === 'unlinked'
        ? this.#createFile(record, executable)
        : record.origin === 'named'
          ? this.#createNamed(record)
          : this.#createMemory(record);
    const [result] = remote.run([[SYS.ftruncate, fd, record.size]]);
    if (result! < 0n)
      throw new PodError(
        'cannot-restart',
        `${nameOf(record)} can't be as large as it was: ${record.size} bytes (errno ${-result!})`,
        'it lies on a file system of another kind than before',
      );
    return fd;
  }

  /** A memfd; one also stands in for anonymous shared memory. */
  #createMemory(record: Record): number {
    const remote = this.#remote;
    remote.reset();
    const name =
      record.origin === 'memfd'
        ? (record.name ?? '')
        : record.origin === 'unlinked'
          ? posix.basename(record.path ?? '')
          : segmentName;
    const sealable = record.seals !== undefined && record.seals !== F_SEAL_SEAL;
    const flags = sealable ? MFD_ALLOW_SEALING : 0;
    return Number(remote.call('memfd_create', SYS.memfd_create, remote.putString(name), flags));
  }

  #createFile(record: Record, executable: boolean): number {
    const path = record.path ?? '/';
    const folder = posix.dirname(path);
    // Only a file that never had a name can be given one.
    const linkable = /^#\d+$/.test(posix.basename(path));
    const flags = O.tmpfile | O.directory | O.rdwr | O.cloexec | (linkable ? 0 : O.excl);
    for (const each of [folder, ...otherFolders]) {
      const remote = this.#remote;
      remote.reset();
      const [fd] = remote.run([[SYS.openat, AT_FDCWD, remote.putString(each), flags, 0o600]]);
      if (fd! < 0n) continue;
      if (executable && this.#forbidsRunning(Number(fd))) {
        remote.run([[SYS.close, fd!]]);
        continue;
      }
      if (each !== folder) this.#warn(`${path}, which has no name any more, lies in ${each} now`);
      return Number(fd);
    }
    this.#warn(`${path}, which has no name any more, lies in memory now: no file can be made in its folder`);
    return this.#createMemory(record);
  }

  /** A file of the pod's own /dev/shm, which ends with the pod. */
  #createNamed(record: Record): number {
    const remote = this.#remote;
    remote.reset();
    const flags = O.creat | O.excl | O.rdwr | O.nofollow | O.cloexec;
    const [fd] = remote.run([[SYS.openat, AT_FDCWD, remote.putString(record.path!), flags, 0o600]]);
    if (fd! < 0n) throw new PodError('cannot-restart', `${nameOf(record)} can't be made (errno ${-fd!})`);
    return Number(fd);
  }

  /** Nothing on its file system may be run or mapped as a program (noexec). */
  #forbidsRunning(fd: number): boolean {
    const local = borrow(this.#builder.tid, fd);
    try {
      const bytes = new Uint8Array(120);
      native().syscall(SYS.fstatfs, local, bytes);
      // struct statfs: f_flags is its eleventh word.
      return (new DataView(bytes.buffer).getBigUint64(80, true) & ST_NOEXEC) !== 0n;
    } finally {
      closeLocal(local);
    }
  }

  #open(fd: number, flags: number): number {
    const remote = this.#remote;
    remote.reset();
    const path = remote.putString(`/proc/self/fd/${fd}`);
    return Number(remote.call('open', SYS.openat, AT_FDCWD, path, flags | O.cloexec));
  }

  #setAttributes(record: Record, local: number): void {
    const { uid, gid, mode, atimeNs, mtimeNs, seals } = record;
    const attempt = (what: string, make: () => void) => {
      try {
        make();
      } catch (cause) {
        this.#warn(`${nameOf(record)}: its ${what} could not be set (${codeOf(cause)})`);
      }
    };
    const addon = native();
    // The owner first: a change of it takes away bits of the mode.
    if (uid !== undefined && gid !== undefined)
      attempt('owner', () => addon.syscall(SYS.fchown, local, uid, gid));
    if (mode !== undefined) attempt('mode', () => addon.syscall(SYS.fchmod, local, mode & 0o7777));
    for (const each of record.attributes ?? [])
      attempt(`attribute ${each.name}`, () => setAttributes(local, [each]));
    if (atimeNs !== undefined && mtimeNs !== undefined) {
      const times = [atimeNs, mtimeNs].flatMap(splitSeconds);
      const bytes = new Uint8Array(BigInt64Array.from(times).buffer);
      attempt('times', () => addon.syscall(SYS.utimensat, local, null, bytes, 0));
    }
    if (record.origin !== 'memfd' || seals === undefined || seals === 0 || seals === F_SEAL_SEAL) return;
    try {
      control(local, F.addSeals, seals);
    } catch (cause) {
      throw new PodError(
        'cannot-restart',
        `${nameOf(record)}: its seals can't be set (${codeOf(cause)})`,
        'this kernel lacks one of them',
        { cause },
      );
    }
  }
}

/** Whether an area is mapped from a descriptor for reading: it must not become writable, or hold up what runs it. */
export function isReadOnly(area: { shared: boolean; maxProt?: number }): boolean {
  return !area.shared || (area.maxProt !== undefined && (area.maxProt & PROT.write) === 0);
}

function nameOf(record: Record): string {
  if (record.origin === 'memfd') return `memfd ${record.name ?? ''}`;
  if (record.origin === 'unlinked') return `${record.path}, which has no name any more`;
  if (record.origin === 'named') return `${record.path}`;
  return record.sysv ? `System V shared memory ${record.sysv.id}` : `shared memory ${record.id}`;
}
