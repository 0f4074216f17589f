/**
 * Threads with a descriptor table or a working directory of their own (unshare(2) with CLONE_FILES or CLONE_FS): who
 * can be cloned from whom. A clone shares each of the two with its maker or gets a new one, so what threads share must
 * be found again by way of makers.
 */
import { PodError } from '../../stream/error.ts';
import type { TableOwner } from './collect-files.ts';
import { describeProcess } from './proc.ts';
import type { SessionProcess, SessionThread } from './session-view.ts';
import { type SharedObjects, shares } from './sharing.ts';

/** What a thread has: ids. */
export interface ThreadContext {
  files: number;
  fs: number;
}

/** Thread `thread` is made by thread `maker`, and shares these with it. */
export interface CloneStep {
  thread: number;
  maker: number;
  files: boolean;
  fs: boolean;
}

/**
 * How to make all threads, the first of which is there. undefined when there is no way: tables and directories that
 * lead in a ring from thread to thread can't come out of clones (nor out of any program).
 */
export function planThreads(threads: readonly ThreadContext[]): CloneStep[] | undefined {
  const steps: CloneStep[] = [];
  const done = new Set<number>();
  /** Of each table, directory, and pair of them: the first thread that has it. */
  const owners = new Map<string, number>();
  const queue: string[] = [];
  const naming = new Map<string, number[]>();
  const keysOf = ({ files, fs }: ThreadContext) => ({ files: `files ${files}`, fs: `fs ${fs}` });
  threads.forEach((thread, index) => {
    for (const key of Object.values(keysOf(thread))) {
      const list = naming.get(key) ?? [];
      naming.set(key, list);
      list.push(index);
    }
  });
  const take = (index: number) => {
    done.add(index);
    const { files, fs } = keysOf(threads[index]!);
    for (const key of [files, fs]) if (!owners.has(key)) queue.push(key);
    for (const key of [files, fs, `${files} ${fs}`]) if (!owners.has(key)) owners.set(key, index);
  };
  const make = (step: CloneStep) => {
    steps.push(step);
    take(step.thread);
  };
  const walk = (): boolean => {
    for (let key = queue.shift(); key !== undefined; key = queue.shift()) {
      for (const thread of naming.get(key)!) {
        if (done.has(thread)) continue;
        const { files, fs } = keysOf(threads[thread]!);
        const twin = owners.get(`${files} ${fs}`);
        if (twin !== undefined) make({ thread, maker: twin, files: true, fs: true });
        else if (owners.has(files) && owners.has(fs)) return false;
        else make({ thread, maker: owners.get(key)!, files: key === files, fs: key === fs });
      }
    }
    return true;
  };
  take(0);
  if (!walk()) return undefined;
  for (let thread = 1; thread < threads.length; thread++) {
    if (done.has(thread)) continue;
    make({ thread, maker: 0, files: false, fs: false });
    if (!walk()) return undefined;
  }
  return steps;
}

interface Sharing {
  files: SharedObjects;
  fs: SharedObjects;
}

/**
 * Threads that don't have the descriptors or the working directory of their process: notes it in them. Gives what
 * is theirs alone, each once.
 */
export function splitThreads(
  process: SessionProcess,
  sharing: Sharing,
  common: ThreadContext,
): { tables: TableOwner[]; folders: { id: number; thread: SessionThread }[] } {
  const tables: TableOwner[] = [];
  const folders: { id: number; thread: SessionThread }[] = [];
  const ours = { files: new Set<number>(), fs: new Set<number>() };
  for (const thread of process.threads.slice(1)) {
    const own: { files?: number; fs?: number } = {};
    for (const key of ['files', 'fs'] as const) {
      if (shares(process.pid, thread.tid, key)) continue;
      const { id, first } = sharing[key].find(thread.tid);
      if (!first && !ours[key].has(id)) {
        throw new PodError(
          'cannot-checkpoint',
          `thread ${thread.tid} of ${describeProcess(process.pid)} shares its ${key === 'files' ? 'descriptors' : 'working directory'} with another process, and not with its own`,
          'let one of the two end first',
        );
      }
      ours[key].add(id);
      own[key] = id;
      if (!first) continue;
      if (key === 'files') tables.push({ id, pid: thread.tid, thread: true });
      else folders.push({ id, thread });
    }
    if (own.files !== undefined || own.fs !== undefined) thread.own = own;
  }
  const contexts = process.threads.map(({ own }) => ({ files: common.files, fs: common.fs, ...own }));
  if (planThreads(contexts) === undefined) {
    throw new PodError(
      'cannot-checkpoint',
      `the threads of ${describeProcess(process.pid)} share descriptors and working directories in a ring`,
      'let one of them end first',
    );
  }
  return { tables, folders };
}
