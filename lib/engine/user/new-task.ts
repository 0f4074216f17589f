/**
 * A task under construction: forked out of the builder, stopped, ours alone. Everything in it is made by system
 * calls run in it; nobody else can see it yet.
 */
import { native } from '../../../native/index.ts';
import { PodError } from '../../stream/error.ts';
import { allSignals, PTRACE, REG, registerWords, SYS } from './abi.ts';
import { type Asking, askTogether, type CallSite, Remote, RemoteError } from './remote.ts';

/** Each task asked while the others are at work; those of one address space, which share a call site, in turn. */
export function askTasks<Task extends { task: NewTask }>(
  tasks: readonly Task[],
  asking: (remote: Remote, each: Task) => Asking<void>,
): void {
  const bySite = new Map<CallSite, Task[]>();
  for (const each of tasks) {
    const known = bySite.get(each.task.site);
    if (known) known.push(each);
    else bySite.set(each.task.site, [each]);
  }
  for (let turn = 0; ; turn++) {
    const round = [...bySite.values()].flatMap((each) => each[turn] ?? []);
    if (round.length === 0) return;
    askTogether(
      round.map((each) => {
        const { remote } = each.task;
        return { remote, asking: asking(remote, each) };
      }),
    );
  }
}

export class NewTask {
  /** Host tid. */
  readonly tid: number;
  /** Tid in the session. */
  readonly inner: number;
  /** The very same object in tasks that share an address space, and in what was just forked. */
  site: CallSite;
  #singly = false;
  /** All tasks that come from the same builder and are still traced: who gives up must reap them. */
  readonly family: Set<number>;

  constructor(tid: number, inner: number, site: CallSite, family: Set<number> = new Set()) {
    this.tid = tid;
    this.inner = inner;
    this.site = site;
    this.family = family.add(tid);
  }

  /** From now on each call by itself: what the loop sends the task would take a pending SIGCONT away. */
  callSingly(): void {
    this.#singly = true;
  }

  /** System calls in this task, at its present call site. */
  get remote(): Remote {
    const registers = native().getRegisters(this.tid);
    const words = registerWords(registers);
    words[REG.rip] = this.site.code;
    words[REG.rsp] = this.site.stack;
    words[REG.eflags] = 0x202n;
    const { data, dataSize, loop } = this.site;
    return new Remote(this.tid, registers, { data, dataSize, ...(loop && !this.#singly ? { loop } : {}) });
  }

  /**
   * clone3(2) with a chosen tid; the child comes back stopped and traced.
   * `flags` CLONE_*, `exitSignal` as for clone. `what` names it in an error.
   */
  clone(remote: Remote, inner: number, flags: number, exitSignal: number, what: string): NewTask {
    remote.reset();
    const tids = remote.put(new Uint8Array(new Int32Array([inner, 0]).buffer));
    const words = new BigUint64Array(11);
    words[0] = BigInt(flags);
    words[4] = BigInt(exitSignal);
    words[8] = tids;
    words[9] = 1n;
    const argument = remote.put(new Uint8Array(words.buffer));
    try {
      remote.call('clone3', SYS.clone3, argument, words.byteLength);
    } catch (cause) {
      if (!(cause instanceof RemoteError)) throw cause;
      throw cloneFailure(what, inner, cause.errno);
    }
    const tid = remote.children[0];
    if (tid === undefined) throw new PodError('other', `${what} was made but not reported`);
    const stop = native().waitStop(tid, 5000);
    if (stop?.state !== 'stopped') throw new PodError('other', `${what} did not come up`);
    native().setSignalMask(tid, allSignals);
    return new NewTask(tid, inner, this.site, this.family);
  }

  /** End the task with a wait status (waitpid(2)), and reap it as its tracer: a zombie remains for its parent. */
  end(status: number): void {
    const signal = status & 0x7f;
    if (signal > mostSignal || harmless.has(signal)) {
      throw new PodError(
        'cannot-restart',
        `process ${this.inner} can't have ended with wait status ${status}`,
        'the image does not fit together: load it again',
      );
    }
    if (signal === 0) this.#exit((status >> 8) & 0xff);
    else this.#die(signal);
  }

  #exit(code: number): void {
    const registers = native().getRegisters(this.tid);
    const words = registerWords(registers);
    words[REG.rip] = this.site.code;
    words[REG.orig_rax] = 0xffffffffffffffffn;
    words[REG.rax] = BigInt(SYS.exit_group);
    words[REG.rdi] = BigInt(code);
    native().setRegisters(this.tid, registers);
    native().resume(this.tid, PTRACE.cont, 0);
    this.#awaitEnd(0);
  }

  #die(signal: number): void {
    if (signal === SIGKILL) {
      process.kill(this.tid, 'SIGKILL');
    } else {
      this.remote.run([[SYS.tgkill, this.inner, this.inner, signal]]);
      native().setSignalMask(this.tid, 0n);
      native().resume(this.tid, PTRACE.cont, 0);
    }
    this.#awaitEnd(signal);
  }

  #awaitEnd(signal: number): void {
    for (;;) {
      const stop = native().waitStop(this.tid, 5000);
      if (!stop) throw new PodError('other', `task ${this.inner} did not end`);
      if (stop.state === 'exited') {
        this.family.delete(this.tid);
        return;
      }
      native().resume(this.tid, PTRACE.cont, stop.event === 0 && stop.signal === signal ? signal : 0);
    }
  }
}

const SIGKILL = 9;
const mostSignal = 64;
/** What ends no process: CHLD CONT STOP TSTP TTIN TTOU URG WINCH. */
const harmless = new Set([17, 18, 19, 20, 21, 22, 23, 28]);
const EEXIST = 17;
const EAGAIN = 11;
const ENOMEM = 12;

function cloneFailure(what: string, inner: number, errno: number): PodError {
  if (errno === EEXIST)
    return new PodError('cannot-restart', `${what}: pid ${inner} is taken in the new pod`);
  if (errno === EAGAIN || errno === ENOMEM) {
    return new PodError(
      'cannot-restart',
      `${what} cannot be made: no room for another process`,
      'see ulimit -u and the free memory',
    );
  }
  return new PodError('cannot-restart', `${what} cannot be made with pid ${inner} (errno ${errno})`);
}
