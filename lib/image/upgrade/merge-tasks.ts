/** Row "threads", second half: the tasks of a group (or the one task of a process) as PROCESS and THREADs of 2.6. */
import type { Records } from '../record.ts';
import { notOf24 } from './cannot.ts';
import { upgradeSegments } from './i386-segments.ts';
import { joinIntervalTimers } from './interval-timers.ts';
import { upgradePersonality } from './memory-layout.ts';
import { findNewObject } from './new-objects.ts';
import { dividePending } from './pending-signals.ts';
import { joinLimits } from './resource-limits.ts';
import { upgradeScheduling } from './scheduler.ts';
import type { Context, Task } from './task.ts';

export interface Process26 {
  process: Records['process'];
  /** In the order of the tasks. */
  threads: Records['thread'][];
}

/** One process of 2.6 from its tasks, the leader first. Each thread keeps its pid as tid. */
export function mergeTasks(tasks: readonly Task[], context: Context): Process26 {
  for (const task of tasks) checkTask(task);
  const leader = tasks[0]!;
  const pending = dividePending(tasks);
  const { pending: _none, itimers: _own, ...process } = leader.process;
  const itimers = joinIntervalTimers(tasks);
  return {
    process: {
      ...process,
      limits: joinLimits(tasks, context),
      personality: upgradePersonality(process.personality, context.arch),
      ...(pending.shared.length > 0 ? { pending: pending.shared } : {}),
      ...(itimers.length > 0 ? { itimers } : {}),
    },
    threads: tasks.map((task, index) => {
      const { itimerReal: _jiffies, pending: _all, ...thread } = task.thread;
      const own = pending.private[index]!;
      return {
        ...thread,
        ...upgradeSegments(task.thread, context.arch),
        pid: process.pid,
        scheduling: upgradeScheduling(task.thread),
        ...(own.length > 0 ? { pending: own } : {}),
      };
    }),
  };
}

function checkTask({ process, thread }: Task): void {
  if (thread.tid !== process.pid) throw notOf24(`process ${process.pid}`, `the thread ${thread.tid}`);
  if ((process.pending?.length ?? 0) > 0)
    throw notOf24(`process ${process.pid}`, 'signals pending for the process');
  const found = findNewObject('process', process) ?? findNewObject('thread', thread);
  if (found) throw notOf24(found.object, found.what);
}
