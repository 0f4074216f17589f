/**
 * The tree: who forks whom, and when.
 *
 * A process's parent is whoever forked it, its session is its parent's at the time of the fork. So the order of
 * forks and setsid(2) calls must be found again: a child whose session is not its parent's present one was forked
 * before the parent called setsid; an orphan (its parent was reaped) is forked by a passing helper out of a member
 * of its session, whose end hands it to pid 1. A session or group whose leader is gone gets a ghost with that
 * pid for as long as the tree is built.
 *
 * A process whose pages others inherit (inheritance.ts) forks only when they are there.
 *
 * Ids that were 0 in the image lay outside of it (the shell that started the session): the topmost process takes
 * their place.
 */
import { native } from '../../../native/index.ts';
import type { Records } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import { CLONE, PR, PTRACE, SYS } from './abi.ts';
import { type ImageRecords, needed, type TreeEntry } from './image-records.ts';
import type { NewTask } from './new-task.ts';
import { isGone } from './proc.ts';

const SIGCHLD = 17;
const WNOHANG = 1;
/** __WALL: also children that end without SIGCHLD. */
const waitAll = 0x40000000;

export interface BuiltTree {
  /** Live processes by pid in the session. */
  tasks: Map<number, NewTask>;
  /** The topmost process. */
  main: number;
  /** Let the zombies die and the ghosts go; when everything else that needs them is done. */
  finish(): void;
}

interface Plan extends TreeEntry {
  children: Plan[];
  ghost?: boolean;
}

/** plant(), then grow() for each address space that others inherit from, then complete(). */
export class TreeBuilder {
  readonly #image: ImageRecords;
  readonly #builder: NewTask;
  readonly #leadSession: (leader: NewTask) => void;
  readonly #plans = new Map<number, Plan>();
  readonly #tasks = new Map<number, NewTask>();
  /** Address spaces that others inherit from, by what is to be done when they are filled. */
  readonly #bases = new Map<number, (() => void)[]>();
  /** Children that their parent did not fork but took in, as a child subreaper (prctl(2)) does. */
  readonly #adopted: Plan[] = [];
  #main = 0;

  /** `leadSession` is called with each session leader before it forks. */
  constructor(image: ImageRecords, builder: NewTask, leadSession: (leader: NewTask) => void) {
    this.#image = image;
    this.#builder = builder;
    this.#leadSession = leadSession;
  }

  /** All that can be forked while no memory is filled. */
  plant(): void {
    this.#makePlans();
    for (const { record } of this.#image.spaces.values())
      if (record.base !== undefined) this.#bases.set(record.base, []);
    for (const root of this.#roots) if (!this.#isOrphan(root)) this.#create(root, this.#builder, 0);
  }

  /** Address spaces that are to be filled before others are forked, in the order in which their pages come. */
  get bases(): number[] {
    return [...this.#image.spaces.keys()].filter((mm) => this.#bases.has(mm));
  }

  /** The address space is filled: fork those that inherit its pages, and what comes of them. */
  grow(mm: number): void {
    const steps = needed(this.#bases, mm, 'address space');
    this.#bases.delete(mm);
    for (const step of steps) step();
  }

  /** What needs all others. */
  complete(): BuiltTree {
    const orphans = this.#roots.filter((plan) => this.#isOrphan(plan));
    // Those of pid 1 first: once a subreaper is set, orphans below it are its own.
    for (const plan of orphans) this.#createOrphan(plan);
    for (const plan of this.#adopted) this.#createOrphan(plan);
    this.#joinGroups();
    const zombies = [...this.#plans.values()].filter((plan) => plan.state === 'zombie' || plan.ghost);
    return { tasks: this.tasks, main: this.#main, finish: () => this.#end(zombies) };
  }

  /** Live processes so far, by pid in the session. */
  get tasks(): Map<number, NewTask> {
    return new Map([...this.#tasks].filter(([pid]) => this.#image.processes.has(pid)));
  }

  get #roots(): Plan[] {
    return [...this.#plans.values()].filter((plan) => plan.ppid === 0);
  }

  #isOrphan(plan: Plan): boolean {
    return plan.sid !== plan.pid && this.#plans.has(plan.sid);
  }

  #makePlans(): void {
    const top = this.#image.tree.find((entry) => entry.ppid === 0 && entry.state !== 'zombie');
    if (!top) throw new PodError('damaged', 'the image has no topmost process');
    this.#main = top.pid;
    // What lay outside: the topmost process leads its own session, unless it is in another's group.
    const leads = top.sid === 0 && (top.pgid === 0 || top.pgid === top.pid);
    for (const entry of this.#image.tree) {
      this.#plans.set(entry.pid, {
        ...entry,
        sid: entry.sid === 0 && leads ? top.pid : entry.sid,
        pgid: entry.pgid === 0 && leads ? top.pid : entry.pgid,
        children: [],
      });
    }
    this.#addGhosts();
    for (const plan of this.#plans.values()) {
      if (plan.ppid === 0) continue;
      const parent = needed(this.#plans, plan.ppid, 'process');
      if (plan.sid === plan.pid || this.#sessionsOf(parent).includes(plan.sid)) parent.children.push(plan);
      else this.#adopted.push(plan);
    }
  }

  /** Sessions a process may have been in. */
  #sessionsOf(plan: Plan): number[] {
    if (plan.sid !== plan.pid) return [plan.sid];
    const parent = this.#plans.get(plan.ppid);
    return [plan.pid, ...(parent ? this.#sessionsOf(parent) : [0])];
  }

  /**
   * Leaders that are gone, sessions first: a group's ghost lives in the group's session. A session's ghost is a
   * child of the process that took in the session's orphans, so that they come to it.
   */
  #addGhosts(): void {
    const ghost = (pid: number, sid: number, ppid: number): Plan => ({
      pid,
      ppid,
      pgid: pid,
      sid,
      state: 'zombie',
      comm: 'gone',
      ghost: true,
      children: [],
    });
    for (const plan of [...this.#plans.values()]) {
      if (plan.sid !== 0 && !this.#plans.has(plan.sid))
        this.#plans.set(plan.sid, ghost(plan.sid, plan.sid, plan.ppid));
    }
    for (const plan of [...this.#plans.values()]) {
      if (plan.pgid !== 0 && !this.#plans.has(plan.pgid))
        this.#plans.set(plan.pgid, ghost(plan.pgid, plan.sid, 0));
    }
  }

  /** `inherited`: the session the parent gives at this moment. */
  #create(plan: Plan, parent: NewTask, inherited: number): void {
    const task = this.#fork(plan, parent);
    const forks = () => this.#createChildren(plan, task, inherited);
    const mm = this.#image.processes.get(plan.pid)?.record.mm;
    const heir = plan.children.some((child) => {
      const own = this.#image.processes.get(child.pid)?.record.mm;
      return mm !== undefined && own !== mm && this.#image.spaces.get(own ?? -1)?.record.base === mm;
    });
    const waiting = heir ? this.#bases.get(mm!) : undefined;
    if (waiting) waiting.push(forks);
    else forks();
  }

  #createChildren(plan: Plan, task: NewTask, inherited: number): void {
    const before = plan.children.filter(
      (child) => plan.sid === plan.pid && (bornInto(child) ?? plan.pid) !== plan.pid,
    );
    const after = plan.children.filter((child) => !before.includes(child));
    for (const child of before) this.#create(child, task, inherited);
    if (plan.sid === plan.pid) {
      task.remote.call('setsid', SYS.setsid);
      if (plan.state !== 'zombie') this.#leadSession(task);
    }
    const session = plan.sid === plan.pid ? plan.pid : inherited;
    for (const child of after) this.#create(child, task, session);
    if (plan.sid !== 0 && session !== plan.sid) {
      throw new PodError(
        'cannot-restart',
        `process ${plan.pid} (${plan.comm}) can't be put into session ${plan.sid}`,
      );
    }
  }

  #fork(plan: Plan, parent: NewTask): NewTask {
    const flags = this.#sharing(plan);
    const exitSignal = plan.exitSignal ?? SIGCHLD;
    const task = parent.clone(
      parent.remote,
      plan.pid,
      flags,
      exitSignal,
      `process ${plan.pid} (${plan.comm})`,
    );
    this.#tasks.set(plan.pid, task);
    return task;
  }

  /** What a process shares with the process that forks it. */
  #sharing(plan: Plan): number {
    const own = this.#image.processes.get(plan.pid)?.record;
    const parent = this.#image.processes.get(plan.ppid)?.record;
    if (!own) return 0;
    const shared = (key: 'mm' | 'files' | 'fs' | 'handlers') =>
      parent !== undefined && parent[key] === own[key];
    for (const key of ['mm', 'files', 'fs', 'handlers'] as const) {
      if (shared(key)) continue;
      // A clone hands it down from parent to child; who has it from nobody must be the only one.
      const other = [...this.#image.processes.values()].find(
        ({ record }) => record.pid !== own.pid && record[key] === own[key] && !this.#inherits(record, key),
      );
      if (other)
        throw new PodError(
          'cannot-restart',
          `processes ${own.pid} and ${other.record.pid} share their ${key} but not by way of their parents, which is not handled yet`,
        );
    }
    return (
      (shared('mm') ? CLONE.vm : 0) |
      (shared('files') ? CLONE.files : 0) |
      (shared('fs') ? CLONE.fs : 0) |
      (shared('handlers') ? CLONE.sighand : 0)
    );
  }

  #inherits(record: Records['process'], key: 'mm' | 'files' | 'fs' | 'handlers'): boolean {
    const parent = this.#plans.get(record.pid)?.ppid ?? 0;
    return this.#image.processes.get(parent)?.record[key] === record[key];
  }

  /**
   * Forked by a helper out of a member of its session, whose end hands it to the next subreaper above: its parent in
   * the image, or pid 1.
   */
  #createOrphan(plan: Plan): void {
    const member = this.#tasks.get(plan.sid);
    if (!member)
      throw new PodError(
        'cannot-restart',
        `process ${plan.pid} (${plan.comm}) is in session ${plan.sid}, which can't be made`,
      );
    // Whether the parent stays a subreaper is set with the rest of its attributes.
    this.#tasks.get(plan.ppid)?.remote.run([[SYS.prctl, PR.setChildSubreaper, 1, 0, 0, 0]]);
    const helper = member.clone(member.remote, this.#freePid(), 0, 0, 'a helper process');
    this.#create(plan, helper, plan.sid);
    helper.end(0);
    member.remote.run([[SYS.wait4, helper.inner, 0, waitAll, 0]]);
  }

  #freePid(): number {
    for (let pid = 30000; ; pid--)
      if (
        !this.#plans.has(pid) &&
        ![...this.#image.processes.values()].some((process) =>
          process.threads.some((thread) => thread.record.tid === pid),
        )
      )
        return pid;
  }

  #joinGroups(): void {
    const plans = [...this.#plans.values()].filter((plan) => plan.pgid !== 0 && plan.sid !== plan.pid);
    const leaders = plans.filter((plan) => plan.pgid === plan.pid);
    const others = plans.filter((plan) => plan.pgid !== plan.pid);
    for (const plan of [...leaders, ...others]) {
      const result = this.#tasks.get(plan.pid)!.remote.run([[SYS.setpgid, 0, plan.pgid]])[0]!;
      if (result < 0n)
        throw new PodError(
          'cannot-restart',
          `process ${plan.pid} (${plan.comm}) can't be put into process group ${plan.pgid}`,
        );
    }
  }

  /** Children before parents: a parent that is a zombie too must still be there to keep its zombie children. */
  #end(zombies: readonly Plan[]): void {
    for (const plan of [...zombies].reverse()) {
      const task = this.#tasks.get(plan.pid)!;
      task.end(plan.ghost ? 0 : (plan.status ?? 0));
      if (!plan.ghost) continue;
      const parents = new Set([this.#builder, ...this.#adopted.map((each) => this.#tasks.get(each.ppid)!)]);
      for (const parent of parents) parent.remote.run([[SYS.wait4, plan.pid, 0, waitAll | WNOHANG, 0]]);
    }
  }
}

/**
 * The session a process was forked into, as far as the tree tells: its own, or, when it leads one, that of a child
 * it forked before.
 */
function bornInto(plan: Plan): number | undefined {
  if (plan.sid !== plan.pid) return plan.sid;
  for (const child of plan.children) {
    const session = bornInto(child);
    if (session !== undefined && session !== plan.pid) return session;
  }
  return undefined;
}

/** Let a task go. It may have ended already: others of its session run since a moment ago. */
export function detach(tid: number): void {
  try {
    native().resume(tid, PTRACE.detach, 0);
  } catch (cause) {
    if (!isGone(cause)) throw cause;
    // A tracer's dead stay until it has taken note.
    native().waitStop(tid, 1000);
  }
}
