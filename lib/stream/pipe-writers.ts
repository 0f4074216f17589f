/** Who else can write into a pipe: while anybody can, its reader sees no end of file. */
import { fstatSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { printable } from './printable.ts';

/**
 * Note the pipe behind a descriptor. What is returned, called when the descriptor is closed, looks for a process of
 * this user that has the pipe open for writing, and gives a hint that names it; undefined when there is none.
 */
export function explainOpenPipe(fd: number): () => string | undefined {
  const pipe = fstatSync(fd);
  if (!pipe.isFIFO()) return () => undefined;
  return () => {
    const pid = list('/proc')
      .filter((entry) => /^[1-9]\d*$/.test(entry))
      .find((entry) => list(`/proc/${entry}/fd`).some((open) => writesTo(entry, open, pipe)));
    if (pid === undefined) return undefined;
    return `process ${pid} (${nameOf(pid)}) keeps the pipe open, so the stream has no end: let nothing but the dump write to it, as in pod-dump … | …`;
  };
}

function writesTo(pid: string, fd: string, pipe: { ino: number; dev: number }): boolean {
  try {
    const { ino, dev } = statSync(`/proc/${pid}/fd/${fd}`);
    if (ino !== pipe.ino || dev !== pipe.dev) return false;
    const flags = /^flags:\s+([0-7]+)/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1'))?.[1] ?? '0';
    // O_WRONLY or O_RDWR.
    return (Number.parseInt(flags, 8) & 3) !== 0;
  } catch {
    // Closed while we looked, or a file that cannot be asked.
    return false;
  }
}

function nameOf(pid: string): string {
  try {
    return printable(readFileSync(`/proc/${pid}/comm`, 'utf8').trim(), 64);
  } catch {
    return 'gone';
  }
}

/** Names in a folder of /proc; none when it is not ours to read. */
function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
