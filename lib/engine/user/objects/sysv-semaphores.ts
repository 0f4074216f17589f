/**
 * System V semaphores: semget(2). A pod has ids of its own, so all of them are the session's.
 *
 * What the kernel gives back when a process ends (SEM_UNDO) it tells nobody. But it keeps each of these numbers between
 * -32768 and 32767, and an operation that would lead out of there fails with ERANGE, before one that would have to wait
 * fails with EAGAIN. So a row of operations on one semaphore, of which the last always fails, finds the number by
 * bisection: the whole row is taken back, under the kernel's lock, as if it had never been asked for.
 */
import type { Records } from '../../../image/record.ts';
import { PodError } from '../../../stream/error.ts';
import { SYS } from '../abi.ts';
import { describeProcess } from '../proc.ts';
import { type Remote, RemoteError } from '../remote.ts';
import type { SessionProcess, SessionThread, SessionView } from '../session-view.ts';
import { SharedObjects, shares } from '../sharing.ts';
import type { OutRecord } from './file-object.ts';
import { errnoName } from './local-calls.ts';
import {
  askAny,
  IPC_CREAT,
  IPC_EXCL,
  listSysv,
  makeUnderNumber,
  type SysvKind,
  setPermissions,
} from './sysv-ipc.ts';

type Record = Records['sysv-semaphores'];
type Undo = NonNullable<Record['undo']>[number];

const GETALL = 13;
const SETALL = 17;
const SEM_UNDO = 0x1000;
const IPC_NOWAIT = 0o4000;
const EAGAIN = 11n;
const ERANGE = 34n;
const largest = 32767;
/** The least a process may give back is -32768. */
const most = 32768;
/** struct sembuf: u16 number, s16 operation, s16 flags. */
const sembuf = 6;
/** A frame's meta ends at 64 KiB. */
const mostUndo = 1024;

const kind: SysvKind = {
  name: 'semaphores',
  call: SYS.semctl,
  before: [0],
  info: 19,
  statAny: 20,
  structSize: 104,
  nextId: 'sem_next_id',
};
/** sem_nsems in struct semid64_ds. */
const countOffset = 80;

interface Operation {
  number: number;
  change: number;
  undo?: boolean;
  noWait?: boolean;
}

function encode(operations: readonly Operation[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(operations.length * sembuf));
  operations.forEach(({ number, change, undo, noWait }, index) => {
    view.setUint16(index * sembuf, number, true);
    view.setInt16(index * sembuf + 2, change, true);
    view.setInt16(index * sembuf + 4, (undo ? SEM_UNDO : 0) | (noWait ? IPC_NOWAIT : 0), true);
  });
  return new Uint8Array(view.buffer);
}

/**
 * Operations on a semaphore of this value that leave it as it is and lower what a process has to give back by `by`
 * (raise it, when that is negative).
 */
function shift(number: number, value: number, by: number): Operation[] {
  const sign = Math.sign(by);
  const operations: Operation[] = [];
  for (let left = Math.abs(by); left > 0; ) {
    // Up first or down first, whichever leaves more room.
    const up = largest - value >= value;
    const step = Math.min(left, up ? largest - value : value);
    const pair = [
      { number, change: sign * step, undo: true },
      { number, change: -sign * step },
    ];
    operations.push(...(sign > 0 === up ? pair : pair.reverse()));
    left -= step;
  }
  return operations;
}

/**
 * Whether the number that the process gives back to a semaphore, lowered by `by`, leaves its range. An errno when the
 * process may not ask.
 */
function leavesRange(id: number, number: number, value: number, by: number, remote: Remote): boolean {
  remote.reset();
  const row = [...shift(number, value, by), { number, change: -value - 1, noWait: true }];
  const [result] = remote.run([[SYS.semop, id, remote.put(encode(row)), row.length]]);
  if (result === -ERANGE) return true;
  if (result === -EAGAIN) return false;
  throw new RemoteError('semop', Number(-result!));
}

/** What the process whose task `remote` is gives back to a semaphore at its end. */
function findUndo(id: number, number: number, value: number, remote: Remote): number {
  // Most that it can be lowered by: low never leaves the range, high does. Nearly always there is nothing to give back.
  let low = 0;
  let high = 2 * most;
  for (
    let guess = most;
    high - low > 1;
    guess = guess === most && low === most ? most + 1 : (low + high) >> 1
  ) {
    if (leavesRange(id, number, value, guess, remote)) high = guess;
    else low = guess;
  }
  return low - most;
}

/** The sets of a pod, with what its processes give back. `init`: host pid of pod-init, which gives nothing back. */
export function dumpSemaphores(view: SessionView, init: number): OutRecord[] {
  const sets = view.within(view.alive[0]!.pid, (remote) => listSysv(kind, remote));
  if (sets.length === 0) return [];
  const givers = findGivers(view, init);
  return sets.map(({ object, view: status }) => {
    const count = Number(status.getBigUint64(countOffset, true));
    const values = askAny(view, kind, object, (remote) => readValues(object.id, count, remote));
    const undo = givers.flatMap((giver) => undoOf(view, giver, object.id, values));
    if (undo.length > mostUndo) {
      throw new PodError(
        'cannot-checkpoint',
        `processes of the session give ${undo.length} values back to System V semaphores ${object.id}, more than the ${mostUndo} an image can say`,
        'let some of them end first',
      );
    }
    return {
      name: 'sysv-semaphores',
      meta: { ...object, count, ...(undo.length > 0 ? { undo } : {}) },
      data: new Uint8Array(values.buffer),
    };
  });
}

function readValues(id: number, count: number, remote: Remote): Uint16Array {
  remote.reset();
  const place = remote.reserve(count * 2);
  remote.call('GETALL', SYS.semctl, id, 0, GETALL, place);
  return new Uint16Array(remote.read(place, count * 2).slice().buffer);
}

/** A thread with a list of what is given back: that of its process as a rule. */
interface Giver {
  process: SessionProcess;
  thread: SessionThread;
  /** Another process, or not all of its process, has the same list. */
  odd: boolean;
}

/** Who may have something to give back. The list comes with the first use, and with the first thread. */
function findGivers(view: SessionView, init: number): Giver[] {
  const lists = new SharedObjects('sysvsem');
  const givers = new Map<number, Giver>();
  for (const process of view.alive) {
    for (const thread of process.threads) {
      if (shares(init, thread.tid, 'sysvsem')) continue;
      const { id, first } = lists.find(thread.tid);
      if (first) givers.set(id, { process, thread, odd: thread.tid !== process.pid });
      else if (givers.get(id)!.process !== process) givers.get(id)!.odd = true;
    }
  }
  return [...givers.values()];
}

function undoOf(view: SessionView, giver: Giver, id: number, values: Uint16Array): Undo[] {
  const { process, thread, odd } = giver;
  const found: Undo[] = [];
  try {
    view.within(
      process.pid,
      (remote) => {
        values.forEach((value, number) => {
          const adjust = findUndo(id, number, value, remote);
          if (adjust !== 0) found.push({ pid: process.innerPid, number, adjust });
        });
      },
      thread,
    );
  } catch (cause) {
    if (!(cause instanceof RemoteError)) throw cause;
    view.losses.push(
      `what ${describeProcess(process.pid)} gives back to System V semaphores ${id} at its end (SEM_UNDO): it may not use them any more (${errnoName(cause.errno)})`,
    );
  }
  if (odd && found.length > 0) {
    throw new PodError(
      'cannot-checkpoint',
      `${describeProcess(process.pid)}, System V semaphores ${id}: what it gives back at its end (SEM_UNDO) is shared by another process, or not by all of its threads`,
      'let the program give the semaphore back first',
    );
  }
  return found;
}

/** Make a set in the builder. */
export function makeSemaphores(
  { record, data }: { record: Record; data: Uint8Array },
  builder: Remote,
): void {
  const flags = IPC_CREAT | IPC_EXCL | 0o600;
  makeUnderNumber(kind, record, [SYS.semget, record.key, record.count, flags], builder);
  builder.reset();
  builder.call('SETALL', SYS.semctl, record.id, 0, SETALL, builder.put(data));
}

/** All tasks are there: what they give back, and last the owner, who may take the right to do so from them. */
export function settleSemaphores(
  { record, data }: { record: Record; data: Uint8Array },
  builder: Remote,
  find: (pid: number) => Remote | undefined,
  warn: (sentence: string) => void,
): void {
  const values = new DataView(data.buffer, data.byteOffset, data.length);
  for (const { pid, number, adjust } of record.undo ?? []) {
    const remote = find(pid);
    if (!remote)
      throw new PodError('damaged', `semaphores ${record.id} name process ${pid}, which is not alive`);
    remote.reset();
    const row = shift(number, values.getUint16(number * 2, true), -adjust);
    remote.call('semop', SYS.semop, record.id, remote.put(encode(row)), row.length);
  }
  setPermissions(kind, record, builder, warn);
}
