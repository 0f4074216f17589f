/** /proc/PID/stat, taken apart once for everybody: proc_pid_stat(5). */
import { readFileSync } from 'node:fs';

export interface ProcessStat {
  /** Name of the program, at most 15 bytes. */
  comm: string;
  /** Everything behind the name; index 0 is field 3, the state. See statField. */
  fields: string[];
}

/** `path` is /proc/PID/stat or /proc/PID/task/TID/stat. Throws ENOENT or ESRCH when there is no such task. */
export function readProcessStat(path: string): ProcessStat {
  // Node reads UTF-8 in one step, other encodings in five.
  const text = readFileSync(path, 'utf8');
  // The name in parentheses may hold anything, parentheses and blanks too.
  const close = text.lastIndexOf(')');
  return {
    comm: text.slice(text.indexOf('(') + 1, close),
    fields: text
      .slice(close + 2)
      .trimEnd()
      .split(' '),
  };
}

/** Field `number` of proc_pid_stat(5), counted from 1 as there. */
export function statField(fields: readonly string[], number: number): string {
  return fields[number - 3] ?? '0';
}

/** A zombie (Z) has done all it ever will; X is seen of a task on its way out. */
export function isDeadState(state: string): boolean {
  return state === 'Z' || state === 'X';
}
