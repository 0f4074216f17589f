/**
 * Row "pending signals". 2.4: one queue a task, filled by whoever signals its pid. 2.6: a queue shared by the
 * process, and a private one a thread.
 *
 * A process of one task: what was sent to the process becomes shared, as 2.6 would have queued it, so that a
 * thread made later can take it; what the kernel raised against the very instruction or call stays private.
 *
 * A group: a signal pending for one task was to be taken by that task and no other, so it stays private to its
 * thread. Shared are only those where that cannot change who takes them: pending on every task alike (sent to
 * the group, as a terminal does), or sent to the leader when no other thread would take it first.
 */
import type { Records } from '../record.ts';
import type { Task } from './task.ts';

export interface PendingSignals {
  shared: Uint8Array[];
  /** In the order of the tasks. */
  private: Uint8Array[][];
}

const firstRealTime = 32;
/** SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS: with a positive si_code a fault of the thread itself. */
const faults = new Set([4, 5, 7, 8, 11, 31]);
/** SIGPIPE, SIGXFSZ: 2.4 raises them as if the task had signalled itself. */
const ownDoing = new Set([13, 25]);
/** si_code of tkill(2). */
const tkill = -6;

interface Signal {
  info: Uint8Array;
  number: number;
  private: boolean;
}

function readSignal(info: Uint8Array, pid: number): Signal {
  const view = new DataView(info.buffer, info.byteOffset, info.byteLength);
  const number = view.getInt32(0, true);
  const code = view.getInt32(8, true);
  const sender = view.getInt32(16, true);
  const own =
    code === tkill ||
    (faults.has(number) && code > 0) ||
    (ownDoing.has(number) && (code !== 0 || sender === pid));
  return { info, number, private: own };
}

const masks = (thread: Records['thread'], signal: number): boolean =>
  (thread.signalMask & (1n << BigInt(signal - 1))) !== 0n;

const equal = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

/** Divide the queues of one process's tasks (the leader first). */
export function dividePending(tasks: readonly Task[]): PendingSignals {
  const queues = tasks.map((task) =>
    (task.thread.pending ?? []).map((info) => readSignal(info, task.process.pid)),
  );
  const everywhere = queues.length > 1 ? common(queues) : [];
  const left = queues.map((queue) => queue.filter((signal) => !everywhere.includes(signal.number)));
  const leader = left[0] ?? [];
  // Signals of one number keep their order, so they all go to the same queue.
  const kept = new Set(
    leader
      .filter(
        (signal) =>
          signal.private ||
          (tasks.length > 1 &&
            masks(tasks[0]!.thread, signal.number) &&
            tasks.slice(1).some((task) => !masks(task.thread, signal.number))),
      )
      .map((signal) => signal.number),
  );
  const shared = (queues[0] ?? []).filter(
    (signal) => everywhere.includes(signal.number) || !kept.has(signal.number),
  );
  return {
    shared: shared.map((signal) => signal.info),
    private: left.map((queue, index) =>
      queue.filter((signal) => index > 0 || kept.has(signal.number)).map((signal) => signal.info),
    ),
  };
}

/** Numbers of standard signals that wait on every task with the same siginfo. */
function common(queues: readonly Signal[][]): number[] {
  const [first, ...others] = queues;
  return first!
    .filter((signal) => signal.number < firstRealTime && !signal.private)
    .filter((signal) => others.every((queue) => queue.some((other) => equal(other.info, signal.info))))
    .map((signal) => signal.number);
}
