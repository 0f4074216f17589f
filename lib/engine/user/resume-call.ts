/**
 * A call that waited with a relative time-out goes on with the rest of it, where the image tells that (the module's do).
 *
 * What is left the kernel keeps in the task (a restart block), which nobody can write. But the task can be let make the
 * call once more, with the rest as its time-out, and be stopped in it at once: then the kernel keeps just that, and the
 * task gets the registers of before, as if it had been stopped there in the first place. Were it a new call with the rest
 * as its argument instead, the program would find another argument in its registers than it gave.
 *
 * All signals are blocked meanwhile, and nobody else runs who could wake it. A call that ends all the same (its time is
 * over, a file is ready) has its result, and will not be made again.
 */
import { native } from '../../../native/index.ts';
import { PodError } from '../../stream/error.ts';
import { kernelRestart, PTRACE, REG, registerWords, SYS } from './abi.ts';
import type { ThreadImage } from './image-records.ts';
import type { NewTask } from './new-task.ts';

const syscallInstruction = 0x050fn;
const none = 0xffffffffffffffffn;
/** The register of the time-out, and whether it points at a struct timespec; poll(2) has milliseconds. */
const timeouts = new Map<number, { register: number; points: boolean }>([
  [SYS.nanosleep, { register: REG.rdi, points: true }],
  [SYS.clock_nanosleep, { register: REG.rdx, points: true }],
  [SYS.poll, { register: REG.rdx, points: false }],
  [SYS.futex, { register: REG.r10, points: true }],
]);

/** Whether the image tells what is left of a time-out. */
export const tellsRest = ({ record }: ThreadImage): boolean => record.systemCall?.restNs !== undefined;

/** The registers to go on with, instead of those of the image; undefined when these are right. */
export function resumeCall(task: NewTask, { record }: ThreadImage): Uint8Array | undefined {
  const { number, restart, restNs } = record.systemCall ?? {};
  const timeout = timeouts.get(number ?? -1);
  if (restart !== 'rest' || restNs === undefined || !timeout) return undefined;
  // A filter of its own would see a call that it was not made for.
  if (record.seccomp) return undefined;
  const wanted = registerWords(record.registers.slice());
  if (!isCall(task, wanted[REG.rip]!, wanted[REG.rax]!, number!)) return undefined;
  const before = native().getRegisters(task.tid);
  const trial = record.registers.slice();
  registerWords(trial)[timeout.register] = timeout.points ? putTime(task, restNs) : milliseconds(restNs);
  native().setRegisters(task.tid, trial);
  enterAndStop(task);
  const after = registerWords(native().getRegisters(task.tid));
  const result = BigInt.asIntN(64, after[REG.rax]!);
  native().setRegisters(task.tid, before);
  // Not begun: as the image has it.
  if (result === BigInt(kernelRestart.sys) || result === BigInt(kernelRestart.noHand)) return undefined;
  const final = record.registers.slice();
  const words = registerWords(final);
  words[REG.rip] = words[REG.rip]! + 2n;
  words[REG.rax] = BigInt.asUintN(64, result);
  words[REG.orig_rax] = result === BigInt(kernelRestart.block) ? BigInt(number!) : none;
  return final;
}

function isCall(task: NewTask, at: bigint, rax: bigint, number: number): boolean {
  if (rax !== BigInt(number)) return false;
  const code = new Uint8Array(2);
  try {
    native().readMemory(task.tid, at, code);
  } catch {
    return false;
  }
  return BigInt(new DataView(code.buffer).getUint16(0, true)) === syscallInstruction;
}

/** A struct timespec at the call site, which is still there. */
function putTime({ tid, site }: NewTask, ns: bigint): bigint {
  const time = new BigUint64Array([ns / 1_000_000_000n, ns % 1_000_000_000n]);
  native().writeMemory(tid, site.data, new Uint8Array(time.buffer));
  return site.data;
}

const mostMilliseconds = 0x7fffffffn;

/** Never less than is left. */
function milliseconds(ns: bigint): bigint {
  const rounded = (ns + 999_999n) / 1_000_000n;
  return rounded < mostMilliseconds ? rounded : mostMilliseconds;
}

/** It is asked to stop while it stands before the call: so it comes into it, and no further. */
function enterAndStop({ tid, inner }: NewTask): void {
  const wait = () => {
    const stop = native().waitStop(tid, 5000);
    if (stop?.state !== 'stopped') throw new PodError('other', `thread ${inner} does not stop in its call`);
    return stop;
  };
  native().resume(tid, PTRACE.syscall, 0);
  wait();
  native().interrupt(tid);
  native().resume(tid, PTRACE.cont, 0);
  while (wait().event !== PTRACE.eventStop) native().resume(tid, PTRACE.cont, 0);
}
