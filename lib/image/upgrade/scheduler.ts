/**
 * Row "scheduler". 2.4 keeps the ticks left of a time slice in `counter` and a nice value; the schedulers of 2.6
 * have no slice to hand over, nice and policy say it all. `counter` goes; nothing a program can see goes with it.
 */
import type { Records } from '../record.ts';
import { notOf24 } from './cannot.ts';

const lastPolicy24 = 2;

export function upgradeScheduling(thread: Records['thread']): Records['thread']['scheduling'] {
  const { counter: _ticks, ...scheduling } = thread.scheduling;
  if (scheduling.policy > lastPolicy24)
    throw notOf24(`thread ${thread.tid}`, `the scheduling policy ${scheduling.policy}`);
  return scheduling;
}
