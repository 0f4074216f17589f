/**
 * Row "threads", first half: which tasks become one process.
 *
 * 2.4 has two sorts of threads. CLONE_THREAD gives tasks a common thread group and nothing more: those are always
 * merged, because 2.6 has no such thing as separate tasks in one group. LinuxThreads are processes that share
 * everything; 2.6 still runs them, and they signal each other by pid, so they are merged only when asked for
 * (linux-threads.ts).
 */
import { PodError } from '../../stream/error.ts';
import { quote, type TreeEntry } from '../model.ts';
import type { Records } from '../record.ts';
import { cannotUpgrade } from './cannot.ts';

export interface ThreadGroup {
  leader: number;
  /** Pids of the tasks, the leader first, in the order of the tree; zombies too. */
  members: number[];
}

/** Groups of two or more that CLONE_THREAD made. */
export function cloneThreadGroups(entries: readonly TreeEntry[]): ThreadGroup[] {
  const groups = new Map<number, number[]>();
  const own = new Map(entries.map(({ pid, threadGroup }) => [pid, threadGroup ?? pid]));
  for (const { pid, threadGroup } of entries) {
    if (threadGroup === undefined) continue;
    if (own.get(threadGroup) !== threadGroup) {
      throw new PodError(
        'damaged',
        `process ${pid} is in the thread group of ${threadGroup}, which does not lead one`,
        'the stream was damaged or its maker is broken',
      );
    }
    const members = groups.get(threadGroup) ?? [];
    if (pid === threadGroup) members.unshift(pid);
    else members.push(pid);
    groups.set(threadGroup, members);
  }
  return [...groups]
    .map(([leader, members]) => ({
      leader,
      members: members[0] === leader ? members : [leader, ...members],
    }))
    .filter((group) => group.members.length > 1);
}

const shared = ['mm', 'files', 'fs', 'handlers'] as const;

/** Refuse a group that cannot be one process. `entries` and `processes` by pid; zombies have no process. */
export function checkGroup(
  group: ThreadGroup,
  entries: ReadonlyMap<number, TreeEntry>,
  processes: ReadonlyMap<number, Records['process']>,
): void {
  const { leader } = group;
  const head = entries.get(leader);
  if (!head) throw cannotUpgrade(`thread group ${leader}`, 'its leader is not in the tree');
  const alive = group.members.filter((pid) => entries.get(pid)!.state !== 'zombie');
  if (head.state === 'zombie' && alive.length > 0) {
    throw cannotUpgrade(
      `process ${leader} (${quote(head.comm)})`,
      `it has ended, but its threads ${alive.join(', ')} have not`,
    );
  }
  const model = processes.get(leader);
  for (const pid of alive) {
    const entry = entries.get(pid)!;
    const name = `thread ${pid} of process ${leader}`;
    if (entry.state !== head.state)
      throw cannotUpgrade(name, `it is ${entry.state} while its process is ${head.state}`);
    if (entry.pgid !== head.pgid || entry.sid !== head.sid)
      throw cannotUpgrade(name, 'it is in another process group or session than its process');
    const process = processes.get(pid);
    if (!process || !model) continue;
    for (const key of shared) {
      if (process[key] !== model[key])
        throw cannotUpgrade(name, `it does not share ${key} with its process, as all threads of 2.6 do`);
    }
    if (process.personality !== model.personality)
      throw cannotUpgrade(name, 'its personality is not that of its process');
  }
}
