/**
 * A task that was stopped inside a system call, and how the call goes on.
 *
 * When a stop interrupts a blocking call, the kernel leaves -ERESTART… in rax and decides on the way back to user
 * space what becomes of it: run the call again, or (restart blocks) go on with the rest of a time-out it keeps in
 * the task. An image cannot keep a restart block, so the call is put back to where it can simply be run again;
 * a relative sleep goes on with its rest, which the kernel wrote where the program asked for it.
 *
 * epoll_wait, sigtimedwait and a few more are documented to return EINTR after a mere stop (signal(7)). A program
 * that was only looked at must not see that, so they too are run again when nothing was delivered.
 */
import { kernelRestart, REG, registerWords, SYS } from './abi.ts';

const EINTR = -4n;
/** Calls that end with EINTR after a stop even when no handler ran: signal(7), last section. */
const endedByStop = new Set<number>([
  SYS.epoll_wait,
  SYS.epoll_pwait,
  SYS.epoll_pwait2,
  SYS.semop,
  SYS.semtimedop,
  SYS.rt_sigtimedwait,
  SYS.io_getevents,
  SYS.io_pgetevents,
  SYS.msgrcv,
  SYS.msgsnd,
  SYS.pause,
]);

export interface InterruptedCall {
  number: number;
  restart: 'again' | 'rest';
}

/** The call that the stop interrupted, or undefined when registers can be used as they are. */
export function interruptedCall(registers: Uint8Array): InterruptedCall | undefined {
  const words = registerWords(registers);
  const number = Number(BigInt.asIntN(64, words[REG.orig_rax]!));
  if (number < 0) return undefined;
  const result = BigInt.asIntN(64, words[REG.rax]!);
  if (
    result === BigInt(kernelRestart.sys) ||
    result === BigInt(kernelRestart.noIntr) ||
    result === BigInt(kernelRestart.noHand)
  ) {
    return { number, restart: 'again' };
  }
  if (result === BigInt(kernelRestart.block)) return { number, restart: 'rest' };
  if (result === EINTR && endedByStop.has(number)) return { number, restart: 'again' };
  return undefined;
}

/**
 * A call with a restart block that was stopped before (an earlier dump, SIGSTOP, a debugger) has become
 * restart_syscall(2), in which only the kernel still knows what it was; made again anywhere else that one fails with
 * EINTR. Its arguments are all there; its number is in the code that made it, `mov $number, %eax; syscall`, as every
 * libc inlines it. From code of another form (syscall(3)) it can only be a futex wait, which its arguments show.
 * Puts the number back into orig_rax of `registers`; for the kernel that changes nothing. `readMemory` may throw.
 */
export function nameRestartedCall(
  registers: Uint8Array,
  readMemory: (address: bigint, target: Uint8Array) => void,
): void {
  const words = registerWords(registers);
  if (words[REG.orig_rax] !== BigInt(SYS.restart_syscall)) return;
  const code = new Uint8Array(7);
  try {
    readMemory(words[REG.rip]! - BigInt(code.length), code);
  } catch {
    code.fill(0);
  }
  const movEax = 0xb8;
  if (code[0] === movEax) {
    const number = new DataView(code.buffer).getUint32(1, true);
    if (withRestartBlock.has(number)) words[REG.orig_rax] = BigInt(number);
  } else if (looksLikeFutexWait(words)) {
    words[REG.orig_rax] = BigInt(SYS.futex);
  }
}

/** The calls for which the kernel keeps restart blocks. */
const withRestartBlock = new Set<number>([SYS.nanosleep, SYS.clock_nanosleep, SYS.poll, SYS.futex]);

/** futex(word, FUTEX_WAIT or FUTEX_WAIT_BITSET with any flags, value, time-out). */
function looksLikeFutexWait(words: BigUint64Array): boolean {
  const flags = 0x180n; // FUTEX_PRIVATE_FLAG, FUTEX_CLOCK_REALTIME
  const operation = words[REG.rsi]! & ~flags;
  const page = 4096n;
  return words[REG.rdi]! >= page && (operation === 0n || operation === 9n) && words[REG.r10]! >= page;
}

/** The call ended only because of our stop, which the kernel itself would not repair. */
export function endedOnlyByStop(registers: Uint8Array): boolean {
  const words = registerWords(registers);
  return BigInt.asIntN(64, words[REG.rax]!) === EINTR && interruptedCall(registers) !== undefined;
}

/**
 * Registers with which the task can be set going anywhere, without the kernel's help: the call is made again from
 * its instruction. A sleep that wrote its rest sleeps only that.
 */
export function rewindCall(registers: Uint8Array): Uint8Array {
  const copy = registers.slice();
  const words = registerWords(copy);
  const call = interruptedCall(registers);
  if (call) {
    words[REG.rip] = words[REG.rip]! - 2n;
    words[REG.rax] = words[REG.orig_rax]!;
    if (call.restart === 'rest') useRest(call.number, words);
  }
  words[REG.orig_rax] = 0xffffffffffffffffn;
  return copy;
}

/** The kernel writes the rest of an interrupted relative sleep to the caller's `rem`: sleep that. */
function useRest(number: number, words: BigUint64Array): void {
  if (number === SYS.nanosleep && words[REG.rsi] !== 0n) words[REG.rdi] = words[REG.rsi]!;
  if (number === SYS.clock_nanosleep && words[REG.r10] !== 0n) words[REG.rdx] = words[REG.r10]!;
}
