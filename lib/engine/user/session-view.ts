/**
 * A stopped session as the collectors see it: its processes, and a way to run calls in them.
 *
 * Calls go through one Injector an address space; the thread that lends itself is the one with the most room on
 * its stack. finish() takes every trace of it away again.
 */
import { PodError } from '../../stream/error.ts';
import type { FrozenProcess, FrozenThread } from './freeze.ts';
import { Injector, readThreadState, stackRoom, type ThreadState } from './inject.ts';
import { describeProcess, readAreas } from './proc.ts';
import type { Remote } from './remote.ts';

export interface SessionThread extends FrozenThread {
  state: ThreadState;
  /** Descriptor table and filesystem context that are not those of its process, by id. */
  own?: { files?: number; fs?: number };
}

export interface SessionProcess extends FrozenProcess {
  threads: SessionThread[];
}

export class SessionView {
  /** Parents before children. */
  readonly processes: readonly SessionProcess[];
  readonly losses: string[] = [];
  readonly #byPid = new Map<number, SessionProcess>();
  /** Threads that are not their process's first. */
  readonly #byTid = new Map<number, { process: SessionProcess; thread: SessionThread }>();
  readonly #injectors = new Map<number, { injector: Injector; best: SessionThread }>();
  readonly #mmOwner = new Map<number, number>();

  constructor(frozen: readonly FrozenProcess[]) {
    this.processes = frozen.map((process) => ({
      ...process,
      threads: process.threads.map((thread) => ({ ...thread, state: readThreadState(thread.tid) })),
    }));
    for (const process of this.processes) {
      this.#byPid.set(process.pid, process);
      for (const thread of process.threads.slice(1)) this.#byTid.set(thread.tid, { process, thread });
    }
  }

  get alive(): SessionProcess[] {
    return this.processes.filter((process) => !process.zombie);
  }

  process(pid: number): SessionProcess | undefined {
    return this.#byPid.get(pid);
  }

  /** Host pid → pid in the session, 0 for a process outside. */
  innerPid(pid: number): number {
    return this.#byPid.get(pid)?.innerPid ?? 0;
  }

  /** Host tid of any thread, or pid of a process dead or alive → its id in the session, 0 when it is outside. */
  innerTid(tid: number): number {
    return this.innerPid(tid) || (this.#byTid.get(tid)?.thread.innerTid ?? 0);
  }

  /** Processes that share an address space use one injector: that of the first. */
  shareMemory(pid: number, owner: number): void {
    this.#mmOwner.set(pid, owner);
  }

  /**
   * Run calls in a process: in the given thread, or in whichever is best and has the process's own descriptors. `pid`
   * may also be the tid of a thread, which then makes them.
   */
  within<Result>(pid: number, body: (remote: Remote) => Result, thread?: SessionThread): Result {
    const named = this.#byTid.get(pid);
    if (named) return this.within(named.process.pid, body, named.thread);
    const { injector, best } = this.#injector(pid);
    const usable = !best.own && this.process(pid)?.threads.includes(best);
    const chosen = thread ?? (usable ? best : this.process(pid)!.threads[0]!);
    return injector.within(chosen.tid, chosen.state, body);
  }

  /** Leave the session as it was found. */
  finish(): void {
    for (const { injector, best } of this.#injectors.values()) injector.finish(best.tid, best.state);
    this.#injectors.clear();
  }

  #injector(pid: number): { injector: Injector; best: SessionThread } {
    const owner = this.#mmOwner.get(pid) ?? pid;
    const known = this.#injectors.get(owner);
    if (known) return known;
    const process = this.process(owner);
    if (!process || process.threads.length === 0)
      throw new PodError('other', `${describeProcess(pid)} has no thread to ask`);
    const areas = readAreas(owner, 'maps');
    const best = process.threads.reduce((a, b) =>
      stackRoom(b.state, areas) > stackRoom(a.state, areas) ? b : a,
    );
    const made = { injector: new Injector(owner, areas), best };
    this.#injectors.set(owner, made);
    // The first call must come from the thread with the most stack; later ones have the scratch area.
    made.injector.prepare(best.tid, best.state);
    return made;
  }
}
