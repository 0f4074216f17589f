/** Row "threads", the tree: entries of merged threads go, their children become children of the process. */
import { PodError } from '../../stream/error.ts';
import type { TreeEntry } from '../model.ts';
import { cannotUpgrade } from './cannot.ts';
import type { Context } from './task.ts';
import type { ThreadGroup } from './thread-groups.ts';

/** The tree of the upgraded image, parents first. */
export function mergeTree(
  entries: readonly TreeEntry[],
  groups: readonly ThreadGroup[],
  context: Context,
): TreeEntry[] {
  const leaderOf = new Map<number, number>();
  for (const { leader, members } of groups) for (const pid of members) leaderOf.set(pid, leader);
  const isThread = (pid: number): boolean => (leaderOf.get(pid) ?? pid) !== pid;

  const merged: TreeEntry[] = [];
  for (const { threadGroup: _group, ...entry } of entries) {
    if (isThread(entry.pid)) {
      noteZombie(entry, leaderOf.get(entry.pid)!, context);
      continue;
    }
    for (const key of ['pgid', 'sid'] as const) {
      if (isThread(entry[key])) {
        throw cannotUpgrade(
          `process ${entry.pid}`,
          `its ${key === 'pgid' ? 'process group' : 'session'} ${entry[key]} is named after a thread of process ${leaderOf.get(entry[key])}`,
        );
      }
    }
    merged.push({ ...entry, ppid: leaderOf.get(entry.ppid) ?? entry.ppid });
  }
  return sortTree(merged);
}

/** 2.4 keeps a dead thread for its parent to wait for; a dead thread of 2.6 is gone at once. */
function noteZombie(entry: TreeEntry, leader: number, context: Context): void {
  if (entry.state === 'zombie') {
    context.losses.push(
      `thread ${entry.pid} of process ${leader} had ended with status ${entry.status ?? 0}, and nobody had waited for it; threads of 2.6 cannot be waited for`,
    );
  }
}

/** Parents before children, else as they were: a leader may stand behind the children of its threads. */
function sortTree(entries: readonly TreeEntry[]): TreeEntry[] {
  const byPid = new Map(entries.map((entry) => [entry.pid, entry]));
  const done = new Set<number>();
  const sorted: TreeEntry[] = [];
  for (const entry of entries) {
    const chain: TreeEntry[] = [];
    const seen = new Set<number>();
    for (let at: TreeEntry | undefined = entry; at && !done.has(at.pid); at = byPid.get(at.ppid)) {
      if (seen.has(at.pid))
        throw new PodError('damaged', `process ${at.pid} is its own ancestor`, 'the stream was damaged');
      seen.add(at.pid);
      chain.push(at);
    }
    for (const each of chain.reverse()) {
      done.add(each.pid);
      sorted.push(each);
    }
  }
  return sorted;
}
