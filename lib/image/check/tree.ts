/** The process tree, and the processes and threads that fill it. */
import { bounds, limitCount, type Semantics, type TreeEntry } from '../model.ts';
import type { Records } from '../record.ts';
import { beyond, damaged, IdSpace } from './fault.ts';

interface Node {
  zombie: boolean;
  /** Its PROCESS came. */
  filled: boolean;
}

/** What PROCESS names, for the owner of the spaces to look up. */
export type Sharing = Pick<Records['process'], 'mm' | 'files' | 'fs' | 'handlers'>;

export class TreeCheck {
  readonly #semantics: Semantics;
  readonly #nodes = new Map<number, Node>();
  /** Session of each process group seen. */
  readonly #groups = new Map<number, number>();
  readonly #threadGroups = new Map<number, number>();
  readonly #tids = new Set<number>();
  readonly #filters = new IdSpace('seccomp filter', bounds.filters);
  #current: { pid: number; threads: number; leader: boolean } | undefined;

  constructor(semantics: Semantics) {
    this.#semantics = semantics;
  }

  tree(record: Records['tree']): void {
    for (const entry of record.processes) this.#entry(entry);
  }

  /** The tree is whole. */
  treeEnd(): void {
    if (this.#nodes.size === 0) throw damaged('the image has no process tree');
    for (const [pid, leader] of this.#threadGroups) {
      if (!this.#nodes.has(leader))
        throw damaged(`process ${pid} is in the thread group of ${leader}, which is not in the tree`);
      if ((this.#threadGroups.get(leader) ?? leader) !== leader)
        throw damaged(`process ${pid} is in the thread group of ${leader}, which is in another itself`);
    }
  }

  process(record: Records['process']): void {
    this.#close();
    const { pid } = record;
    const node = this.#nodes.get(pid);
    if (!node) throw damaged(`process ${pid} is not in the tree`);
    if (node.zombie) throw damaged(`process ${pid} is a zombie but has a PROCESS record`);
    if (node.filled) throw damaged(`process ${pid} is defined twice`);
    node.filled = true;
    const count = limitCount(this.#semantics);
    if (record.limits.length !== count)
      throw damaged(`process ${pid} has ${record.limits.length} resource limits instead of ${count}`);
    if (this.#semantics === '2.4' && (record.pending?.length ?? 0) > 0)
      throw damaged(`process ${pid} has signals pending for the process, which 2.4 lacked`);
    checkSignals(record.pending, `process ${pid}`);
    this.#current = { pid, threads: 0, leader: false };
  }

  thread(record: Records['thread']): void {
    const { pid, tid } = record;
    const current = this.#current;
    if (current?.pid !== pid) throw damaged(`thread ${tid} does not follow its process ${pid}`);
    if (this.#tids.has(tid)) throw damaged(`thread ${tid} is defined twice`);
    if (this.#tids.size >= bounds.threads) throw beyond(`${this.#tids.size + 1} threads`, bounds.threads);
    if (tid !== pid && this.#nodes.has(tid)) throw damaged(`thread ${tid} has the id of a process`);
    const { uids, gids } = record.credentials;
    if (uids.length !== 4 || gids.length !== 4)
      throw damaged(
        `thread ${tid}: its credentials have ${uids.length} user ids and ${gids.length} group ids`,
      );
    checkSignals(record.pending, `thread ${tid}`);
    const { strict, filters = [] } = record.seccomp ?? {};
    if (strict && filters.length > 0)
      throw damaged(`thread ${tid} is in seccomp's strict mode and has filters`);
    for (const id of filters) this.#filters.require(id, `thread ${tid}`);
    this.#tids.add(tid);
    current.threads += 1;
    current.leader ||= tid === pid;
    if (this.#semantics === '2.4' && tid !== pid)
      throw damaged(`process ${pid} has the thread ${tid}, which 2.4 lacked`);
  }

  /** A seccomp filter: the kernel reads what it says, here it is only counted. */
  filter({ id, program }: Records['seccomp']): void {
    if (program.length === 0 || program.length % instruction !== 0)
      throw damaged(`seccomp filter ${id} has no whole number of instructions`);
    this.#filters.define(id);
  }

  /** Whether the tree has the process, and it is no zombie. */
  isAlive(pid: number): boolean {
    return this.#nodes.get(pid)?.zombie === false;
  }

  /** All processes came. */
  end(): void {
    this.#close();
    for (const [pid, node] of this.#nodes) {
      if (!node.zombie && !node.filled) throw damaged(`process ${pid} of the tree has no PROCESS record`);
    }
  }

  #close(): void {
    const current = this.#current;
    this.#current = undefined;
    if (current && !current.leader) {
      throw damaged(
        current.threads === 0
          ? `process ${current.pid} has no thread`
          : `process ${current.pid} has no thread of its own id`,
      );
    }
  }

  #entry(entry: TreeEntry): void {
    const { pid, ppid, pgid, sid, state, threadGroup } = entry;
    if (this.#nodes.has(pid)) throw damaged(`process ${pid} is in the tree twice`);
    if (this.#nodes.size >= bounds.processes)
      throw beyond(`${this.#nodes.size + 1} processes`, bounds.processes);
    // Parents come first, so a cycle cannot be written down.
    const parent = this.#nodes.get(ppid);
    if (ppid !== 0 && !parent)
      throw damaged(`process ${pid} has the parent ${ppid}, which is not in the tree before it`);
    if (parent?.zombie) throw damaged(`process ${pid} has the parent ${ppid}, which is a zombie`);
    if (sid === pid && pgid !== pid)
      throw damaged(`process ${pid} leads a session but is in process group ${pgid}`);
    const session = this.#groups.get(pgid);
    if (pgid !== 0 && session !== undefined && session !== sid)
      throw damaged(`process group ${pgid} is in the sessions ${session} and ${sid}`);
    this.#groups.set(pgid, sid);
    if (threadGroup !== undefined) {
      if (this.#semantics !== '2.4') throw damaged(`process ${pid} has a 2.4 thread group in a 2.6 image`);
      this.#threadGroups.set(pid, threadGroup);
    }
    this.#nodes.set(pid, { zombie: state === 'zombie', filled: false });
  }
}

/** struct sock_filter. */
const instruction = 8;
const lastSignal = 64;
const SIGKILL = 9;

/** siginfo_t begins with the signal's number. Nobody outlives a SIGKILL to have it pending. */
function checkSignals(pending: readonly Uint8Array[] | undefined, owner: string): void {
  for (const info of pending ?? []) {
    const signal = new DataView(info.buffer, info.byteOffset).getInt32(0, true);
    if (signal < 1 || signal > lastSignal || signal === SIGKILL)
      throw damaged(`${owner} has the impossible signal ${signal} pending`);
  }
}
