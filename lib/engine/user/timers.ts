/**
 * Timers of a process: setitimer(2), timer_create(2).
 *
 * How often a timer has run out since its last signal (timer_getoverrun(2)) nobody can set, and to arm a timer sets it to
 * zero. But the kernel counts it anew whenever a signal is taken: so the timer is armed as if it had begun so many
 * periods ago, its signal, which comes at once, is taken by the task itself, and the timer runs on with the rest of its
 * period. Overruns that are still to be told, of a signal that is pending, the kernel shows to nobody.
 */
import { readFileSync } from 'node:fs';
import type { Records } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import { PR, SYS } from './abi.ts';
import type { NewTask } from './new-task.ts';
import { describeProcess } from './proc.ts';
import type { Asking, Remote } from './remote.ts';
import type { SessionProcess } from './session-view.ts';

type Process = Records['process'];
type Timer = NonNullable<Process['timers']>[number];

const nsOf = (seconds: bigint, rest: bigint) => seconds * 1_000_000_000n + rest;

export function* askTimers(
  remote: Remote,
  process: SessionProcess,
): Asking<Pick<Process, 'itimers' | 'timers'>> {
  remote.reset();
  const address = remote.reserve(3 * 32);
  yield [0, 1, 2].map((which) => [SYS.getitimer, which, address + BigInt(32 * which)]);
  const view = new DataView(remote.read(address, 96).buffer);
  // struct itimerval: interval, then value, in microseconds.
  const time = (at: number) => nsOf(view.getBigInt64(at, true), view.getBigInt64(at + 8, true) * 1000n);
  const itimers = [0, 1, 2]
    .map((which) => ({ which, intervalNs: time(32 * which), valueNs: time(32 * which + 16) }))
    .filter((timer) => timer.valueNs !== 0n || timer.intervalNs !== 0n);
  const timers = yield* askPosixTimers(remote, process);
  return { ...(itimers.length > 0 ? { itimers } : {}), ...(timers.length > 0 ? { timers } : {}) };
}

/** /proc/PID/timers: blocks of `ID:`, `signal: N/value`, `notify: how/pid.N`, `ClockID:`. */
function* askPosixTimers(remote: Remote, process: SessionProcess): Asking<Timer[]> {
  const text = readFileSync(`/proc/${process.pid}/timers`, 'utf8');
  const timers: Timer[] = [];
  for (const block of text.split(/^ID:/m).slice(1)) {
    const id = Number.parseInt(block, 10);
    const signal = /signal: (-?\d+)\/([0-9a-f]+)/.exec(block);
    const notify = /notify: (\w+)\/(\w+)\.(\d+)/.exec(block);
    const clock = /ClockID: (-?\d+)/.exec(block);
    if (!signal || !notify || !clock)
      throw new PodError(
        'cannot-checkpoint',
        `${describeProcess(process.pid)}: timer ${id} is of an unknown kind`,
      );
    remote.reset();
    const address = remote.reserve(32);
    const [result, overrun] = yield [
      [SYS.timer_gettime, id, address],
      [SYS.timer_getoverrun, id],
    ];
    if (result! < 0n)
      throw new PodError('cannot-checkpoint', `${describeProcess(process.pid)}: timer ${id} cannot be read`);
    const view = new DataView(remote.read(address, 32).buffer);
    const how = { signal: 0, none: 1, thread: 2 }[notify[1]!] ?? 0;
    const target = notify[2] === 'tid';
    const tid = process.threads.find((thread) => thread.tid === Number(notify[3]))?.innerTid;
    timers.push({
      id,
      clock: Number(clock[1]),
      notify: how | (target ? 4 : 0),
      signal: Number(signal[1]),
      value: BigInt(`0x${signal[2]}`),
      intervalNs: nsOf(view.getBigInt64(0, true), view.getBigInt64(8, true)),
      valueNs: nsOf(view.getBigInt64(16, true), view.getBigInt64(24, true)),
      overrun: Math.max(0, Number(overrun)),
      ...(target && tid !== undefined ? { tid } : {}),
    });
  }
  return timers.sort((a, b) => a.id - b.id);
}

/**
 * Timers with their ids, disarmed. timer_create(2) hands ids out in ascending order, so unwanted ones are made and
 * deleted on the way; from Linux 6.16 on it takes a wish.
 */
export function makeTimers(task: NewTask, timers: readonly Timer[]): void {
  if (timers.length === 0) return;
  const { remote } = task;
  const wishes = remote.run([[SYS.prctl, PR.timerCreateRestoreIds, 1, 0, 0, 0]])[0] === 0n;
  for (const timer of timers) {
    remote.reset();
    const event = new Uint8Array(64);
    const view = new DataView(event.buffer);
    view.setBigUint64(0, timer.value, true);
    view.setInt32(8, timer.signal, true);
    view.setInt32(12, timer.notify, true);
    if (timer.tid !== undefined) view.setInt32(16, timer.tid, true);
    const address = remote.put(event);
    const id = remote.put(new Uint8Array(new Int32Array([timer.id, 0]).buffer));
    for (let tries = 0; ; tries++) {
      remote.call('timer_create', SYS.timer_create, timer.clock, address, id);
      const got = new DataView(remote.read(id, 4).buffer).getInt32(0, true);
      if (got === timer.id) break;
      remote.call('timer_delete', SYS.timer_delete, got);
      if (got > timer.id || tries > 1 << 16)
        throw new PodError(
          'cannot-restart',
          `process ${task.inner}: timer ${timer.id} can't have its id back`,
        );
    }
  }
  if (wishes) remote.run([[SYS.prctl, PR.timerCreateRestoreIds, 0, 0, 0, 0]]);
}

const second = 1_000_000_000n;
const TIMER_ABSTIME = 1;
const SIGEV_THREAD_ID = 4;
/** CLOCK_REALTIME, MONOTONIC, BOOTTIME, TAI: those of processors count from zero again. */
const wallClocks = [0, 1, 7, 11];

const wasOverrun = ({ overrun, valueNs }: Timer) => overrun > 0 && valueNs !== 0n;

/** Before any signal is queued, for it takes those of its timers. */
export function armOverrun(
  tasks: readonly NewTask[],
  record: Process,
  warn: (sentence: string) => void,
): void {
  for (const timer of record.timers ?? []) {
    if (wasOverrun(timer) && !replay(tasks, timer))
      warn(
        `process ${record.pid}: timer ${timer.id} does not know any more that it had run out ${timer.overrun} times more than was told`,
      );
  }
}

/** False when it can't be. */
function replay(tasks: readonly NewTask[], timer: Timer): boolean {
  const taker = timer.notify & SIGEV_THREAD_ID ? tasks.find(({ inner }) => inner === timer.tid) : tasks[0];
  if (!taker || timer.signal === 0 || timer.intervalNs === 0n || !wallClocks.includes(timer.clock))
    return false;
  const { remote } = taker;
  remote.reset();
  const room = remote.reserve(16);
  remote.call('clock_gettime', SYS.clock_gettime, timer.clock, room);
  const now = new DataView(remote.read(room, 16).slice().buffer);
  const first =
    nsOf(now.getBigInt64(0, true), now.getBigInt64(8, true)) +
    timer.valueNs -
    BigInt(timer.overrun + 1) * timer.intervalNs;
  if (first <= 0n) return false;
  settime(remote, timer, first, TIMER_ABSTIME);
  const set = new Uint8Array(8);
  new DataView(set.buffer).setBigUint64(0, 1n << BigInt(timer.signal - 1), true);
  const patience = new BigInt64Array([1n, 0n]);
  const call = [
    SYS.rt_sigtimedwait,
    remote.put(set),
    0,
    remote.put(new Uint8Array(patience.buffer)),
    set.length,
  ];
  // A task may be interrupted by its own making.
  for (let tries = 0; tries < 10; tries++) if (remote.run([call])[0] === BigInt(timer.signal)) return true;
  return false;
}

function settime(remote: Remote, timer: Timer, value: bigint, flags: number): void {
  const { intervalNs } = timer;
  const words = [intervalNs / second, intervalNs % second, value / second, value % second];
  const bytes = new Uint8Array(new BigInt64Array(words).buffer);
  remote.call('timer_settime', SYS.timer_settime, timer.id, flags, remote.put(bytes), 0);
}

/** Last of all: from here on time counts for the session. */
export function armTimers(task: NewTask, record: Process): void {
  const { remote } = task;
  for (const timer of record.timers ?? []) {
    if (timer.valueNs === 0n) continue;
    remote.reset();
    if (wasOverrun(timer) && isArmed(remote, timer)) continue;
    settime(remote, timer, timer.valueNs, 0);
  }
  for (const timer of record.itimers ?? []) {
    remote.reset();
    const us = (ns: bigint) => [ns / second, (ns % second) / 1000n] as const;
    // A periodic timer that has run out is wound up when its signal, pending now, is taken; a value of 0 would
    // disarm it. One whole period is what it then gets.
    const value = timer.valueNs === 0n ? timer.intervalNs : timer.valueNs;
    const words = new BigInt64Array([...us(timer.intervalNs), ...us(value)]);
    remote.call('setitimer', SYS.setitimer, timer.which, remote.put(new Uint8Array(words.buffer)), 0);
  }
}

/** Whether it runs on since armOverrun(). */
function isArmed(remote: Remote, timer: Timer): boolean {
  const rest = remote.reserve(32);
  remote.call('timer_gettime', SYS.timer_gettime, timer.id, rest);
  return remote.read(rest, 32).some((byte) => byte !== 0);
}
