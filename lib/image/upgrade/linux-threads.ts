/**
 * `--merge-threads`: find LinuxThreads groups and make sure that they can be one process.
 *
 * The shape: an initial task, one child of it (the manager) and the manager's children (the threads), all sharing
 * memory, files, filesystem context and handlers. Tasks that share all of it in another shape are somebody
 * else's threads and stay processes.
 *
 * Refused is a group that signals its tasks by pid where that can be seen: a handler for the signals LinuxThreads
 * restarts and cancels with, one of them pending, a dead thread whose manager has to wait for it, a task that is
 * waiting for a thread's end right now. In one process such a signal would reach any thread, and such a wait none.
 */
import type { TreeEntry } from '../model.ts';
import type { Records } from '../record.ts';
import { cannotUpgrade } from './cannot.ts';
import type { ThreadGroup } from './thread-groups.ts';

/** __pthread_sig_restart, _cancel and _debug: the first three real-time signals. */
const threadSignals = [32, 33, 34];
const firstHandlerAddress = 2n;
/** wait4, waitid; on i386 waitpid, wait4. */
const waitCalls: Record<string, readonly number[]> = { x86_64: [61, 247], i386: [7, 114] };
const blame = 'leave out --merge-threads: the tasks then stay processes that share memory';

export interface LinuxThreadsImage {
  arch: string;
  entries: readonly TreeEntry[];
  processes: ReadonlyMap<number, Records['process']>;
  threads: ReadonlyMap<number, Records['thread']>;
  handlers: ReadonlyMap<number, Records['handlers']>;
}

const sharingKey = ({ mm, files, fs, handlers }: Records['process']): string =>
  [mm, files, fs, handlers].join(' ');

/** The groups, each checked. Tasks that CLONE_THREAD put into a group are not looked at. */
export function linuxThreadsGroups(image: LinuxThreadsImage): ThreadGroup[] {
  const byKey = new Map<string, TreeEntry[]>();
  for (const entry of image.entries) {
    const process = image.processes.get(entry.pid);
    if (!process || entry.threadGroup !== undefined) continue;
    const key = sharingKey(process);
    byKey.set(key, [...(byKey.get(key) ?? []), entry]);
  }
  return [...byKey.values()].flatMap((entries) => {
    const manager = findManager(entries);
    if (!manager) return [];
    const group = { leader: manager.ppid, members: entries.map((entry) => entry.pid) };
    checkSignals(group, manager, image);
    return [group];
  });
}

/** The manager of entries that share everything (parents first), when they have the shape. */
function findManager(entries: readonly TreeEntry[]): TreeEntry | undefined {
  const [initial, manager, ...threads] = entries;
  if (!initial || manager?.ppid !== initial.pid) return undefined;
  return threads.every((entry) => entry.ppid === manager.pid) ? manager : undefined;
}

function checkSignals(group: ThreadGroup, manager: TreeEntry, image: LinuxThreadsImage): void {
  const object = `process ${group.leader}`;
  const { handlers: id } = image.processes.get(group.leader)!;
  const handled = image.handlers
    .get(id)
    ?.actions.find(
      (action) => threadSignals.includes(action.signal) && action.handler >= firstHandlerAddress,
    );
  if (handled) {
    throw cannotUpgrade(
      object,
      `its threads signal each other by pid: it has a handler for signal ${handled.signal}`,
      blame,
    );
  }
  for (const pid of group.members) {
    const thread = image.threads.get(pid);
    const pending = (thread?.pending ?? [])
      .map((info) => new DataView(info.buffer, info.byteOffset, info.byteLength).getInt32(0, true))
      .find((signal) => threadSignals.includes(signal));
    if (pending !== undefined) {
      throw cannotUpgrade(
        object,
        `its threads signal each other by pid: signal ${pending} is pending for task ${pid}`,
        blame,
      );
    }
    if (thread?.parentDeathSignal && pid !== group.leader) {
      throw cannotUpgrade(
        object,
        `its task ${pid} wants signal ${thread.parentDeathSignal} when its parent task ends`,
        blame,
      );
    }
  }
  const waiting = group.members.find((pid) => waitsForThread(pid, group, image));
  if (waiting !== undefined)
    throw cannotUpgrade(object, `its task ${waiting} waits for the end of a thread as for a process`, blame);
  const dead = image.entries.find((entry) => entry.state === 'zombie' && entry.ppid === manager.pid);
  if (dead) {
    throw cannotUpgrade(
      object,
      `its thread ${dead.pid} has ended and manager ${manager.pid} has to wait for it`,
      blame,
    );
  }
}

/** Blocked in a wait call with no children but threads of the group. */
function waitsForThread(pid: number, group: ThreadGroup, image: LinuxThreadsImage): boolean {
  const call = image.threads.get(pid)?.systemCall?.number;
  if (call === undefined || !waitCalls[image.arch]?.includes(call)) return false;
  return image.entries.every((entry) => entry.ppid !== pid || group.members.includes(entry.pid));
}
