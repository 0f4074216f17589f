/** What /proc tells, parsed: proc(5). Pids here are those of the reader's namespace unless called inner. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { type ProcessStat, readProcessStat } from '../../runtime/process-stat.ts';

export { statField } from '../../runtime/process-stat.ts';

/** /proc/PID/status (or task/TID/status), key → words; of its sixty lines few are ever asked for. */
export class Status {
  readonly #text: string;

  constructor(text: string) {
    this.#text = `\n${text}`;
  }

  get(key: string): string[] | undefined {
    const at = this.#text.indexOf(`\n${key}:`);
    if (at < 0) return undefined;
    const from = at + key.length + 2;
    return this.#text.slice(from, this.#text.indexOf('\n', from)).trim().split(/\s+/);
  }
}

export function readStatus(pid: number, tid = pid): Status {
  return new Status(readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8'));
}

/** The innermost of a namespaced id list (NSpid, NSpgid, NSsid). */
export function inner(status: Status, key: 'NSpid' | 'NStgid' | 'NSpgid' | 'NSsid'): number {
  const ids = status.get(key);
  return Number(ids?.at(-1) ?? 0);
}

/** /proc/PID/task/TID/stat. Throws when the task is gone, see isGone. */
export function readStat(pid: number, tid = pid): ProcessStat {
  return readProcessStat(`/proc/${pid}/task/${tid}/stat`);
}

export function listThreads(pid: number): number[] {
  return readdirSync(`/proc/${pid}/task`).map(Number);
}

/** Children by any thread of a process, or by those given. */
export function listChildren(pid: number, tids: readonly number[] = listThreads(pid)): number[] {
  const children: number[] = [];
  for (const tid of tids) {
    try {
      const text = readFileSync(`/proc/${pid}/task/${tid}/children`, 'utf8').trim();
      if (text) children.push(...text.split(' ').map(Number));
    } catch (cause) {
      // A thread may end while we look; its children have gone to another thread.
      if (!isGone(cause)) throw cause;
    }
  }
  return children;
}

/** The task behind a /proc path ended. */
export function isGone(cause: unknown): boolean {
  const code = (cause as NodeJS.ErrnoException).code;
  return code === 'ENOENT' || code === 'ESRCH';
}

/** One area of /proc/PID/maps; with smaps also its VmFlags. */
export interface MappedArea {
  start: bigint;
  end: bigint;
  permissions: string;
  offset: bigint;
  device: string;
  inode: bigint;
  path: string;
  flags: Set<string>;
  /** pkeys(7), 0 for none. */
  protectionKey: number;
}

const headLine = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) (\S+) (\d+)\s*(.*)$/s;

/** `maps` is quick, `smaps` walks the page tables and knows the flags. */
export function readAreas(pid: number, file: 'maps' | 'smaps' = 'smaps'): MappedArea[] {
  const areas: MappedArea[] = [];
  // Statistics lines start with a capital letter, area lines with a hexadecimal digit.
  for (const [line] of readFileSync(`/proc/${pid}/${file}`, 'utf8').matchAll(
    /^(?:[0-9a-f]|VmFlags:|ProtectionKey:)[^\n]*/gm,
  )) {
    if (line.startsWith('VmFlags:')) {
      areas.at(-1)!.flags = new Set(line.slice(8).trim().split(' '));
      continue;
    }
    if (line.startsWith('ProtectionKey:')) {
      areas.at(-1)!.protectionKey = Number(line.slice('ProtectionKey:'.length));
      continue;
    }
    const match = headLine.exec(line);
    if (!match) continue;
    areas.push({
      start: BigInt(`0x${match[1]}`),
      end: BigInt(`0x${match[2]}`),
      permissions: match[3]!,
      offset: BigInt(`0x${match[4]}`),
      device: match[5]!,
      inode: BigInt(match[6]!),
      // The kernel writes a newline in a name as \012.
      path: match[7]!.replace(/\\012/g, '\n'),
      flags: new Set(),
      protectionKey: 0,
    });
  }
  return areas;
}

export function listDescriptors(pid: number): number[] {
  return readdirSync(`/proc/${pid}/fd`)
    .map(Number)
    .sort((a, b) => a - b);
}

export function readDescriptorLink(pid: number | 'self', fd: number): string {
  return readlinkSync(`/proc/${pid}/fd/${fd}`);
}

/** Device and inode as /proc/PID/maps and /proc/locks have them: `fe:00:2150981`. */
export function inodeName(dev: bigint, ino: bigint): string {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
  return `${hex(major)}:${hex(minor)}:${ino}`;
}

const hex = (value: bigint) => value.toString(16).padStart(2, '0');

/** A name for messages: `node (pid 17)`. */
export function describeProcess(pid: number): string {
  try {
    return `${readStat(pid).comm} (pid ${pid})`;
  } catch {
    return `pid ${pid}`;
  }
}

/** Lines `key:value` of a file whose keys may repeat (fdinfo). */
export function readKeyedLines(path: string): string[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line.includes(':'));
}

/** /proc/PID/limits, whose lines stand in the order of the kernel's numbers. */
export function readLimits(pid: number): { soft: bigint; hard: bigint }[] {
  const value = (text: string) => (text === 'unlimited' ? 0xffffffffffffffffn : BigInt(text));
  return readFileSync(`/proc/${pid}/limits`, 'utf8')
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => {
      const [soft, hard] = line.slice(26).trim().split(/\s+/);
      return { soft: value(soft!), hard: value(hard!) };
    });
}
