/** What can be seen of the session from outside: its processes, its console, and on which file system it lives. */
import { existsSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { innerPid, pidNamespace, processesByNamespace } from '../../../lib/pod/proc.ts';
import type { Frame, Member, Sight } from '../job.ts';
import { sh, waitFor } from './shell.ts';

/** Host pids of all who live in a pod, pid 1 apart. */
export function podProcesses(): number[] {
  const own = pidNamespace(process.pid);
  return [...processesByNamespace()]
    .filter(([space]) => space !== own)
    .flatMap(([, pids]) => pids)
    .filter((pid) => (innerPid(pid) ?? 1) !== 1);
}

const listed = (folder: string) => {
  try {
    return readdirSync(folder).map((name) => join(folder, name));
  } catch {
    return [];
  }
};

/** Files and folders that a process has to do with, and that lie on another file system than `place`. */
function filesElsewhere(pid: number, place: string): string[] {
  const { dev } = statSync(place);
  const links = ['fd', 'map_files'].flatMap((name) => listed(`/proc/${pid}/${name}`));
  for (const name of ['cwd', 'exe', 'root']) links.push(`/proc/${pid}/${name}`);
  return links.flatMap((link) => {
    try {
      const path = readlinkSync(link);
      // Memory that processes share has no name.
      if (path.endsWith(' (deleted)')) return [];
      const status = statSync(link);
      return (status.isFile() || status.isDirectory()) && status.dev !== dev ? [path] : [];
    } catch {
      return [];
    }
  });
}

const nameOf = (pid: number) => readFileSync(`/proc/${pid}/comm`, 'utf8').trim();

function members(place: string): Member[] {
  return podProcesses()
    .map((pid) => ({ pid: innerPid(pid)!, name: nameOf(pid), elsewhere: filesElsewhere(pid, place) }))
    .sort((a, b) => a.pid - b.pid);
}

const line = /generation (\d+) · \d+ cells · chain (\w{12}) · replayed to (\d+) · (\d+) s · pid (\d+)/g;

function readFrames(console: string): Frame[] {
  if (console.includes('WRONG')) throw new Error(`the game found itself wrong: ${console.slice(-300)}`);
  // Without the escapes between the words.
  const plain = console.replace(/\x1b\[[0-9;?]*[A-Za-z]/g, '');
  return [...plain.matchAll(line)].map(([, generation, chain, checked, seconds, pid]) => ({
    generation: Number(generation),
    chain: chain!,
    checked: Number(checked),
    seconds: Number(seconds),
    pid: Number(pid),
  }));
}

/** The last whole picture that the console shows. */
function lastPicture(console: string): string {
  const whole = console.split('\x1b[H').filter((each) => each.includes('└'));
  return (whole.at(-1) ?? '')
    .replace(/\x1b\[[KJH]/g, '')
    .replaceAll('\r', '')
    .trimEnd();
}

/** Ask the session's first process, the shell, for what it keeps. `root` is the session's. */
async function askShell(root: string): Promise<string> {
  const shell = podProcesses().find((pid) => innerPid(pid) === 2);
  if (shell === undefined) throw new Error('the session has no process 2');
  const path = join(root, 'home/answer');
  process.kill(shell, 'SIGUSR1');
  const answer = await waitFor('the shell answers', () => {
    const said = existsSync(path) ? readFileSync(path, 'utf8') : '';
    return said.endsWith('\n') && said.trim();
  });
  rmSync(path);
  return answer;
}

/** What is to be seen once the game is good enough for `enough`; and the picture. */
export async function lookAt(
  name: string,
  root: string,
  enough: (last: Frame) => boolean,
): Promise<{ sight: Sight; picture: string }> {
  let seen = '';
  const frames = await waitFor(
    'the game goes on',
    () => {
      seen = sh(`pod-attach --snapshot ${name}`, { quiet: true });
      const found = readFrames(seen);
      const last = found.at(-1);
      return last && enough(last) && found;
    },
    () => `\n${seen.slice(-600)}`,
  );
  const sight = { members: members(root), frames, answer: await askShell(root) };
  return { sight, picture: lastPicture(seen) };
}
