/**
 * Row "resource limits". 2.4 has 11, a task; 2.6 has 16, a process. The five new ones get what a 2.6 kernel
 * gives its first process: SIGPENDING half the machine's thread limit, which is also what it gives NPROC (so the
 * image's own NPROC says it); MSGQUEUE 819200 bytes; NICE and RTPRIO none; RTTIME no limit.
 */
import type { Limit } from '../model.ts';
import { notOf24 } from './cannot.ts';
import type { Context, Task } from './task.ts';

const count24 = 11;
const nproc = 6;
const unlimited = 0xffffffffffffffffn;
const messageQueueBytes = 819200n;

const names = ['CPU', 'FSIZE', 'DATA', 'STACK', 'CORE', 'RSS', 'NPROC', 'NOFILE', 'MEMLOCK', 'AS', 'LOCKS'];

const same = (a: Limit, b: Limit): boolean => a.soft === b.soft && a.hard === b.hard;
const both = (value: bigint): Limit => ({ soft: value, hard: value });

/** The 16 limits of a process from those of its tasks (the leader first): the leader's count. */
export function joinLimits(tasks: readonly Task[], context: Context): Limit[] {
  for (const { process } of tasks) {
    if (process.limits.length !== count24)
      throw notOf24(`process ${process.pid}`, `${process.limits.length} resource limits`);
  }
  const limits = tasks[0]!.process.limits;
  for (const { process } of tasks.slice(1)) {
    const differing = names.filter((_name, index) => !same(process.limits[index]!, limits[index]!));
    if (differing.length > 0) {
      context.losses.push(
        `thread ${process.pid} had its own resource limits (${differing.join(', ')}); it now has those of its process ${tasks[0]!.process.pid}`,
      );
    }
  }
  const { soft, hard } = limits[nproc]!;
  return [
    ...limits.map(({ soft, hard }) => ({ soft, hard })),
    { soft, hard },
    both(messageQueueBytes),
    both(0n),
    both(0n),
    both(unlimited),
  ];
}
