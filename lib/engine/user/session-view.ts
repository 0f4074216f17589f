/**
 * A stopped session as the collectors see it: its processes, and a way to run calls in them.
 *
 * Calls go through one Injector an address space; the thread that lends itself is the one with the most room on
 * its stack. finish() takes every trace of it away again.
 */
import { PodError } from '../../stream/error.ts';
import type { FrozenProcess, FrozenThread } from './freeze.ts';
import { Injector, readThreadState, stackRoom, type ThreadState } from './inject.ts';
import { describeProcess, type MappedArea, readAreas } from './proc.ts';
import { type Asking, askTogether, type Remote } from './remote.ts';

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
  readonly #injectors = new Map<number, Space>();
  readonly #mmOwner = new Map<number, number>();
  readonly #areas = new Map<number, readonly MappedArea[]>();

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

  /** What is mapped in a process, but for what we map ourselves, without the flags. */
  areas(pid: number): readonly MappedArea[] {
    const owner = this.#mmOwner.get(pid) ?? pid;
    const areas = this.#areas.get(owner) ?? readAreas(owner, 'maps');
    this.#areas.set(owner, areas);
    return areas;
  }

  /** Processes that share an address space use one injector: that of the first. */
  shareMemory(pid: number, owner: number): void {
    this.#mmOwner.set(pid, owner);
  }

  /**
   * Run calls in a process: in the given thread, or in whichever is best and has the process's own descriptors. `pid`
   * may also be the tid of a thread, which then makes them. Not to be nested.
   */
  within<Result>(pid: number, body: (remote: Remote) => Result, thread?: SessionThread): Result {
    const named = this.#byTid.get(pid);
    if (named) return this.within(named.process.pid, body, named.thread);
    const known = this.#injectorOf(pid);
    const { injector, best } = known;
    if (!known.ready) this.#prepare([known]);
    const usable = !best.own && this.process(pid)?.threads.includes(best);
    return body(injector.remote(thread ?? (usable ? best : this.process(pid)!.threads[0]!)));
  }

  /** Ask many threads at once. */
  askEach<Answer>(
    tasks: readonly { process: SessionProcess; thread: SessionThread }[],
    asking: (remote: Remote, process: SessionProcess, thread: SessionThread) => Asking<Answer>,
  ): Answer[] {
    const answers: Answer[] = new Array(tasks.length);
    let left = tasks.map((task, index) => ({ ...task, index, ...this.#injectorOf(task.process.pid) }));
    while (left.length > 0) {
      const round: typeof left = [];
      const later: typeof left = [];
      const going = new Map<Injector, SessionThread[]>();
      for (const task of left) {
        const threads = going.get(task.injector) ?? [];
        going.set(task.injector, threads);
        if (round.length === mostAtOnce || threads.length === task.injector.places) {
          later.push(task);
          continue;
        }
        threads.push(task.thread);
        round.push(task);
      }
      this.#prepare([...new Set(round.map(({ process }) => this.#injectorOf(process.pid)))]);
      for (const [injector, threads] of going) injector.makeRoom(threads);
      const found = askTogether(
        round.map(({ process, thread, injector }) => {
          const remote = injector.remote(thread);
          return { remote, asking: asking(remote, process, thread) };
        }),
      );
      round.forEach(({ index }, place) => {
        answers[index] = found[place]!;
      });
      left = later;
    }
    return answers;
  }

  /** Leave the session as it was found. */
  finish(): void {
    const used = [...this.#injectors.values()];
    this.#injectors.clear();
    Injector.finish(used.map(({ injector, best }) => ({ injector, lent: best })));
  }

  /** The first call must come from the thread with the most stack; later ones have the scratch area. */
  #prepare(spaces: readonly Space[]): void {
    const fresh = spaces.filter(({ ready }) => !ready);
    Injector.prepare(fresh.map(({ injector, best }) => ({ injector, lent: best })));
    for (const space of fresh) space.ready = true;
  }

  #injectorOf(pid: number): Space {
    const owner = this.#mmOwner.get(pid) ?? pid;
    const known = this.#injectors.get(owner);
    if (known) return known;
    const process = this.process(owner);
    if (!process || process.threads.length === 0)
      throw new PodError('other', `${describeProcess(pid)} has no thread to ask`);
    const areas = this.areas(owner);
    const best = process.threads.reduce((a, b) =>
      stackRoom(b.state, areas) > stackRoom(a.state, areas) ? b : a,
    );
    const made = { injector: new Injector(owner, areas, process.threads.length), best, ready: false };
    this.#injectors.set(owner, made);
    return made;
  }
}

/** An address space of the session: what works in it, and the thread with the most room on its stack. */
interface Space {
  injector: Injector;
  best: SessionThread;
  ready: boolean;
}

/** Threads asked at once: more would gain nothing. */
const mostAtOnce = 64;
