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
 */
import { native } from '../../../native/index.ts';
import { PodError } from '../../stream/error.ts';
import { allSignals, MAP, NT_X86_XSTATE, PROT, PTRACE, REG, registerWords, SYS } from './abi.ts';
import { endedOnlyByStop, nameRestartedCall, rewindCall } from './interrupted-call.ts';
import { liftedRights } from './objects/protection-keys.ts';
import { describeProcess, type MappedArea } from './proc.ts';
import { type CallSite, Remote } from './remote.ts';
import { abortRestartableSequence } from './rseq.ts';
import { buildSignalFrame, maxSignalFrame } from './signal-frame.ts';

const code = Uint8Array.of(0x0f, 0x05, 0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05, 0x0f, 0x0b, 0, 0, 0, 0, 0);
/** Code, a signature, and the address of the scratch area: what a later dumper looks for when this one was killed. */
const signature = 0x312d6d6165727473n;
const codeLength = 32;

/** Room below the frame for a signal handler, should the dumper die while signals are open. */
const headroom = 128 << 10;
const frameRoom = maxSignalFrame;
const dataRoom = 112 << 10;
const EAGAIN = 11;
const scratchLength = BigInt(headroom + frameRoom + dataRoom);

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

/** One address space, prepared for injected calls. */
export class Injector {
  readonly #pid: number;
  readonly #areas: readonly MappedArea[];
  #code = 0n;
  #scratch = 0n;

  constructor(pid: number, areas: readonly MappedArea[]) {
    this.#pid = pid;
    this.#areas = areas;
  }

  /** Run `body` with a Remote in the stopped thread; afterwards the thread is exactly as it was. */
  within<Result>(tid: number, state: ThreadState, body: (remote: Remote) => Result): Result {
    const { site, leave } = this.borrow(tid, state);
    const remote = new Remote(tid, this.#template(state, site.stack), site);
    try {
      return body(remote);
    } finally {
      leave();
    }
  }

  /** The same for longer: where calls can be made until leave() is called. */
  borrow(tid: number, state: ThreadState): { site: CallSite; leave: () => void } {
    this.prepare(tid, state);
    const frame = this.#scratch + BigInt(headroom);
    const stack = this.#enter(tid, state, frame);
    return {
      site: { code: this.#code, stack, data: frame + BigInt(frameRoom), dataSize: dataRoom },
      leave: () => this.#leave(tid, state),
    };
  }

  /** Take the scratch area and the code away again, through any stopped thread of the process. */
  finish(tid: number, state: ThreadState): void {
    if (this.#code === 0n) return;
    const addon = native();
    if (this.#scratch !== 0n) {
      addon.poke(tid, this.#code + 24n, 0n);
      this.#onStack(tid, state, (remote) => remote.call('munmap', SYS.munmap, this.#scratch, scratchLength));
      this.#scratch = 0n;
    }
    for (let offset = 0n; offset < codeLength; offset += 8n) addon.poke(tid, this.#code + offset, 0n);
    this.#code = 0n;
  }

  /** Address of the scratch area, which is not the session's; 0n when there is none. */
  get scratch(): { start: bigint; end: bigint } {
    return { start: this.#scratch, end: this.#scratch === 0n ? 0n : this.#scratch + scratchLength };
  }

  /** The code and the scratch area, when they are not there yet: by way of this thread's stack. */
  prepare(tid: number, state: ThreadState): void {
    if (this.#scratch !== 0n) return;
    this.#placeCode(tid);
    if (this.#scratch !== 0n) return;
    this.#onStack(tid, state, (remote) => {
      const flags = MAP.private | MAP.anonymous | MAP.noReserve;
      const [mapped] = remote.run([[SYS.mmap, 0, scratchLength, PROT.read | PROT.write, flags, -1, 0]]);
      if (mapped! < 0n) throw this.#noRoom(Number(-mapped!));
      this.#scratch = mapped!;
    });
    native().poke(tid, this.#code + 24n, this.#scratch);
  }

  #noRoom(errno: number): PodError {
    const lock = errno === EAGAIN;
    return new PodError(
      'cannot-checkpoint',
      `${describeProcess(this.#pid)} may not map ${scratchLength >> 10n} KiB more, which a dump needs for a moment${lock ? ': it locks all that it maps (mlockall)' : ''} (errno ${errno})`,
      lock
        ? 'raise its limit of locked memory (prlimit --memlock)'
        : 'raise its limits (prlimit --as --data)',
    );
  }

  /** Write the code into the tail of the vdso, or find what a killed dumper left there. */
  #placeCode(tid: number): void {
    const addon = native();
    const vdso = this.#areas.find((area) => area.path === '[vdso]');
    if (!vdso)
      throw new PodError('cannot-checkpoint', `${describeProcess(this.#pid)} has no vdso to work from`);
    const bytes = new Uint8Array(Number(vdso.end - vdso.start));
    addon.readMemory(this.#pid, vdso.start, bytes);
    const view = new DataView(bytes.buffer);
    const at = bytes.length - codeLength;
    const address = vdso.start + BigInt(at);
    if (view.getBigUint64(at + 16, true) === signature) {
      const scratch = view.getBigUint64(at + 24, true);
      const area = this.#areas.find((each) => each.start <= scratch && scratch + scratchLength <= each.end);
      this.#code = address;
      if (scratch !== 0n && area?.permissions === 'rw-p' && area.path === '') this.#scratch = scratch;
      else addon.poke(tid, address + 24n, 0n);
      return;
    }
    if (bytes.subarray(at).some((byte) => byte !== 0)) {
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
  #enter(tid: number, state: ThreadState, address: bigint): bigint {
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

  /** Back to the very stop we found, from where the kernel itself restarts an interrupted call. */
  #leave(tid: number, state: ThreadState): void {
    const addon = native();
    addon.interrupt(tid);
    addon.resume(tid, PTRACE.cont, 0);
    for (;;) {
      const stop = addon.waitStop(tid, -1);
      if (!stop || stop.state === 'exited')
        throw new PodError('other', `${describeProcess(this.#pid)} ended while it was dumped`);
      if (stop.event === PTRACE.eventStop) break;
      addon.resume(tid, PTRACE.cont, 0);
    }
    if (liftedRights(state.extended)) addon.setRegset(tid, NT_X86_XSTATE, state.extended);
    addon.setSignalMask(tid, state.mask);
    addon.setRegisters(tid, state.registers);
  }

  /**
   * Where the kernel would put a signal frame: below the red zone of the thread's stack. A program may run on a stack
   * too small for one; then any private memory will do for the moment, since all of it comes back.
   */
  #frameRoom(tid: number, state: ThreadState): { address: bigint; below: Uint8Array } {
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

  /** A call with the frame on the task's own stack; what lay there comes back. */
  #onStack(tid: number, state: ThreadState, body: (remote: Remote) => void): void {
    const addon = native();
    const { address, below } = this.#frameRoom(tid, state);
    const pointer = this.#enter(tid, state, address);
    try {
      body(new Remote(tid, this.#template(state, pointer), { data: 0n, dataSize: 0 }));
    } finally {
      this.#leave(tid, state);
      addon.writeMemory(tid, address, below);
    }
  }
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
