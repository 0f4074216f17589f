/** Who outside a session has memory of it mapped too: after a restart each would have its own. */
import { readdirSync } from 'node:fs';
import { PodError } from '../../stream/error.ts';
import { describeProcess, readAreas } from './proc.ts';

/** `shared`: what the session shares, by device and inode as /proc/PID/maps has them, and how to call it. */
export function refuseSharers(shared: ReadonlyMap<string, string>, own: ReadonlySet<number>): void {
  if (shared.size === 0) return;
  for (const pid of readdirSync('/proc').map(Number)) {
    if (!Number.isInteger(pid) || own.has(pid)) continue;
    for (const key of sharedBy(pid)) {
      const owner = shared.get(key);
      if (owner === undefined) continue;
      throw new PodError(
        'cannot-checkpoint',
        `${owner}: ${describeProcess(pid)} outside the session has this memory mapped too`,
        'take all programs that share it into one session (pod-run)',
      );
    }
  }
}

/** Nothing of a process that we may not look at, or that has just ended. */
function sharedBy(pid: number): string[] {
  try {
    return readAreas(pid, 'maps')
      .filter(({ permissions }) => permissions[3] === 's')
      .map(({ device, inode }) => `${device}:${inode}`);
  } catch {
    return [];
  }
}
