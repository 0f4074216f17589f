/**
 * Row "interval timers". 2.4: each task has an ITIMER_REAL, counted in jiffies of 1/100 s. 2.6: the process has
 * one, in nanoseconds. ITIMER_VIRTUAL and ITIMER_PROF count a task's own processor time in 2.4, the whole
 * process's in 2.6: the same for a process of one task, something else for a group.
 */
import type { IntervalTimer } from '../model.ts';
import { cannotUpgrade, notOf24 } from './cannot.ts';
import type { Task } from './task.ts';

/** HZ of 2.4 on x86: 100. */
const nsPerJiffy = 10_000_000n;
/** KTIME_MAX: what 2.6 makes of longer times. */
const longest = (1n << 63n) - 1n;

const names = ['ITIMER_REAL', 'ITIMER_VIRTUAL', 'ITIMER_PROF'];

/** Jiffies as nanoseconds; longer than 292 years is for ever, as in the kernel. */
export function jiffiesToNs(jiffies: bigint): bigint {
  const ns = jiffies * nsPerJiffy;
  return ns > longest ? longest : ns;
}

/** The timers of a process from those of its tasks; disarmed ones left out. */
export function joinIntervalTimers(tasks: readonly Task[]): IntervalTimer[] {
  const timers: IntervalTimer[] = [];
  for (const task of tasks) {
    const real = task.thread.itimerReal;
    // it_real_incr outlives a timer that was disarmed by expiry, so a period alone means nothing.
    if (real && real.valueJiffies > 0n) {
      timers.push({
        which: 0,
        valueNs: jiffiesToNs(real.valueJiffies),
        intervalNs: jiffiesToNs(real.intervalJiffies),
      });
    }
    for (const timer of task.process.itimers ?? []) {
      if (timer.which === 0) throw notOf24(`process ${task.process.pid}`, 'an ITIMER_REAL in nanoseconds');
      if (timer.valueNs === 0n) continue;
      if (tasks.length > 1) {
        throw cannotUpgrade(
          `thread ${task.process.pid}`,
          `its ${names[timer.which]} counts its own processor time, but in 2.6 that of its whole process`,
          'let the program stop the timer before the session is dumped',
        );
      }
      timers.push(timer);
    }
  }
  const armed = timers.filter((timer) => timer.which === 0).length;
  if (armed > 1) {
    const owners = tasks.filter((task) => (task.thread.itimerReal?.valueJiffies ?? 0n) > 0n);
    throw cannotUpgrade(
      `process ${tasks[0]!.process.pid}`,
      `its threads ${owners.map((task) => task.process.pid).join(', ')} each have an ITIMER_REAL, a 2.6 process has one`,
      'let the program stop all but one before the session is dumped',
    );
  }
  return timers;
}
