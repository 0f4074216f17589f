/**
 * Who gets SIGIO and SIGURG of an open file: F_SETOWN_EX and F_SETSIG of fcntl(2); and whether it sends signals at
 * input, O_ASYNC. That is armed from inside, by the number that the signal will tell (si_fd), while there is no owner
 * yet: he comes last of all, so that nothing that is done before reaches him.
 */
import { F, O, SYS } from '../abi.ts';
import { describeProcess, inner, readStatus } from '../proc.ts';
import type { Remote, Word } from '../remote.ts';
import type { DumpContext, OpenFile, RestoreContext } from './file-object.ts';
import { control, errnoName } from './local-calls.ts';

const F_OWNER_PID = 1;

export interface Owner {
  /** F_OWNER_TID 0, PID 1, PGRP 2. */
  type: number;
  /** Id in the session. */
  pid: number;
  signal: number;
}

/** The owner, when it is in the session: `{ owner }`, else nothing. Without one, the signal alone, with pid 0. */
export function readOwner(file: OpenFile, context: DumpContext): { owner?: Owner } {
  const words = new Int32Array(2);
  control(file.local, F.getownEx, words);
  const [type, id] = words as unknown as [number, number];
  const signal = control(file.local, F.getsig);
  if (id <= 0) return signal === 0 ? {} : { owner: { type: F_OWNER_PID, pid: 0, signal } };
  const pid = innerId(id, context);
  if (pid !== 0) return { owner: { type, pid, signal } };
  if ((file.flags & O.async) !== 0 && isThere(id)) {
    context.loss(
      `the signals that descriptor ${file.fd} of ${describeProcess(file.pid)} sends to process ${id} outside`,
    );
  }
  return {};
}

/** Number in the session of a thread, process or group of ours. */
function innerId(id: number, context: DumpContext): number {
  try {
    const status = readStatus(id);
    return context.innerPid(Number(status.get('Tgid')?.[0] ?? 0)) === 0 ? 0 : inner(status, 'NSpid');
  } catch {
    return 0; // ended since
  }
}

function isThere(id: number): boolean {
  try {
    readStatus(id);
    return true;
  } catch {
    return false;
  }
}

/** When all tasks exist, and nothing can be signalled any more by what the restart does. */
export function armOwner(id: number, owner: Owner | undefined, context: RestoreContext): void {
  if (!owner) return;
  const { builder } = context;
  builder.reset();
  const fd = context.descriptor(id);
  const address = builder.put(new Uint8Array(new Int32Array([owner.type, owner.pid]).buffer));
  const calls: Word[][] = [[SYS.fcntl, fd, F.setsig, owner.signal]];
  if (owner.pid !== 0) calls.push([SYS.fcntl, fd, F.setownEx, address]);
  const results = builder.run(calls);
  if ([...results].some((result) => result < 0n)) {
    context.warn(
      `process ${owner.pid} will not get the signals of one of its files: its owner could not be set`,
    );
  }
}

/** An open file that may send signals, in the tasks that have it. */
interface AsyncFile {
  id: number;
  flags: number;
  owner?: Owner;
}

/** Set O_ASYNC where it was set. A lease sets it by itself, on a file that would not send anything else. */
export function armAsync(
  record: AsyncFile,
  holders: readonly { remote: Remote; pid: number; numbers(id: number): readonly number[] }[],
  context: RestoreContext,
): void {
  if ((record.flags & O.async) === 0) return;
  const having = holders.filter((holder) => holder.numbers(record.id).length > 0);
  const holder = having.find(({ pid }) => pid === record.owner?.pid) ?? having[0];
  const remote = holder?.remote ?? context.builder;
  const fd = holder?.numbers(record.id)[0] ?? context.descriptor(record.id);
  const flags = remote.call('F_GETFL', SYS.fcntl, fd, F.getfl, 0);
  const [result] = remote.run([[SYS.fcntl, fd, F.setfl, flags | BigInt(O.async)]]);
  if (result! < 0n) {
    context.refuse(
      `an open file that sent signals at input can't do so here (${errnoName(Number(-result!))})`,
      'the image does not fit together: load it again',
    );
  }
}
