/** Who a process is: a pid alone is used again, pid and start time together are not. */
import { isDeadState, readProcessStat, statField } from './process-stat.ts';

export interface ProcessIdentity {
  pid: number;
  /** Field 22 of /proc/PID/stat: clock ticks after boot. A string, since it may pass 2^53. */
  startTime: string;
}

/** This process. */
export function ownIdentity(): ProcessIdentity {
  return { pid: process.pid, startTime: statField(readProcessStat('/proc/self/stat').fields, 22) };
}

/** Whether that very process still runs; a zombie has done all it ever will. */
export function isAlive(identity: ProcessIdentity): boolean {
  try {
    const { fields } = readProcessStat(`/proc/${identity.pid}/stat`);
    return statField(fields, 22) === identity.startTime && !isDeadState(statField(fields, 3));
  } catch {
    return false;
  }
}
