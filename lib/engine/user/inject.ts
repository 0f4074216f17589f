/**
 * Self-healing injection: system calls in a task of a running session that leave it unharmed even when the dumper
 * is killed between any two instructions.
 *
 * The kernel already knows how to put a thread back into the middle of whatever it was doing: signal return. So
 * before a register of the task is touched, a signal frame with all of its state is written into the task's
 * memory, and the code that the task is pointed at is
 *
 *     syscall                  the injected call
 *     mov eax, 15; syscall     rt_sigreturn: back to where it was
 *
 * As long as the dumper lives it stops the task behind the first instruction, takes the result, and in the end
 * restores the registers itself; so a restart block (the rest of a time-out) survives, which signal return would
 * turn into EINTR. If the dumper dies, the kernel detaches the task, and the task runs on through the two lines
 * above. Every state in between is one of: original registers; rip in the code with rsp at a complete frame.
 * Signals are blocked only inside such a state, and the frame holds the mask they go back to; the same holds for rights
 * to memory (objects/protection-keys.ts), for the few threads that lack those a call needs.
 *
 * Where the code lies: in the unused tail of the vdso, which every task maps, no program writes and nobody reads.
 * Where the frame lies: in an area mapped for it by a first call. Only that first call (and the last, which unmaps
 * the area) needs a frame on the task's own stack, below the red zone, where the kernel itself would put one; what
 * was there is put back, in case the program's stack is smaller than a signal frame.
 *
 * A thread that was entered stays in until the session has been asked everything, and many are in at once, each at a
 * place of its own: so they can be asked together (remote.ts), and are put back together.
 */
import { native } from '../../../native/index.ts';
import { PodError } from '../../stream/error.ts';
import { allSignals, MAP, NT_X86_XSTATE, PROT, PTRACE, REG, registerWords, SYS } from './abi.ts';
import { endedOnlyByStop, nameRestartedCall, rewindCall } from './interrupted-call.ts';
import { liftedRights } from './objects/protection-keys.ts';
import { describeProcess, type MappedArea } from './proc.ts';
import { type CallSite, Remote, RemoteError, runTogether, type Word } from './remote.ts';
import { abortRestartableSequence } from './rseq.ts';
import { buildSignalFrame, framePointer, maxSignalFrame } from './signal-frame.ts';

const code = Uint8Array.of(0x0f, 0x05, 0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05, 0x0f, 0x0b, 0, 0, 0, 0, 0);
/**
 * Code, a signature, and the address of the scratch area with its places less one in the low bits: what a later dumper
 * looks for when this one was killed.
 */
const signature = 0x312d6d6165727473n;
const codeLength = 32;

/** Room below the frame for a signal handler, should the dumper die while signals are open. */
const headroom = 128 << 10;
const frameRoom = maxSignalFrame;
const dataRoom = 112 << 10;
const EAGAIN = 11;
const placeLength = BigInt(headroom + frameRoom + dataRoom);
/** Threads of one address space that can be in at once. */
const mostPlaces = 16;

/** A stopped thread lent to us, as it was. */
export interface ThreadState {
  /** As ptrace gave them at the stop. */
  registers: Uint8Array;
  /** With which the thread goes on from scratch: the interrupted call made again, a broken-off rseq section aborted. */
  resumable: Uint8Array;
  extended: Uint8Array;
  mask: bigint;
}

/** Read a stopped thread's state. */
export function readThreadState(tid: number): ThreadState {
  const addon = native();
  const registers = addon.getRegisters(tid);
  abortRestartableSequence(tid, registers);
  nameRestartedCall(registers, (address, target) => addon.readMemory(tid, address, target));
  hideStop(tid, registers);
  return {
    registers,
    resumable: rewindCall(registers),
    extended: readExtendedState(tid),
    mask: addon.getSignalMask(tid),
  };
}

/** A call that the kernel would end with EINTR for our stop alone is set up to be made again, at once and for good. */
function hideStop(tid: number, registers: Uint8Array): void {
  if (!endedOnlyByStop(registers)) return;
  registers.set(rewindCall(registers));
  native().setRegisters(tid, registers);
}

const NT_PRFPREG = 2;

/** XSAVE area, or the 512 FXSAVE bytes on a processor without XSAVE. */
function readExtendedState(tid: number): Uint8Array {
  try {
    return native().getRegset(tid, NT_X86_XSTATE);
  } catch {
    return native().getRegset(tid, NT_PRFPREG);
  }
}

/** A thread that lends itself, and how it was. */
export interface Lent {
  tid: number;
  state: ThreadState;
}

/**
 * One address space, prepared for injected calls. A thread that was entered stays so until it is left: a second visit
 * costs nothing. As many of its threads as there are places can be in at once.
 */
export class Injector {
  readonly #pid: number;
  readonly #areas: readonly MappedArea[];
  #places: number;
  #code = 0n;
  #scratch = 0n;
  /** Who is in, by place. */
  readonly #inside = new Map<number, Lent>();

  constructor(pid: number, areas: readonly MappedArea[], threads = 1) {
    this.#pid = pid;
    this.#areas = areas;
    this.#places = Math.min(threads, mostPlaces);
  }

  /**
   * Make ready what is not yet: code, and the scratch area, each by way of the stack of the thread beside it. That
   * thread is in afterwards.
   */
  static prepare(wanted: readonly { injector: Injector; lent: Lent }[]): void {
    const fresh = wanted.filter(
      ({ injector, lent }) => injector.#scratch === 0n && injector.#placeCode(lent.tid),
    );
    const results = Injector.#onStacks(
      fresh.map(({ injector, lent }) => ({
        injector,
        lent,
        call: [
          SYS.mmap,
          0,
          placeLength * BigInt(injector.#places),
          PROT.read | PROT.write,
          MAP.private | MAP.anonymous | MAP.noReserve,
          -1,
          0,
        ],
      })),
      ({ injector, lent }, result) => {
        if (result < 0n && result > -4096n) return false;
        injector.#scratch = result;
        native().poke(lent.tid, injector.#code + 24n, result | BigInt(injector.#places - 1));
        injector.#enterPlace(0, lent);
        return true;
      },
    );
    const failed = fresh.filter(({ injector }) => injector.#scratch === 0n);
    if (failed.length === 0) return;
    // Little address space may be left for it.
    const tight = failed.find(({ injector }) => injector.#places === 1);
    if (tight) throw tight.injector.#noRoom(Number(-results[fresh.indexOf(tight)]!));
    for (const { injector } of failed) injector.#places = 1;
    Injector.prepare(failed);
  }

  #noRoom(errno: number): PodError {
    const lock = errno === EAGAIN;
    return new PodError(
      'cannot-checkpoint',
      `${describeProcess(this.#pid)} may not map ${placeLength >> 10n} KiB more, which a dump needs for a moment${lock ? ': it locks all that it maps (mlockall)' : ''} (errno ${errno})`,
      lock
        ? 'raise its limit of locked memory (prlimit --memlock)'
        : 'raise its limits (prlimit --as --data)',
    );
  }

  /** Leave the address spaces as they were found; `lent` is a thread of each. */
  static finish(used: readonly { injector: Injector; lent: Lent }[]): void {
    for (const { injector, lent } of used)
      if (injector.#scratch !== 0n) native().poke(lent.tid, injector.#code + 24n, 0n);
    leave(
      used.flatMap(({ injector, lent }) =>
        [...injector.#inside.values()].filter(({ tid }) => tid !== lent.tid),
      ),
    );
    const results = Injector.#onStacks(
      used
        .filter(({ injector }) => injector.#scratch !== 0n)
        .map(({ injector, lent }) => ({
          injector,
          lent,
          call: [SYS.munmap, injector.#scratch, placeLength * BigInt(injector.#places)],
        })),
      () => false,
    );
    for (const { injector, lent } of used) {
      injector.#inside.clear();
      injector.#scratch = 0n;
      if (injector.#code !== 0n)
        for (let offset = 0n; offset < codeLength; offset += 8n)
          native().poke(lent.tid, injector.#code + offset, 0n);
      injector.#code = 0n;
    }
    const failed = results.findIndex((result) => result < 0n);
    if (failed >= 0) throw new RemoteError('munmap', Number(-results[failed]!));
  }

  /** As many threads can be in at once. */
  get places(): number {
    return this.#places;
  }

  /** Leave those that are in when these, at most `places`, could not all be in together with them. */
  makeRoom(wanted: readonly Lent[]): void {
    const inside = new Set([...this.#inside.values()].map(({ tid }) => tid));
    if (inside.size + wanted.filter(({ tid }) => !inside.has(tid)).length > this.#places) this.leave();
  }

  /** Where the thread makes calls until leave(); it is entered when it is not in yet. */
  enter(lent: Lent): CallSite {
    if (this.#scratch === 0n) Injector.prepare([{ injector: this, lent }]);
    for (const [place, { tid }] of this.#inside) if (tid === lent.tid) return this.#site(place);
    this.makeRoom([lent]);
    let place = 0;
    while (this.#inside.has(place)) place++;
    this.#enterPlace(place, lent);
    return this.#site(place);
  }

  /** The same with a Remote. */
  remote(lent: Lent): Remote {
    const site = this.enter(lent);
    return new Remote(lent.tid, this.#template(lent.state, site.stack), site);
  }

  /** Whoever is in is what it was. */
  leave(): void {
    const inside = [...this.#inside.values()];
    this.#inside.clear();
    leave(inside);
  }

  /** Address of the scratch area, which is not the session's; 0n when there is none. */
  get scratch(): { start: bigint; end: bigint } {
    const length = this.#scratch === 0n ? 0n : placeLength * BigInt(this.#places);
    return { start: this.#scratch, end: this.#scratch + length };
  }

  #enterPlace(place: number, lent: Lent): void {
    this.#enter(lent, this.#frameAt(place));
    this.#inside.set(place, lent);
  }

  #frameAt(place: number): bigint {
    return this.#scratch + BigInt(place) * placeLength + BigInt(headroom);
  }

  #site(place: number): CallSite {
    const frame = this.#frameAt(place);
    return {
      code: this.#code,
      stack: framePointer(frame),
      data: frame + BigInt(frameRoom),
      dataSize: dataRoom,
    };
  }

  /**
   * Write the code into the tail of the vdso, or find what a killed dumper left there. Whether there is no scratch area
   * yet.
   */
  #placeCode(tid: number): boolean {
    const addon = native();
    const vdso = this.#areas.find((area) => area.path === '[vdso]');
    if (!vdso)
      throw new PodError('cannot-checkpoint', `${describeProcess(this.#pid)} has no vdso to work from`);
    const tail = new Uint8Array(codeLength);
    const address = vdso.end - BigInt(codeLength);
    addon.readMemory(this.#pid, address, tail);
    const view = new DataView(tail.buffer);
    if (view.getBigUint64(16, true) === signature) {
      const word = view.getBigUint64(24, true);
      const scratch = word & ~0xfffn;
      const places = Number(word & 0xfffn) + 1;
      const end = scratch + placeLength * BigInt(places);
      const area = this.#areas.find((each) => each.start <= scratch && end <= each.end);
      this.#code = address;
      if (scratch !== 0n && area?.permissions === 'rw-p' && area.path === '') {
        this.#scratch = scratch;
        this.#places = places;
        return false;
      }
      addon.poke(tid, address + 24n, 0n);
      return true;
    }
    if (tail.some((byte) => byte !== 0)) {
      throw new PodError(
        'cannot-checkpoint',
        `the vdso of ${describeProcess(this.#pid)} has no room for two instructions`,
      );
    }
    const words = new DataView(code.buffer);
    addon.poke(tid, address, words.getBigUint64(0, true));
    addon.poke(tid, address + 8n, words.getBigUint64(8, true));
    addon.poke(tid, address + 16n, signature);
    this.#code = address;
    return true;
  }

  #template(state: ThreadState, stackPointer: bigint): Uint8Array {
    const registers = state.registers.slice();
    const words = registerWords(registers);
    words[REG.rip] = this.#code;
    words[REG.rsp] = stackPointer;
    // Direction flag and single step must not leak into the kernel's view of our call.
    words[REG.eflags] = 0x202n;
    return registers;
  }

  /** Write the frame, then point the task at sigreturn, then block its signals: in this order (see above). */
  #enter({ tid, state }: Lent, address: bigint): bigint {
    const addon = native();
    const frame = buildSignalFrame(state.resumable, state.extended, state.mask, address);
    addon.writeMemory(tid, address, frame.bytes);
    const words = registerWords(this.#template(state, frame.stackPointer));
    words[REG.rip] = this.#code + 2n;
    words[REG.orig_rax] = 0xffffffffffffffffn;
    addon.setRegisters(tid, new Uint8Array(words.buffer));
    const lifted = liftedRights(state.extended);
    if (lifted) addon.setRegset(tid, NT_X86_XSTATE, lifted);
    addon.setSignalMask(tid, allSignals);
    return frame.stackPointer;
  }

  /**
   * Where the kernel would put a signal frame: below the red zone of the thread's stack. A program may run on a stack
   * too small for one; then any private memory will do for the moment, since all of it comes back.
   */
  #frameRoom({ tid, state }: Lent): { address: bigint; below: Uint8Array } {
    const length = BigInt(state.extended.length + 1024);
    const tops = [
      registerWords(state.registers)[REG.rsp]! - 128n,
      ...this.#areas.filter(isPrivateMemory).map((area) => area.end),
    ];
    for (const top of tops) {
      const address = (top - length) & ~63n;
      const below = new Uint8Array(Number(top - address));
      try {
        native().readMemory(tid, address, below);
        return { address, below };
      } catch {
        // Not mapped that far down: the next place.
      }
    }
    throw new PodError('cannot-checkpoint', `${describeProcess(this.#pid)} has no memory to work from`);
  }

  /**
   * One call each, with the frame on the tasks' own stacks; what lay there comes back. A task whose `move` says, told
   * the result, that it has entered it elsewhere is not left.
   */
  static #onStacks<Job extends { injector: Injector; lent: Lent; call: readonly Word[] }>(
    jobs: readonly Job[],
    move: (job: Job, result: bigint) => boolean,
  ): bigint[] {
    const stacks: { lent: Lent; address: bigint; below: Uint8Array }[] = [];
    const moved = new Set<Lent>();
    const giveBack = (stack: (typeof stacks)[number]) =>
      native().writeMemory(stack.lent.tid, stack.address, stack.below);
    try {
      const remotes = jobs.map(({ injector, lent, call }) => {
        const stack = { lent, ...injector.#frameRoom(lent) };
        stacks.push(stack);
        const pointer = injector.#enter(lent, stack.address);
        const remote = new Remote(lent.tid, injector.#template(lent.state, pointer), {
          data: 0n,
          dataSize: 0,
        });
        return { remote, calls: [call] };
      });
      const results = runTogether(remotes).map(([result]) => result!);
      jobs.forEach((job, index) => {
        if (move(job, results[index]!)) moved.add(job.lent);
      });
      return results;
    } finally {
      leave(stacks.map(({ lent }) => lent).filter((lent) => !moved.has(lent)));
      for (const stack of stacks) giveBack(stack);
    }
  }
}

/** Back to the very stops we found, from where the kernel itself restarts interrupted calls. */
function leave(all: readonly Lent[]): void {
  const failures: unknown[] = [];
  /** One that has ended must not keep the others from being left. */
  const left = (each: readonly Lent[], body: (lent: Lent) => void) =>
    each.filter((lent) => {
      try {
        body(lent);
        return true;
      } catch (cause) {
        failures.push(cause);
        return false;
      }
    });
  const addon = native();
  const stopping = left(all, ({ tid }) => {
    addon.interrupt(tid);
    addon.resume(tid, PTRACE.cont, 0);
  });
  left(stopping, ({ tid, state }) => {
    for (;;) {
      const stop = addon.waitStop(tid, -1);
      if (!stop || stop.state === 'exited')
        throw new PodError('other', `${describeProcess(tid)} ended while it was dumped`);
      if (stop.event === PTRACE.eventStop) break;
      addon.resume(tid, PTRACE.cont, 0);
    }
    if (liftedRights(state.extended)) addon.setRegset(tid, NT_X86_XSTATE, state.extended);
    addon.setSignalMask(tid, state.mask);
    addon.setRegisters(tid, state.registers);
  });
  if (failures.length > 0) throw failures[0];
}

function isPrivateMemory(area: MappedArea): boolean {
  return (
    area.permissions === 'rw-p' &&
    (area.path === '' || area.path === '[heap]') &&
    area.end - area.start >= 1n << 16n
  );
}

/** Whether a thread's stack pointer leaves room for a frame; the best thread to start with lies on a large stack. */
export function stackRoom(state: ThreadState, areas: readonly MappedArea[]): bigint {
  const stackPointer = registerWords(state.registers)[REG.rsp]!;
  const area = areas.find(
    (each) => each.start <= stackPointer && stackPointer < each.end && each.permissions.startsWith('rw'),
  );
  if (!area) return 0n;
  // The main stack grows on touch.
  return area.path === '[stack]' ? stackPointer - area.start + (1n << 20n) : stackPointer - area.start;
}
