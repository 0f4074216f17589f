/** Ending a pod, or sending its session a signal. */
import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { native } from '../../native/index.ts';
import { PodError } from '../stream/error.ts';
import { removeGroups } from './cgroups.ts';
import { connectPod } from './console.ts';
import { isAlive, pidNamespace, processesByNamespace, readStat, tracerOf } from './proc.ts';
import { type PodEntry, sweep } from './registry.ts';

/**
 * End a pod at once. Its pid 1 is asked to kill all others in one step and to end: were it killed itself, its console
 * would hang up first, and what the session does on SIGHUP (a trap that removes a file which its image needs) would
 * still be done. A pid 1 that cannot answer is killed, and the kernel kills all of a pid namespace with its pid 1.
 * Resolves when every process is gone, which is when pid 1 is a zombie (it becomes one after all others; who reaps
 * it, and when, is the host's matter).
 */
export async function killPod(entry: PodEntry): Promise<void> {
  if (isAlive(entry.init, entry.initStart)) {
    const answers = !/[Tt]/.test(readStat(entry.init)?.state ?? 'T');
    if (answers) {
      send(entry, 'SIGQUIT');
      await isGone(entry, answerMs);
    }
    send(entry, 'SIGKILL');
    await waitGone(entry);
  }
  await removeGroups(entry.groups ?? []);
  sweep(entry.name);
}

/** Longest that pid 1 may take to end by itself, on a busy machine too. */
const answerMs = 5000;

function send(entry: PodEntry, signal: 'SIGQUIT' | 'SIGKILL'): void {
  if (!isAlive(entry.init, entry.initStart)) return;
  try {
    process.kill(entry.init, signal);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ESRCH') throw cause;
  }
}

const patience = 10_000;

/** Resolves when no process of the killed pod is left; throws when that takes more than ten seconds. */
async function waitGone(entry: PodEntry): Promise<void> {
  const space = pidNamespace(entry.init);
  if (!(await isGone(entry, patience))) throw explainStuck(entry, space);
}

/** Wait so long for the end; true when it came. */
async function isGone(entry: PodEntry, limit: number): Promise<boolean> {
  const space = pidNamespace(entry.init);
  const deadline = Date.now() + limit;
  for (let pause = 1; isAlive(entry.init, entry.initStart); pause = Math.min(pause * 2, 50)) {
    if (pause > 4) reapTracees(space);
    if (Date.now() > deadline) return false;
    await sleep(pause);
  }
  return true;
}

function explainStuck(entry: PodEntry, space: string | undefined): PodError {
  const pids = (space === undefined ? undefined : processesByNamespace().get(space)) ?? [entry.init];
  const tracer = pids.map(tracerOf).find((pid) => pid !== 0);
  return new PodError(
    'other',
    `pod ${entry.name} does not end`,
    tracer === undefined
      ? 'one of its processes waits for a device or a file server'
      : `process ${tracer} traces it and must end first`,
  );
}

const wait4Number = 61;
const noHangAllKinds = 0x4000_0001; // WNOHANG | __WALL

/**
 * A task that died while we traced it (a restart that failed half-way) stays a zombie until its tracer, us, has
 * seen it; pid 1 waits for that.
 */
function reapTracees(space: string | undefined): void {
  if (space === undefined) return;
  for (const pid of processesByNamespace().get(space) ?? []) {
    const stat = readStat(pid);
    if (stat?.state !== 'Z' || tracerOf(pid) !== process.pid) continue;
    try {
      native().syscall(wait4Number, pid, null, noHangAllKinds, null);
    } catch {
      // Somebody else saw it first.
    }
  }
}

/** Send a signal to the main process's group. */
export async function signalPod(entry: PodEntry, signal: number): Promise<void> {
  const connection = await connectPod(entry);
  try {
    await connection.signal(signal);
  } finally {
    connection.close();
  }
}

/** `TERM`, `SIGTERM`, `term` or `15` as a number. Throws `usage`. */
export function signalNumber(text: string): number {
  const name = text.toUpperCase().replace(/^(SIG)?/, 'SIG');
  const number = /^\d+$/.test(text) ? Number(text) : constants.signals[name as NodeJS.Signals];
  if (number === undefined || number < 0 || number > 64) {
    throw new PodError('usage', `${text} is not a signal`, 'kill -l lists them');
  }
  return number;
}
