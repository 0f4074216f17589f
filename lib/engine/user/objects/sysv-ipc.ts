/** What kinds of System V IPC have in common: how they are listed, numbered, and owned. */
import { native } from '../../../../native/index.ts';
import { PodError } from '../../../stream/error.ts';
import { AT_FDCWD, O, SYS } from '../abi.ts';
import { type Remote, RemoteError, type Word } from '../remote.ts';
import type { SessionView } from '../session-view.ts';
import { errnoName } from './local-calls.ts';

/** struct ipc64_perm, and the number of the object. */
export interface SysvObject {
  id: number;
  key: number;
  uid: number;
  gid: number;
  cuid: number;
  cgid: number;
  mode: number;
}

/** How one kind is asked for: its ctl call without the command, which goes behind `before`. */
export interface SysvKind {
  /** For messages: `semaphores`. */
  name: string;
  call: number;
  /** Words between the id and the command: semctl(2) has the number of a semaphore there. */
  before: readonly Word[];
  info: number;
  /** Needs no permission to read. */
  statAny: number;
  structSize: number;
  /** /proc/sys/kernel/… for the number of the next one. */
  nextId: string;
}

export const IPC_CREAT = 0o1000;
export const IPC_EXCL = 0o2000;
export const IPC_RMID = 0;
const IPC_SET = 1;
const IPC_STAT = 2;
const EINVAL = 22;

/** All that the process's namespace has, with their structs. A kernel without this kind has none. */
export function listSysv(kind: SysvKind, remote: Remote): { object: SysvObject; view: DataView }[] {
  const found: { object: SysvObject; view: DataView }[] = [];
  remote.reset();
  const [highest] = remote.run([[kind.call, 0, ...kind.before, kind.info, remote.reserve(64)]]);
  for (let index = 0; index <= Number(highest); index++) {
    remote.reset();
    const place = remote.reserve(kind.structSize);
    const [id] = remote.run([[kind.call, index, ...kind.before, kind.statAny, place]]);
    if (id === -BigInt(EINVAL)) continue;
    if (id! < 0n) {
      throw new PodError(
        'cannot-checkpoint',
        `the session's System V ${kind.name} can't be looked at (${errnoName(Number(-id!))})`,
        'dump as root',
      );
    }
    const view = new DataView(remote.read(place, kind.structSize).slice().buffer);
    const object = parsePermissions(Number(id), view);
    found.push({ object: { ...object, mode: object.mode & 0o777 }, view });
  }
  return found;
}

const EACCES = 13;

/** Ask whichever process of the session has the right to; `ask` throws RemoteError. */
export function askAny<Result>(
  view: SessionView,
  kind: SysvKind,
  { id }: SysvObject,
  ask: (remote: Remote) => Result,
): Result {
  let errno = EACCES;
  for (const { pid } of view.alive) {
    try {
      return view.within(pid, ask);
    } catch (cause) {
      if (!(cause instanceof RemoteError)) throw cause;
      errno = cause.errno;
      if (errno !== EACCES) break;
    }
  }
  throw new PodError(
    'cannot-checkpoint',
    `System V ${kind.name} ${id} can't be read by any process of the session (${errnoName(errno)})`,
    errno === EACCES ? 'let their owner give the right to read them' : undefined,
  );
}

/** struct ipc64_perm; the mode with all its marks. */
export function parsePermissions(id: number, view: DataView): SysvObject {
  return {
    id,
    key: view.getInt32(0, true),
    uid: view.getUint32(4, true),
    gid: view.getUint32(8, true),
    cuid: view.getUint32(12, true),
    cgid: view.getUint32(16, true),
    mode: view.getUint32(20, true),
  };
}

/**
 * Make one by `create`, under the number it had: what `create` said, and whether it got the number. Those of a kind are
 * made in the order of their numbers; `remove` is the call that takes one away again.
 */
export function createUnderNumber(
  nextId: string,
  id: number,
  { create, remove }: { create: Word[]; remove: (id: bigint) => Word[] },
  builder: Remote,
): { made: bigint; right: boolean } {
  builder.reset();
  const path = builder.putString(`/proc/sys/kernel/${nextId}`);
  const text = builder.put(Buffer.from(String(id)));
  const [fd] = builder.run([[SYS.openat, AT_FDCWD, path, O.wronly | O.cloexec]]);
  if (fd === -BigInt(EACCES)) return stepTo(BigInt(id), create, remove, builder);
  if (fd! < 0n) throw new RemoteError(`open ${nextId}`, Number(-fd!));
  const [written] = builder.run([
    [SYS.write, fd!, text, String(id).length],
    [SYS.close, fd!],
  ]);
  const made = builder.run([create])[0]!;
  return { made, right: written! >= 0n && made === BigInt(id) };
}

/** As many as can be made and removed in a moment. */
const mostSteps = 8192;

/**
 * Before Linux 5.19 only root of the computer may choose a number. But a new pod counts from 0, so a number that is
 * still to come is come to.
 */
function stepTo(
  id: bigint,
  create: Word[],
  remove: (id: bigint) => Word[],
  builder: Remote,
): { made: bigint; right: boolean } {
  for (let step = 0; step < mostSteps; step++) {
    const made = builder.run([create])[0]!;
    if (made < 0n || made === id) return { made, right: made === id };
    builder.run([remove(made)]);
    if (made > id) break;
  }
  return { made: 0n, right: false };
}

/** The same, or an error. */
export function makeUnderNumber(kind: SysvKind, object: SysvObject, create: Word[], builder: Remote): void {
  const { id, key } = object;
  const remove = (made: bigint): Word[] => [kind.call, made, ...kind.before, IPC_RMID, 0];
  const { made, right } = createUnderNumber(kind.nextId, id, { create, remove }, builder);
  if (right) return;
  throw new PodError(
    'cannot-restart',
    `System V ${kind.name} ${id} (key ${key}) can't be made${made < 0n ? ` (${errnoName(Number(-made))})` : ' under their number'}`,
    made < 0n
      ? 'see the limits of System V IPC (ipcs -l)'
      : 'restart as root: before Linux 5.19 nobody else may choose the number',
  );
}

/** Owner and mode; `more` sets what else the struct says. */
export function setPermissions(
  kind: SysvKind,
  object: SysvObject,
  builder: Remote,
  warn: (sentence: string) => void,
  more: (view: DataView) => void = () => undefined,
): void {
  builder.reset();
  const place = builder.reserve(kind.structSize);
  builder.call('IPC_STAT', kind.call, object.id, ...kind.before, IPC_STAT, place);
  const bytes = builder.read(place, kind.structSize);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  if (view.getUint32(12, true) !== object.cuid || view.getUint32(16, true) !== object.cgid)
    warn(`System V ${kind.name} ${object.id} have another creator now`);
  view.setUint32(4, object.uid, true);
  view.setUint32(8, object.gid, true);
  view.setUint32(20, object.mode, true);
  more(view);
  native().writeMemory(builder.tid, place, bytes);
  const [result] = builder.run([[kind.call, object.id, ...kind.before, IPC_SET, place]]);
  if (result! < 0n)
    warn(`System V ${kind.name} ${object.id}: their owner could not be set (${errnoName(Number(-result!))})`);
}
