/** What POD_IOC_SET_TIMES says to wrong requests, to anybody's tasks and to bytes of any kind, and what it does. */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { Device, request, timesLayout } from '../../../lib/engine/kmod/device.ts';
import { native } from '../../../native/index.ts';
import { until } from '../../tools/running-program.ts';
import { errorOf, expect } from './check-device.ts';
import { finishPlain, startPlain } from './plain-session.ts';

const ioctl = 16;
const PTRACE = { detach: 17 };
const most = 1n << 60n;
const hour = 3600n * 1_000_000_000n;
const turns = 5000;
/** All that docs/kmod.md lists, but for what needs a signal. */
const listed = new Set(['none', 'EFAULT', 'EINVAL', 'ESRCH', 'EPERM', 'EBUSY']);

/** What its clock of processor time says, ns. */
const runOf = (tid: number) => BigInt(readFileSync(`/proc/${tid}/schedstat`, 'utf8').split(' ')[0]!);
/** A field of /proc/PID/stat in 1/100 s, counted from 1. */
const ticksOf = (tid: number, field: number) =>
  BigInt(readFileSync(`/proc/${tid}/stat`, 'utf8').split(') ')[1]!.split(' ')[field - 3]!);

function stop(tid: number): void {
  native().seize(tid, 0);
  native().interrupt(tid);
  if (native().waitStop(tid, 60_000)?.state !== 'stopped') throw new Error(`${tid} does not stop`);
}

/** Bytes that are mostly a request, here and there. */
function anyRequest(tids: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(timesLayout.length);
  const view = new DataView(bytes.buffer);
  const any = () => BigInt(Math.floor(Math.random() * 2 ** 53));
  view.setUint32(timesLayout.size, Math.random() < 0.9 ? timesLayout.length : Math.random() * 2 ** 32, true);
  view.setInt32(
    timesLayout.tid,
    Math.random() < 0.9 ? tids[Math.floor(Math.random() * tids.length)]! : Math.random() * 2 ** 32,
    true,
  );
  for (let at = timesLayout.user; at < timesLayout.length; at += 8)
    view.setBigUint64(at, (any() << 11n) >> BigInt(Math.floor(Math.random() * 65)), true);
  return bytes;
}

function checkRequests(device: Device, stopped: number, thread: number, runs: number): void {
  const set = (tid: number, ...times: bigint[]) => errorOf(() => device.setTimes(tid, times));
  expect('no task', set(0), 'EINVAL');
  expect('a task that there is not', set(4_000_000, 1n), 'ESRCH');
  expect('oneself', set(process.pid, 1n), 'EPERM');
  expect('the first process', set(1, 1n), 'EPERM');
  expect('a task that nobody traces', set(runs, 1n), 'EPERM');
  expect('a time beyond all', set(stopped, most + 1n), 'EINVAL');
  expect('the last time beyond all', set(stopped, 0n, 0n, 0n, 0n, 0n, 0n, 0n, most + 1n), 'EINVAL');
  expect('a process by a thread of it', set(thread, 0n, 0n, 0n, 1n), 'EINVAL');
  native().seize(runs, 0);
  expect('a traced task that runs', set(runs, 1n), 'EBUSY');
  const before = runOf(runs);
  if (before >= hour) throw new Error('a refused request has changed something');
}

function checkEffect(device: Device, stopped: number, thread: number): void {
  device.setTimes(stopped, [hour, 2n * hour, 3n * hour, hour, hour, hour, hour, 2n * hour]);
  device.setTimes(thread, [0n, 0n, hour]);
  const inTicks = (ns: bigint) => ns / 10_000_000n;
  expect('its clock', String(runOf(stopped) === 3n * hour), 'true');
  expect("its other thread's clock", String(runOf(thread) === hour), 'true');
  // User and system time of the whole: three hours, one of a thread that had ended, one of the other thread; and its own.
  const both = ticksOf(stopped, 14) + ticksOf(stopped, 15);
  expect('all its time', String(both >= inTicks(5n * hour) - 2n && both < inTicks(6n * hour)), 'true');
  expect("its children's time", String(ticksOf(stopped, 16) === inTicks(hour)), 'true');
  expect("its children's system time", String(ticksOf(stopped, 17) === inTicks(2n * hour)), 'true');
  device.setTimes(stopped, [1n, 1n, 1n, 1n, 1n, 1n, 1n, 1n]);
  expect('its clock after a smaller time', String(runOf(stopped) === 3n * hour), 'true');
}

export async function checkTimes(): Promise<string> {
  const session = await startPlain('linuxthreads');
  const threads = await startPlain('registers');
  const running = spawn('/run/busybox', ['sh', '-c', 'while :; do :; done'], { stdio: 'ignore' });
  const device = new Device();
  const raw = openSync('/dev/pod', 'r');
  try {
    const stopped = threads.pid;
    const other = readdirSync(`/proc/${stopped}/task`)
      .map(Number)
      .find((tid) => tid !== stopped);
    if (other === undefined) throw new Error('a program with threads is wanted');
    stop(stopped);
    stop(other);
    checkRequests(device, stopped, other, running.pid!);
    checkEffect(device, stopped, other);
    expect(
      'times at no address',
      errorOf(() => native().syscall(ioctl, raw, request.setTimes, 1)),
      'EFAULT',
    );
    const tids = [stopped, other, running.pid!, session.pid, process.pid, 0, -1];
    const told = new Map<string, number>();
    for (let turn = 0; turn < turns; turn++) {
      const said = errorOf(() => native().syscall(ioctl, raw, request.setTimes, anyRequest(tids)));
      told.set(said, (told.get(said) ?? 0) + 1);
      if (!listed.has(said)) throw new Error(`a request of any kind: ${said}`);
    }
    for (const each of ['none', 'EINVAL', 'EPERM', 'EBUSY'])
      if (!told.has(each)) throw new Error(`${each} was not among what ${turns} requests were told`);
    native().resume(other, PTRACE.detach, 0);
    native().resume(stopped, PTRACE.detach, 0);
    await finishPlain(session);
    await finishPlain(threads);
    return 'ok';
  } finally {
    device.close();
    closeSync(raw);
    running.kill('SIGKILL');
    await until(() => running.exitCode !== null || running.signalCode !== null);
    await session.running.remove();
    await threads.running.remove();
  }
}
