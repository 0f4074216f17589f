/**
 * timerfd_create(2). A timer goes on with the rest of its time; only an absolute one on the wall clock keeps its
 * moment. It is armed last of all, so that it does not run out while the session is rebuilt.
 */
import { readFileSync } from 'node:fs';
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { O, SYS } from '../abi.ts';
import type { FileObject, RestoreContext } from './file-object.ts';
import { setStatusFlags } from './paths.ts';

const clocks = { realtime: 0, monotonic: 1, boottime: 7, realtimeAlarm: 8, boottimeAlarm: 9 } as const;
const known: ReadonlySet<number> = new Set(Object.values(clocks));
const withoutAlarm = new Map<number, number>([
  [clocks.realtimeAlarm, clocks.realtime],
  [clocks.boottimeAlarm, clocks.boottime],
]);
const TFD_TIMER_ABSTIME = 1;
const TFD_TIMER_CANCEL_ON_SET = 2;
/** _IOW('T', 0, u64), kernels with CONFIG_CHECKPOINT_RESTORE. */
const TFD_IOC_SET_TICKS = 0x40085400;
const clock_gettime = 228;
const second = 1_000_000_000n;

/** struct itimerspec: interval, value. */
function encodeSetting(intervalNs: bigint, valueNs: bigint): Uint8Array {
  return new Uint8Array(
    new BigUint64Array([intervalNs / second, intervalNs % second, valueNs / second, valueNs % second]).buffer,
  );
}

const decodeTime = (words: BigUint64Array, at: number) => words[at]! * second + words[at + 1]!;

interface State {
  clock: number;
  settimeFlags: number;
  ticks: bigint;
  valueNs: bigint;
  intervalNs: bigint;
}

/**
 * The timer at one moment. timerfd_gettime(2) makes the kernel count expirations that nobody has read yet, so it
 * comes between two looks at the count.
 */
function readState(local: number): State {
  const look = () => {
    const text = readFileSync(`/proc/self/fdinfo/${local}`, 'latin1');
    const field = (name: string) => new RegExp(`^${name}: (\\S+)`, 'm').exec(text)?.[1] ?? '0';
    return {
      clock: Number(field('clockid')),
      settimeFlags: Number.parseInt(field('settime flags'), 8),
      ticks: BigInt(field('ticks')),
    };
  };
  const bytes = new Uint8Array(32);
  const words = new BigUint64Array(bytes.buffer);
  const read = () => native().syscall(SYS.timerfd_gettime, local, bytes);
  read();
  // A period shorter than two system calls never holds still: then the last look is as good as any.
  for (let attempt = 0, before = look(); ; attempt++) {
    read();
    const after = look();
    if (before.ticks === after.ticks || attempt === 20) {
      return { ...after, valueNs: decodeTime(words, 2), intervalNs: decodeTime(words, 0) };
    }
    before = after;
  }
}

function now(): bigint {
  const words = new BigUint64Array(2);
  native().syscall(clock_gettime, clocks.realtime, new Uint8Array(words.buffer));
  return decodeTime(words, 0);
}

/** The wall clock's time at the next expiry: the kernel tells only how far it is. The quickest of some looks. */
function readMoment(local: number): bigint {
  const words = new BigUint64Array(4);
  const bytes = new Uint8Array(words.buffer);
  let best: { width: bigint; moment: bigint } | undefined;
  for (let attempt = 0; attempt < 8; attempt++) {
    const before = now();
    native().syscall(SYS.timerfd_gettime, local, bytes);
    const width = now() - before;
    const moment = before + width / 2n + decodeTime(words, 2);
    if (best === undefined || width < best.width) best = { width, moment };
  }
  return best!.moment;
}

/** Absolute on a wall clock: the moment counts, not the rest of the time. */
function keepsMoment(record: { clock: number; settimeFlags: number }): boolean {
  const wall = record.clock === clocks.realtime || record.clock === clocks.realtimeAlarm;
  return wall && (record.settimeFlags & TFD_TIMER_ABSTIME) !== 0;
}

export const timerfd: FileObject = {
  records: ['timerfd'],
  coverage:
    'clock, rest of the time, period, expirations not yet read; absolute timers on the wall clock keep their moment, all others the rest of their time',

  matches: (file) => file.link === 'anon_inode:[timerfd]',

  dump(file) {
    const state = readState(file.local);
    const expiry = keepsMoment(state) && state.valueNs > 0n ? { expiryNs: readMoment(file.local) } : {};
    return [{ name: 'timerfd', meta: { id: file.id, flags: file.flags, ...state, ...expiry } }];
  },

  restore(_name, meta, context) {
    const record = meta as Records['timerfd'];
    const { builder } = context;
    if (!known.has(record.clock)) context.refuse(`a timer runs on the unknown clock ${record.clock}`);
    let [fd] = builder.run([[SYS.timerfd_create, record.clock, record.flags & O.nonblock]]);
    const plain = withoutAlarm.get(record.clock);
    if (fd! < 0n && plain !== undefined) {
      context.warn('a timer that could wake the computer will not: CAP_WAKE_ALARM is missing');
      fd = builder.call('timerfd_create', SYS.timerfd_create, plain, record.flags & O.nonblock);
    } else if (fd! < 0n) {
      fd = builder.call('timerfd_create', SYS.timerfd_create, record.clock, record.flags & O.nonblock);
    }
    setStatusFlags(fd!, record.flags, context);
    context.keep(record.id, fd!);
  },

  arm(_name, meta, context) {
    const record = meta as Records['timerfd'];
    const fd = context.descriptor(record.id);
    const { value, flags } = expiryOf(record, context);
    setTimer(fd, flags, record.intervalNs, value, context);
    if (record.ticks > 0n && !setTicks(fd, record.ticks, context)) setUnread(fd, record, context);
  },
};

/** What timerfd_settime(2) is told. An absolute timer stays absolute, from the present time of its clock. */
function expiryOf(record: Records['timerfd'], context: RestoreContext): { value: bigint; flags: number } {
  const { valueNs, expiryNs } = record;
  const flags = record.settimeFlags & (TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET);
  if ((flags & TFD_TIMER_ABSTIME) === 0 || valueNs === 0n) return { value: valueNs, flags };
  if (keepsMoment(record) && expiryNs !== undefined) return { value: expiryNs, flags };
  return { value: readClock(record.clock, context) + valueNs, flags };
}

/** clock_gettime(2) in the pod, ns. */
function readClock(clock: number, context: RestoreContext): bigint {
  const { builder } = context;
  builder.reset();
  const address = builder.reserve(16);
  builder.call('clock_gettime', clock_gettime, withoutAlarm.get(clock) ?? clock, address);
  return decodeTime(new BigUint64Array(builder.read(address, 16).buffer), 0);
}

function setTimer(fd: number, flags: number, interval: bigint, value: bigint, context: RestoreContext): void {
  const { builder } = context;
  builder.reset();
  builder.call(
    'timerfd_settime',
    SYS.timerfd_settime,
    fd,
    flags,
    builder.put(encodeSetting(interval, value)),
    0,
  );
}

function setTicks(fd: number, ticks: bigint, context: RestoreContext): boolean {
  const { builder } = context;
  builder.reset();
  const word = builder.put(new Uint8Array(new BigUint64Array([ticks]).buffer));
  const [result] = builder.run([[SYS.ioctl, fd, TFD_IOC_SET_TICKS, word]]);
  return result === 0n;
}

/**
 * Without TFD_IOC_SET_TICKS: begin so far in the past that just these expirations are due. Exact for a periodic
 * timer, and for a single expiration.
 */
export function setUnread(fd: number, record: Records['timerfd'], context: RestoreContext): void {
  const { intervalNs, valueNs, ticks } = record;
  if (intervalNs === 0n && valueNs === 0n && ticks === 1n) {
    setTimer(fd, 0, 0n, 1n, context);
    return;
  }
  const start = readClock(record.clock, context) + valueNs - ticks * intervalNs;
  if (intervalNs === 0n || start <= 0n || keepsMoment(record)) {
    context.warn(
      `${ticks} expirations of a timer that were not read yet are lost: the kernel can't set them`,
    );
    return;
  }
  setTimer(fd, TFD_TIMER_ABSTIME, intervalNs, start, context);
}
