/** How a thread is scheduled: sched(7), ioprio_set(2), and the share that its session has as a group (autogroup). */
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { native } from '../../../native/index.ts';
import { nap } from '../../../native/nap.ts';
import type { Records } from '../../image/record.ts';
import { SYS } from './abi.ts';
import type { NewTask } from './new-task.ts';
import { isGone, readStat, statField } from './proc.ts';
import { type Asking, attempt, type Remote, type Word } from './remote.ts';

type Scheduling = Records['thread']['scheduling'];
type Warn = (sentence: string) => void;

const SCHED_OTHER = 0;
const SCHED_FIFO = 1;
const SCHED_RR = 2;
const SCHED_DEADLINE = 6;
/** In the policy of sched_setscheduler(2); in sched_setattr(2) it is the first flag. */
const SCHED_RESET_ON_FORK = 0x40000000;
/** SCHED_FLAG_: reset on fork, reclaim, signal an overrun. */
const settableFlags = 7n;
const resetOnFork = 1n;
/** SCHED_FLAG_KEEP_ALL, UTIL_CLAMP. */
const clampOnly = 0x78n;
const mostClamp = 1024;
/** struct sched_attr with its clamps; Linux 5.3. */
const attributeSize = 56;
const at = {
  policy: 4,
  flags: 8,
  nice: 16,
  priority: 20,
  runtime: 24,
  deadline: 32,
  period: 40,
  min: 48,
  max: 52,
};

export function readScheduling(tid: number, nice: number, timerSlackNs: bigint): Scheduling {
  const addon = native();
  const bytes = new Uint8Array(attributeSize);
  addon.syscall(SYS.sched_getattr, tid, bytes, bytes.length, 0);
  const view = new DataView(bytes.buffer);
  const policy = view.getUint32(at.policy, true);
  const flags = view.getBigUint64(at.flags, true);
  const affinity = new Uint8Array(1024);
  const length = Number(addon.syscall(SYS.sched_getaffinity, tid, affinity.length, affinity));
  return {
    policy,
    nice,
    priority: view.getUint32(at.priority, true),
    ...((flags & resetOnFork) !== 0n ? { resetOnFork: true } : {}),
    ...(policy === SCHED_DEADLINE ? { deadline: readDeadline(view) } : {}),
    ...readClamp(view, policy),
    ...(isRestricted(affinity.subarray(0, length)) ? { affinity: affinity.slice(0, length) } : {}),
    ioprio: readIoPriority(tid),
    timerSlackNs,
  };
}

function readDeadline(view: DataView): NonNullable<Scheduling['deadline']> {
  return {
    runtimeNs: view.getBigUint64(at.runtime, true),
    deadlineNs: view.getBigUint64(at.deadline, true),
    periodNs: view.getBigUint64(at.period, true),
    flags: Number(view.getBigUint64(at.flags, true) & settableFlags & ~resetOnFork),
  };
}

/** A real-time thread has the most by itself; a kernel without clamps says zero for both. */
function readClamp(view: DataView, policy: number): Pick<Scheduling, 'clamp'> {
  const clamp = { min: view.getUint32(at.min, true), max: view.getUint32(at.max, true) };
  const usual = policy === SCHED_FIFO || policy === SCHED_RR ? mostClamp : 0;
  if (clamp.max === 0 || clamp.max > mostClamp || (clamp.min === usual && clamp.max === mostClamp)) return {};
  return { clamp };
}

const ioClassShift = 13;

/** Before 5.18 a task that never set one shows the usual level without a class, which cannot be set: it is none. */
function readIoPriority(tid: number): number {
  const priority = Number(native().syscall(SYS.ioprio_get, 1, tid));
  return priority >> ioClassShift === 0 ? 0 : priority;
}

let processors: number | undefined;

/** Whether a mask leaves out a processor that is there: all of them means no wish, on any machine. */
function isRestricted(mask: Uint8Array): boolean {
  let set = 0;
  for (const byte of mask) for (let left = byte; left !== 0; left &= left - 1) set++;
  processors ??= cpus().length;
  return set < processors;
}

/** When the task has forked all that it will: some of this is not handed down, or forbids it. */
export function* setScheduling(task: NewTask, remote: Remote, wanted: Scheduling, warn: Warn): Asking<void> {
  const calls: Word[][] = [];
  if (wanted.policy === SCHED_DEADLINE) {
    calls.push([SYS.sched_setattr, 0, remote.put(deadlineAttributes(wanted)), 0]);
  } else if (wanted.policy !== SCHED_OTHER || wanted.resetOnFork) {
    const parameter = remote.put(new Uint8Array(new Int32Array([wanted.priority, 0]).buffer));
    const policy = wanted.policy | (wanted.resetOnFork ? SCHED_RESET_ON_FORK : 0);
    calls.push([SYS.sched_setscheduler, 0, policy, parameter]);
  }
  if (wanted.nice !== 0) calls.push([SYS.setpriority, 0, 0, wanted.nice]);
  if (wanted.clamp) calls.push([SYS.sched_setattr, 0, remote.put(clampAttributes(wanted.clamp)), 0]);
  if (wanted.ioprio) calls.push([SYS.ioprio_set, 1, 0, wanted.ioprio]);
  if (wanted.affinity) {
    calls.push([SYS.sched_setaffinity, 0, wanted.affinity.length, remote.put(wanted.affinity)]);
  }
  yield* attempt(calls, (index, errno) =>
    warn(`thread ${task.inner}: scheduling call ${calls[index]![0]} is not allowed here (errno ${errno})`),
  );
}

function attributes(flags: bigint, fill: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(attributeSize);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length, true);
  view.setBigUint64(at.flags, flags, true);
  fill(view);
  return bytes;
}

function deadlineAttributes({ deadline, resetOnFork: reset }: Scheduling): Uint8Array {
  const flags = (BigInt(deadline?.flags ?? 0) & settableFlags) | (reset ? resetOnFork : 0n);
  return attributes(flags, (view) => {
    view.setUint32(at.policy, SCHED_DEADLINE, true);
    view.setBigUint64(at.runtime, deadline?.runtimeNs ?? 0n, true);
    view.setBigUint64(at.deadline, deadline?.deadlineNs ?? 0n, true);
    view.setBigUint64(at.period, deadline?.periodNs ?? 0n, true);
  });
}

function clampAttributes({ min, max }: NonNullable<Scheduling['clamp']>): Uint8Array {
  return attributes(clampOnly, (view) => {
    view.setUint32(at.min, min, true);
    view.setUint32(at.max, max, true);
  });
}

/** The nice value of a session's autogroup; undefined for none, and on a kernel that makes no such groups. */
export function readAutogroup(pid: number): number | undefined {
  try {
    return Number(/ nice (-?\d+)/.exec(readFileSync(`/proc/${pid}/autogroup`, 'latin1'))?.[1]) || undefined;
  } catch (cause) {
    if (isGone(cause)) return undefined;
    throw cause;
  }
}

/** All processes of a session are in its group. Whoever is not root may set one only every tenth of a second. */
export function setAutogroups(
  processes: readonly { task: NewTask; nice: number | undefined }[],
  warn: Warn,
): void {
  const done = new Set<string>();
  for (const { task, nice } of processes) {
    const session = statField(readStat(task.tid).fields, 6);
    if (nice === undefined || done.has(session)) continue;
    done.add(session);
    if (!setAutogroup(task, nice))
      warn(`process ${task.inner}: the priority ${nice} of its session (autogroup) could not be set`);
  }
}

function setAutogroup(task: NewTask, nice: number): boolean {
  for (let tries = 0; tries < 10; tries++) {
    try {
      writeFileSync(`/proc/${task.tid}/autogroup`, String(nice));
      return true;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'EAGAIN') return false;
      nap(60);
    }
  }
  return false;
}
