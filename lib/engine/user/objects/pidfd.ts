/**
 * pidfd_open(2), CLONE_PIDFD: a process or a thread. It can be opened only when all tasks of the new session are there,
 * so a stand-in takes its numbers until then. Of one that is gone already the same is made of a process that ends.
 */
import { readlinkSync } from 'node:fs';
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { PIDFD_THREAD, SYS } from '../abi.ts';
import { RemoteError } from '../remote.ts';
import type { DumpContext, FileObject, OpenFile, RestoreContext } from './file-object.ts';
import { errnoName } from './local-calls.ts';
import { setStatusFlags } from './paths.ts';
import { shareFile } from './share-file.ts';

/** _IOWR(0xff, 11, struct pidfd_info) in its first size; mask, and where the wait status lies. */
const PIDFD_GET_INFO = 0xc040ff0b;
const PIDFD_INFO_EXIT = 8n;
const statusOffset = 60;

/** The wait status of one that was waited for; kernels from 6.15 on keep it. */
function lastStatus(local: number): number | undefined {
  const bytes = new Uint8Array(64);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, PIDFD_INFO_EXIT, true);
  try {
    native().syscall(SYS.ioctl, local, PIDFD_GET_INFO, bytes);
  } catch {
    return undefined;
  }
  if ((view.getBigUint64(0, true) & PIDFD_INFO_EXIT) === 0n) return undefined;
  return view.getUint32(statusOffset, true);
}

/** Pid 1 of the pod, which is no process of the session: `ids` are its pids, in the outer namespace first. */
function isPodInit(file: OpenFile, ids: readonly number[]): boolean {
  if (ids.length < 2 || ids.at(-1) !== 1) return false;
  const space = (pid: number) => readlinkSync(`/proc/${pid}/ns/pid`);
  return space(ids[0]!) === space(file.pid);
}

/** Id in the session of what the descriptor is of; 0 when it is gone. */
function targetOf(file: OpenFile, context: DumpContext): number {
  const hostPid = Number(file.info.get('Pid')?.[0] ?? 0);
  if (hostPid === -1) return 0;
  const inner = context.innerTid(hostPid);
  if (inner !== 0) return inner;
  const ids = (file.info.get('NSpid') ?? []).map(Number);
  if (hostPid > 0 && isPodInit(file, ids)) return 1;
  return context.refuse(
    file,
    `it is of process ${hostPid}, which is not of the session`,
    'let the program close it, or dump both processes in one session',
  );
}

export const pidfd: FileObject = {
  records: ['pidfd'],
  coverage:
    'process or thread of the session, also one that has ended, with its status where the kernel tells it; inode numbers are new. Refused: a process outside, one on its way through a unix socket',

  matches: (file) => /^(anon_inode:\[pidfd\]|pidfd:\[\d+\])$/.test(file.link),

  dump(file, context) {
    if (file.travels) {
      context.refuse(
        file,
        'a descriptor of a process (pidfd) is on its way through a unix socket',
        'let the program receive it first',
      );
    }
    const pid = targetOf(file, context);
    const status = pid === 0 ? lastStatus(file.local) : undefined;
    return [
      {
        name: 'pidfd',
        meta: {
          id: file.id,
          flags: file.flags,
          pid,
          ...((file.flags & PIDFD_THREAD) === 0 ? {} : { thread: true }),
          ...(status === undefined ? {} : { status }),
        },
      },
    ];
  },

  restore(_name, meta, context) {
    const record = meta as Records['pidfd'];
    // Of pid 1 until the tasks are there.
    const fd =
      record.pid === 0
        ? context.ended(record.status ?? 0, (pid) => open(pid, record, context))
        : context.builder.call('pidfd_open', SYS.pidfd_open, 1, 0);
    setStatusFlags(fd, record.flags, context);
    context.keep(record.id, fd);
  },

  restoreInTable(_name, meta, table, context) {
    const record = meta as Records['pidfd'];
    if (record.pid === 0) return 'done';
    const { builder } = context;
    const own = context.descriptor(record.id);
    context.once(`pidfd ${record.id}`, () => {
      const fd = open(record.pid, record, context);
      builder.call('dup3', SYS.dup3, fd, own, 0);
      builder.run([[SYS.close, fd]]);
      setStatusFlags(own, record.flags, context);
    });
    shareFile({ pid: 1, fd: own }, table.remote, table.numbers(record.id));
    return 'next-table';
  },
};

const ESRCH = 3;

function open(pid: number, { thread }: Records['pidfd'], context: RestoreContext): bigint {
  try {
    return context.builder.call('pidfd_open', SYS.pidfd_open, pid, thread ? PIDFD_THREAD : 0);
  } catch (cause) {
    if (!(cause instanceof RemoteError)) throw cause;
    if (cause.errno === ESRCH) {
      return context.refuse(
        `a descriptor is of ${thread ? 'thread' : 'process'} ${pid}, which the session does not have`,
        'the image does not fit together: load it again',
      );
    }
    return context.refuse(
      `a descriptor of ${thread ? 'thread' : 'process'} ${pid} can't be opened (${errnoName(cause.errno)})`,
      thread ? 'descriptors of threads need Linux 6.9 or later' : undefined,
    );
  }
}
