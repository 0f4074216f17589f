/** What /proc tells of a process on the host. proc(5). */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { isDeadState, readProcessStat, statField } from '../runtime/process-stat.ts';

export interface ProcessStat {
  /** R S D T t Z X I. */
  state: string;
  parent: number;
  /** Clock ticks since boot. */
  start: number;
}

/** /proc/PID/stat; undefined when there is no such process. */
export function readStat(pid: number): ProcessStat | undefined {
  try {
    const { fields } = readProcessStat(`/proc/${pid}/stat`);
    return {
      state: statField(fields, 3),
      parent: Number(statField(fields, 4)),
      start: Number(statField(fields, 22)),
    };
  } catch {
    return undefined;
  }
}

/** The process that had this pid and start time lives; a zombie does not. */
export function isAlive(pid: number, start: number): boolean {
  const stat = readStat(pid);
  return stat !== undefined && stat.start === start && !isDeadState(stat.state);
}

/** Identity of a process's pid namespace; undefined when it is gone or not ours to see. */
export function pidNamespace(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return undefined;
  }
}

/** Host pids of all processes, by pid namespace (those we may look at). */
export function processesByNamespace(): Map<string, number[]> {
  const found = new Map<string, number[]>();
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const space = pidNamespace(Number(entry));
    if (space === undefined) continue;
    const pids = found.get(space);
    if (pids) pids.push(Number(entry));
    else found.set(space, [Number(entry)]);
  }
  return found;
}

/** Pid inside the innermost namespace; undefined when the process is gone. */
export function innerPid(pid: number): number | undefined {
  try {
    const line = /^NSpid:\s+(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1];
    return line === undefined ? undefined : Number(line.trim().split(/\s+/).at(-1));
  } catch {
    return undefined;
  }
}

/** Pid of the process that traces this one; 0 for none. */
export function tracerOf(pid: number): number {
  try {
    return Number(/^TracerPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** Proportional set size in bytes (shared pages counted once over their users); 0 when it cannot be read. */
export function memoryOf(pid: number): number {
  try {
    return (
      Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1'))?.[1] ?? 0) * 1024
    );
  } catch {
    return 0;
  }
}
