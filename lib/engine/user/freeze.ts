/**
 * Stopping a session, and letting it go.
 *
 * Every task is seized and interrupted (PTRACE_SEIZE, PTRACE_INTERRUPT): unlike SIGSTOP this sends nothing that
 * the session could see, and the kernel undoes it by itself when the dumper dies. Tasks that are not stopped yet
 * can still make new ones, so the tree is walked again until a walk finds nothing new.
 *
 * A thread is not left inside the vdso, whose code reads data of this kernel at a place of this kernel: another one
 * could not go on there (vdso.ts). It is let run for some microseconds until it is out, each time anew.
 *
 * A process that waits in vfork(2) does not stop until its child has let go of its memory; then everything is set
 * going for a moment and tried again.
 */
import { existsSync, readFileSync } from 'node:fs';
import { native, type Stop } from '../../../native/index.ts';
import { nap } from '../../../native/nap.ts';
import { ptraceScope } from '../../../native/ptrace-scope.ts';
import { PodError } from '../../stream/error.ts';
import { PTRACE, SYS } from './abi.ts';
import {
  describeProcess,
  inner,
  isGone,
  listChildren,
  listThreads,
  readStat,
  readStatus,
  type Status,
  statField,
} from './proc.ts';

export interface FrozenThread {
  /** Host tid. */
  tid: number;
  /** Tid as the session sees it. */
  innerTid: number;
  /** Signal of the group stop the task is in, 0 when it was running. */
  stopSignal: number;
  status: Status;
}

export interface FrozenProcess {
  /** Host pid. */
  pid: number;
  /** Pid as the session sees it. */
  innerPid: number;
  /** Host pid of the parent. */
  parent: number;
  zombie: boolean;
  /** The leader first. Empty for a zombie. */
  threads: FrozenThread[];
}

const SIGTRAP = 5;
/**
 * How long a task may take to stop, ms, at the first attempt; each attempt gives it more. Most that take long wait in
 * vfork(2), and only letting all go on helps; on a busy machine a task may also wait for a processor.
 */
const stopTimeout = 300;
const longestStop = 3000;
const attempts = 12;
/** The code of a vdso is left within microseconds; a thread that calls nothing else is met in it half of the time. */
const mostNudges = 300;
const gone = Symbol('gone');

export class Freezer {
  readonly #seized = new Set<number>();
  readonly #groupStopped = new Set<number>();
  #suspendsSeccomp = true;
  #thawed = false;
  readonly #vdsos = new Map<number, Range | undefined>();
  #patience = stopTimeout;

  /** A filter of the session does not see the calls we make in it: that takes CAP_SYS_ADMIN, of the computer's root. */
  get suspendsSeccomp(): boolean {
    return this.#suspendsSeccomp;
  }

  /** Stop the trees below `roots` (host pids), parents before children. */
  freeze(roots: readonly number[]): FrozenProcess[] {
    for (let attempt = 0; ; attempt++) {
      this.#patience = Math.min(stopTimeout * (attempt + 1), longestStop);
      const stuck = this.#tryFreeze(roots);
      if (typeof stuck !== 'number') return stuck;
      this.#release();
      if (attempt === attempts) {
        throw new PodError(
          'cannot-checkpoint',
          `${describeProcess(stuck)} does not stop: it waits in the kernel (vfork, or a device)`,
          'try again in a moment',
        );
      }
      // Let a vfork child come to its exec.
      nap(5 << Math.min(attempt, 6));
    }
  }

  /** Let every task go on. Safe to call twice. */
  thaw(): void {
    if (this.#thawed) return;
    this.#thawed = true;
    this.#release();
  }

  /** A task that has not come to its stop can't be detached: it stays seized, and is waited for the next time. */
  #release(): void {
    // Threads before their leaders: a leader is only seen to end when its threads are.
    const tids = [...this.#seized].reverse();
    // Stopped processes (job control) go first and back into their stop, so that nobody of the session sees them run.
    const stopped = tids.filter((tid) => this.#groupStopped.has(tid));
    for (const tid of [...stopped, ...tids.filter((each) => !this.#groupStopped.has(each))]) {
      if (!this.#groupStopped.has(tid)) for (const each of stopped.splice(0)) awaitGroupStop(each);
      try {
        native().resume(tid, PTRACE.detach, 0);
      } catch (cause) {
        if (!isGone(cause)) throw cause;
        if (!this.#thawed && isAlive(tid)) continue;
        reap(tid);
      }
      this.#seized.delete(tid);
    }
  }

  #tryFreeze(roots: readonly number[]): FrozenProcess[] | number {
    this.#vdsos.clear();
    const processes = new Map<number, FrozenProcess>();
    for (let news = true; news; ) {
      news = false;
      const queue = [...roots];
      for (let pid = queue.shift(); pid !== undefined; pid = queue.shift()) {
        const found = this.#stopProcess(pid, processes.get(pid));
        if (found === gone) continue;
        if (typeof found === 'number') return found;
        if (found.grown) news = true;
        processes.set(pid, found.process);
        if (found.process.zombie) continue;
        const children = this.#children(found.process);
        // They come to their stops while we are with others.
        for (const child of children) this.#call(child, child);
        queue.push(...children);
      }
    }
    // A process may have ended between two walks.
    for (const process of [...processes.values()])
      if (!existsSync(`/proc/${process.pid}`)) processes.delete(process.pid);
    return [...processes.values()];
  }

  #children({ pid, threads }: FrozenProcess): number[] {
    try {
      return listChildren(
        pid,
        threads.map(({ tid }) => tid),
      );
    } catch (cause) {
      if (isGone(cause)) return [];
      throw cause;
    }
  }

  /** Seize what is not yet; host tid when one does not stop. */
  #stopProcess(
    pid: number,
    known: FrozenProcess | undefined,
  ): { process: FrozenProcess; grown: boolean } | number | typeof gone {
    try {
      const { fields } = readStat(pid);
      const state = fields[0];
      const tids = Number(statField(fields, 20)) === 1 ? [pid] : listThreads(pid);
      if ((state === 'Z' || state === 'X') && tids.length > 1) {
        throw new PodError(
          'cannot-checkpoint',
          `the first thread of ${describeProcess(pid)} has ended while others run on`,
        );
      }
      const process: FrozenProcess = {
        pid,
        innerPid: 0,
        parent: Number(statField(fields, 4)),
        zombie: state === 'Z' || state === 'X',
        threads: [],
      };
      if (process.zombie) {
        process.innerPid = inner(readStatus(pid), 'NSpid');
        return { process, grown: known === undefined };
      }
      let grown = known === undefined;
      for (const tid of tids) this.#call(pid, tid);
      for (const tid of tids) {
        const before = known?.threads.find((thread) => thread.tid === tid);
        if (before) {
          process.threads.push(before);
          continue;
        }
        const stop = this.#awaitStop(pid, tid);
        if (stop === gone) continue;
        if (stop === undefined) return tid;
        grown = true;
        this.#suspendSeccomp(tid);
        const threadStatus = readStatus(pid, tid);
        if (stop.signal !== SIGTRAP) this.#groupStopped.add(tid);
        // An interrupted task reports SIGTRAP, one in a group stop the signal that stopped it.
        process.threads.push({
          tid,
          innerTid: inner(threadStatus, 'NSpid'),
          stopSignal: stop.signal === SIGTRAP ? 0 : stop.signal,
          status: threadStatus,
        });
      }
      if (process.threads.length === 0) return gone;
      process.threads.sort((a, b) => Number(b.tid === pid) - Number(a.tid === pid));
      process.innerPid = process.threads[0]!.innerTid;
      return { process, grown };
    } catch (cause) {
      if (isGone(cause)) return gone;
      throw cause;
    }
  }

  /** Seize a task, if it is still there, and tell it to stop. */
  #call(pid: number, tid: number): void {
    if (this.#seized.has(tid)) return;
    try {
      native().seize(tid, PTRACE.optionSysGood);
    } catch (cause) {
      // The dead that nobody has waited for yet can't be seized: EPERM.
      if (isGone(cause) || !isAlive(tid)) return;
      throw this.#seizeFailure(pid, tid, cause);
    }
    this.#seized.add(tid);
    native().interrupt(tid);
  }

  /** Wait for a task that was called. */
  #awaitStop(pid: number, tid: number): Stop | undefined | typeof gone {
    if (!this.#seized.has(tid)) return gone;
    const addon = native();
    const vdso = this.#vdsoOf(pid);
    for (let nudges = 0; ; ) {
      const stop = addon.waitStop(tid, this.#patience);
      if (stop === undefined) return undefined;
      if (stop.state === 'exited') {
        this.#seized.delete(tid);
        return gone;
      }
      if (stop.event === PTRACE.eventStop) {
        const isGroupStop = stop.signal !== SIGTRAP;
        if (isGroupStop || nudges++ === mostNudges || !standsIn(vdso, tid)) return stop;
        // Some microseconds more, and it is out of it. Interrupted at once it would not run at all.
        addon.resume(tid, PTRACE.cont, 0);
        nap(Math.min(0.01 * nudges, 1));
        addon.interrupt(tid);
        continue;
      }
      // A signal was just being delivered: it must reach the task, our stop comes right behind it.
      addon.resume(tid, PTRACE.cont, stop.event === 0 ? stop.signal : 0);
    }
  }

  /** Not before the task has stopped for good: until then it runs, and its filters must see what it does. */
  #suspendSeccomp(tid: number): void {
    if (!this.#suspendsSeccomp) return;
    const options = PTRACE.optionSysGood | PTRACE.optionSuspendSeccomp;
    try {
      native().syscall(SYS.ptrace, PTRACE.setOptions, tid, 0, options);
    } catch (cause) {
      if (isGone(cause) || !isAlive(tid)) return;
      this.#suspendsSeccomp = false;
    }
  }

  /** Where a process has the kernel's vdso; asked once each attempt, since exec(2) moves it. */
  #vdsoOf(pid: number): Range | undefined {
    if (!this.#vdsos.has(pid)) this.#vdsos.set(pid, findVdso(pid));
    return this.#vdsos.get(pid);
  }

  #seizeFailure(pid: number, tid: number, cause: unknown): PodError {
    const tracer = Number(readStatus(pid, tid).get('TracerPid')?.[0] ?? 0);
    if (tracer !== 0) {
      return new PodError(
        'cannot-checkpoint',
        `${describeProcess(pid)} is being traced by ${describeProcess(tracer)}`,
        'end the debugger first',
        { cause },
      );
    }
    return new PodError(
      'cannot-checkpoint',
      `no permission to stop ${describeProcess(pid)}`,
      ptraceScope() === 0
        ? 'a session is dumped by its own user or by root'
        : `kernel.yama.ptrace_scope is ${ptraceScope()} here: ${
            ptraceScope() === 3
              ? 'nobody may dump anything until the computer starts with another'
              : 'users may only dump pods of their own, root anything'
          }`,
      { cause },
    );
  }
}

interface Range {
  start: bigint;
  end: bigint;
}

function findVdso(pid: number): Range | undefined {
  const line = /^([0-9a-f]+)-([0-9a-f]+) .*\[vdso\]$/m.exec(readFileSync(`/proc/${pid}/maps`, 'utf8'));
  return line ? { start: BigInt(`0x${line[1]}`), end: BigInt(`0x${line[2]}`) } : undefined;
}

function standsIn(range: Range | undefined, tid: number): boolean {
  if (!range) return false;
  const registers = native().getRegisters(tid);
  const rip = new DataView(registers.buffer, registers.byteOffset).getBigUint64(16 * 8, true);
  return rip >= range.start && rip < range.end;
}

/** A task that was killed under us stays a zombie, and its parent waits, until its tracer has taken note. */
function reap(tid: number): void {
  try {
    for (;;) {
      const stop = native().waitStop(tid, stopTimeout);
      if (!stop || stop.state === 'exited') return;
      native().resume(tid, PTRACE.cont, 0);
    }
  } catch {
    // It is gone altogether.
  }
}

/** A detached task of a stopped process stops again within microseconds. */
function awaitGroupStop(tid: number): void {
  for (let looks = 0; looks < 50 && isAlive(tid) && readStat(tid).fields[0] !== 'T'; looks++) nap(1);
}

function isAlive(tid: number): boolean {
  try {
    const state = readStat(tid).fields[0];
    return state !== 'Z' && state !== 'X';
  } catch {
    return false;
  }
}
