/** Who gets SIGIO and SIGURG of an open file: F_SETOWN_EX and F_SETSIG of fcntl(2). */
import { F, SYS } from '../abi.ts';
import { inner, readStatus } from '../proc.ts';
import type { DumpContext, OpenFile, RestoreContext } from './file-object.ts';
import { control } from './local-calls.ts';

export interface Owner {
  /** F_OWNER_TID 0, PID 1, PGRP 2. */
  type: number;
  /** Id in the session. */
  pid: number;
  signal: number;
}

/** The owner, when it is in the session: `{ owner }`, else nothing. */
export function readOwner(file: OpenFile, context: DumpContext): { owner?: Owner } {
  const words = new Int32Array(2);
  control(file.local, F.getownEx, words);
  const [type, id] = words as unknown as [number, number];
  if (id <= 0) return {};
  const pid = innerId(id, context);
  return pid === 0 ? {} : { owner: { type, pid, signal: control(file.local, F.getsig) } };
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

/** When all tasks exist, and nothing can be signalled any more by what the restart does. */
export function armOwner(id: number, owner: Owner | undefined, context: RestoreContext): void {
  if (!owner) return;
  const { builder } = context;
  builder.reset();
  const fd = context.descriptor(id);
  const address = builder.put(new Uint8Array(new Int32Array([owner.type, owner.pid]).buffer));
  const results = builder.run([
    [SYS.fcntl, fd, F.setsig, owner.signal],
    [SYS.fcntl, fd, F.setownEx, address],
  ]);
  if ([...results].some((result) => result < 0n)) {
    context.warn(
      `process ${owner.pid} will not get the signals of one of its files: its owner could not be set`,
    );
  }
}
