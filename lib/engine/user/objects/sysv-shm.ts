/**
 * System V shared memory: shmget(2), with its id and key. A pod has ids of its own, so all of them are the
 * session's, also those that nobody has attached (sysv-unattached.ts); of a session without a pod, those it has attached. An attachment may lie in several areas, parts of it
 * protected otherwise or unmapped: it is one again, so that shmdt(2) finds all of it.
 */
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { PodError } from '../../../stream/error.ts';
import { PROT, SYS } from '../abi.ts';
import type { Remote, Word } from '../remote.ts';
import { errnoName } from './local-calls.ts';
import { protAtFirst } from './protection-keys.ts';
import { createUnderNumber, IPC_CREAT, IPC_EXCL, IPC_RMID, parsePermissions } from './sysv-ipc.ts';

export type SysvRecord = NonNullable<Records['shm']['sysv']>;

/** What the kernel tells of a segment. */
export interface SysvSegment extends SysvRecord {
  size: bigint;
  /** Areas that are attached to it, of any process. */
  attached: bigint;
}

const IPC_SET = 1;
const SHM_LOCK = 11;
const IPC_STAT = 2;
const SHM_INFO = 14;
/** Needs no permission to read. */
const SHM_STAT_ANY = 15;
export const SHM_RDONLY = 0o10000;
const SHM_EXEC = 0o100000;
const SHM_NORESERVE = 0o10000;
/** In the mode: to be destroyed when nobody has it attached; not to be swapped. */
const SHM_DEST = 0o1000;
const SHM_LOCKED = 0o2000;
/** struct shmid64_ds */
const structSize = 112;

/** All segments that the process can name, by id. */
export function listSysvSegments(remote: Remote): Map<number, SysvSegment> {
  const segments = new Map<number, SysvSegment>();
  remote.reset();
  const [highest] = remote.run([[SYS.shmctl, 0, SHM_INFO, remote.reserve(64)]]);
  for (let first = 0; first <= Number(highest); ) {
    remote.reset();
    const count = Math.min(Number(highest) + 1 - first, Math.floor(remote.room / structSize) - 1, 128);
    const address = remote.reserve(count * structSize);
    const calls = Array.from({ length: count }, (_each, index): Word[] => [
      SYS.shmctl,
      first + index,
      SHM_STAT_ANY,
      address + BigInt(index * structSize),
    ]);
    const ids = remote.run(calls);
    const bytes = remote.read(address, count * structSize);
    ids.forEach((id, index) => {
      if (id >= 0n) segments.set(Number(id), parse(Number(id), bytes.subarray(index * structSize)));
    });
    first += count;
  }
  return segments;
}

function parse(id: number, bytes: Uint8Array): SysvSegment {
  const view = new DataView(bytes.buffer, bytes.byteOffset, structSize);
  const object = parsePermissions(id, view);
  return {
    ...object,
    mode: object.mode & (0o777 | SHM_DEST | SHM_LOCKED),
    size: view.getBigUint64(48, true),
    attached: view.getBigUint64(88, true),
  };
}

/** Whether an area is an attachment; its inode is the segment's id. */
export const isSysvArea = (path: string): boolean => /^\/SYSV[0-9a-f]{8} \(deleted\)$/.test(path);

/** Make a segment in the builder, and attach it there to be filled: the address. */
export function makeSysvSegment(record: Records['shm'], builder: Remote): bigint {
  const { id, key, mode } = record.sysv!;
  // Pages that are never written to need no room: it is had as they come.
  const flags = IPC_CREAT | IPC_EXCL | SHM_NORESERVE | (mode & 0o777) | 0o600;
  const create: Word[] = [SYS.shmget, key, record.size, flags];
  const remove = (made: bigint): Word[] => [SYS.shmctl, made, IPC_RMID, 0];
  const { made, right } = createUnderNumber('shm_next_id', id, { create, remove }, builder);
  if (!right) {
    throw new PodError(
      'cannot-restart',
      `System V shared memory ${id} (key ${key}) can't be made${made < 0n ? ` (${errnoName(Number(-made))})` : ' under its number'}`,
      made < 0n
        ? 'see kernel.shmmax, kernel.shmall and the free memory'
        : 'restart as root: before Linux 5.19 nobody else may choose the number',
    );
  }
  return builder.call('shmat', SYS.shmat, id, 0, 0);
}

/** Its bytes are there, and everybody has it attached. */
export function settleSysvSegment(
  record: Records['shm'],
  address: bigint,
  builder: Remote,
  warn: (sentence: string) => void,
): void {
  const { id, uid, gid, cuid, cgid, mode } = record.sysv!;
  const attempt = (what: string, ...words: Word[]) => {
    const [result] = builder.run([words]);
    if (result! < 0n)
      warn(`System V shared memory ${id}: its ${what} could not be set (${errnoName(Number(-result!))})`);
  };
  builder.reset();
  const place = builder.reserve(structSize);
  builder.call('IPC_STAT', SYS.shmctl, id, IPC_STAT, place);
  const bytes = builder.read(place, structSize);
  const view = new DataView(bytes.buffer);
  if (view.getUint32(12, true) !== cuid || view.getUint32(16, true) !== cgid)
    warn(`System V shared memory ${id} has another creator now`);
  view.setUint32(4, uid, true);
  view.setUint32(8, gid, true);
  view.setUint32(20, mode & 0o777, true);
  native().writeMemory(builder.tid, place, bytes);
  attempt('owner', SYS.shmctl, id, IPC_SET, place);
  if ((mode & SHM_LOCKED) !== 0) attempt('lock in memory', SYS.shmctl, id, SHM_LOCK, 0);
  builder.call('shmdt', SYS.shmdt, address);
  if ((mode & SHM_DEST) !== 0) attempt('removal', SYS.shmctl, id, IPC_RMID, 0);
}

/** One attachment in a task: areas of one segment at one base, ascending. */
export interface Attachment {
  id: number;
  size: bigint;
  areas: readonly { start: bigint; end: bigint; prot: number; offset?: bigint; maxProt?: number }[];
}

/** Attach a segment somewhere, move each part to its place, protect it, and drop the rest. */
export function attachSysvSegment({ id, size, areas }: Attachment, remote: Remote): void {
  const readOnly = areas.every(({ maxProt }) => maxProt !== undefined && (maxProt & PROT.write) === 0);
  const executable = areas.some(({ prot }) => (prot & PROT.exec) !== 0);
  const flags = (readOnly ? SHM_RDONLY : 0) | (executable ? SHM_EXEC : 0);
  const at = remote.call('shmat', SYS.shmat, id, 0, flags);
  let covered = at;
  for (const { start, end, prot, offset = 0n } of areas) {
    const length = end - start;
    const from = at + offset;
    if (from > covered) remote.call('munmap', SYS.munmap, covered, from - covered);
    remote.call('mremap', SYS.mremap, from, length, length, MREMAP_MAYMOVE_FIXED, start);
    remote.call('mprotect', SYS.mprotect, start, length, protAtFirst(prot));
    covered = from + length;
  }
  const rest = at + ((size + 4095n) & ~4095n) - covered;
  if (rest > 0n) remote.call('munmap', SYS.munmap, covered, rest);
}

const MREMAP_MAYMOVE_FIXED = 3;
