/** What is decided for the whole image before any record of it is turned: which tasks become threads of whom. */
import type { TreeEntry } from '../model.ts';
import { type LinuxThreadsImage, linuxThreadsGroups } from './linux-threads.ts';
import { mergeTree } from './merge-tree.ts';
import type { Context } from './task.ts';
import { checkGroup, cloneThreadGroups, type ThreadGroup } from './thread-groups.ts';

export interface Plan {
  groups: ThreadGroup[];
  /** How many of the groups are LinuxThreads. */
  linuxThreads: number;
  /** Tasks alive of each process of the upgraded image, the leader first, by each task's pid. */
  tasksOf: ReadonlyMap<number, readonly number[]>;
  /** The upgraded tree. */
  tree: TreeEntry[];
}

/** Plan an image; `mergeThreads` also folds LinuxThreads groups. Throws for a group that cannot be a process. */
export function planUpgrade(image: LinuxThreadsImage, mergeThreads: boolean, context: Context): Plan {
  const byPid = new Map(image.entries.map((entry) => [entry.pid, entry]));
  const linuxThreads = mergeThreads ? linuxThreadsGroups(image) : [];
  const groups = [...cloneThreadGroups(image.entries), ...linuxThreads];
  for (const group of groups) checkGroup(group, byPid, image.processes);
  const tasksOf = new Map<number, readonly number[]>();
  for (const { members } of groups) {
    const alive = members.filter((pid) => byPid.get(pid)!.state !== 'zombie');
    for (const pid of alive) tasksOf.set(pid, alive);
  }
  return {
    groups,
    linuxThreads: linuxThreads.length,
    tasksOf,
    tree: mergeTree(image.entries, groups, context),
  };
}
