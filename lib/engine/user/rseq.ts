/**
 * Restartable sequences (rseq(2)) of a stopped thread: the area it has registered, and the sequence it may be in.
 *
 * Since Linux 5.13 ptrace tells the area. Before, nobody does; but a second registration fails with an errno that
 * depends on the area it names: EINVAL for any other one, EBUSY for the very one, EPERM for that with another
 * signature. So the thread itself is asked, for each place near its thread pointer where a C library may have it.
 */
import { native, type Rseq } from '../../../native/index.ts';
import { PodError } from '../../stream/error.ts';
import { pageSize, REG, registerWords, SYS } from './abi.ts';
import { describeProcess } from './proc.ts';
import type { Asking, Remote, Word } from './remote.ts';

/** Of the only layout that kernels before 6.3 take; the area lies on a multiple of it. */
const areaLength = 32;
/** glibc's, librseq's and tcmalloc's on x86. */
const signature = 0x53053053;
const unregister = 1;

/** Where the area lies in a thread's local storage: glibc's in its thread descriptor, others' below it. */
const below = 4n * BigInt(pageSize);
const above = BigInt(pageSize);

const EPERM = 1n;
const EBUSY = 16n;
const EINVAL = 22n;
const ENOSYS = 38n;

/** From the thread pointer to the area found last: all threads of one C library have it at the same. */
let lastDistance: bigint | undefined;

/** What a stopped thread has registered; `remote` makes calls in it. */
export function* askRseq(tid: number, registers: Uint8Array, remote: Remote): Asking<Rseq | undefined> {
  const told = native().getRseq(tid);
  if (told !== null) return told;
  remote.reset();
  const room = remote.reserve(2 * areaLength);
  // A place that is nobody's: would the registration succeed, the kernel writes there.
  const own = (room + BigInt(areaLength - 1)) & ~BigInt(areaLength - 1);
  const register = (address: bigint): Word[] => [SYS.rseq, address, areaLength, 0, signature];
  const [result] = yield [register(own)];
  // EBUSY: a dumper was killed between these two calls.
  if (result === 0n || result === -EBUSY) {
    yield [[SYS.rseq, own, areaLength, unregister, signature]];
    return undefined;
  }
  if (result === -ENOSYS) return undefined;
  if (result === -EINVAL) {
    const pointer = registerWords(registers)[REG.fs_base]!;
    const all = candidates(tid, registers).map(({ address }) => address);
    const likely = all.filter((address) => address - pointer === lastDistance);
    for (const places of [likely, all.filter((address) => address > pointer), all]) {
      const results = yield places.map(register);
      const found = results.findIndex((each) => each === -EBUSY || each === -EPERM);
      if (found < 0) continue;
      if (results[found] === -EPERM) break;
      const address = places[found]!;
      lastDistance = address - pointer;
      return { address, length: areaLength, signature, flags: 0 };
    }
  }
  throw new PodError(
    'cannot-checkpoint',
    `${describeProcess(tid)} has restartable sequences (rseq) of its own, which Linux before 5.13 does not tell`,
    'run it on a newer kernel, or without them (tcmalloc: without per-CPU caches)',
  );
}

interface Candidate {
  address: bigint;
  /** Its pointer to the sequence that runs; 0n outside of one. */
  section: bigint;
}

/** Places near the thread pointer that look like an area: both processor numbers are the same. */
function candidates(tid: number, registers: Uint8Array): Candidate[] {
  const pointer = registerWords(registers)[REG.fs_base]!;
  if (pointer === 0n) return [];
  const found: Candidate[] = [];
  const page = new Uint8Array(pageSize);
  const view = new DataView(page.buffer);
  const mask = BigInt(pageSize - 1);
  for (let start = (pointer - below) & ~mask; start < pointer + above; start += BigInt(pageSize)) {
    try {
      native().readMemory(tid, start, page);
    } catch {
      continue;
    }
    for (let at = 0; at < pageSize; at += areaLength) {
      if (view.getUint32(at, true) !== view.getUint32(at + 4, true)) continue;
      found.push({ address: start + BigInt(at), section: view.getBigUint64(at + 8, true) });
    }
  }
  return found;
}

/**
 * A stop inside a restartable sequence ends it, as a preemption would: the kernel would find our own instruction
 * pointer outside of it and forget it, so its abort is done here, in the registers and in the thread.
 */
export function abortRestartableSequence(tid: number, registers: Uint8Array): void {
  const rseq = native().getRseq(tid);
  if (rseq === undefined) return;
  const areas = rseq ? [rseq] : candidates(tid, registers).filter(({ section }) => section !== 0n);
  for (const { address } of areas) if (abortIn(tid, registers, address, rseq === null)) return;
}

/** `guessed`: nobody told that this is the area, so the signature before the abort handler must say it. */
function abortIn(tid: number, registers: Uint8Array, area: bigint, guessed: boolean): boolean {
  const addon = native();
  const pointer = addon.peek(tid, area + 8n);
  if (pointer === 0n) return false;
  const section = new Uint8Array(32);
  const mark = new Uint8Array(4);
  const view = new DataView(section.buffer);
  try {
    addon.readMemory(tid, pointer, section);
    if (guessed) addon.readMemory(tid, view.getBigUint64(24, true) - 4n, mark);
  } catch {
    return false; // the kernel will send the SIGSEGV that such a pointer deserves
  }
  if (guessed && new DataView(mark.buffer).getUint32(0, true) !== signature) return false;
  const start = view.getBigUint64(8, true);
  const words = registerWords(registers);
  if (BigInt.asUintN(64, words[REG.rip]! - start) >= view.getBigUint64(16, true)) return false;
  words[REG.rip] = view.getBigUint64(24, true);
  addon.setRegisters(tid, registers);
  addon.poke(tid, area + 8n, 0n);
  return true;
}
