/**
 * What an address space is set to as a whole, for all that will be mapped in it: locking, merging, huge pages, the
 * refusal of new code; and its registrations for memory barriers, without which a runtime that uses them (a JVM, .NET)
 * gets EPERM from a call that it takes for granted.
 *
 * mlockall(MCL_FUTURE) nobody tells: it is seen in what is mapped now. Registrations are told from Linux 6.3 on; before,
 * a barrier is asked for, which does nothing but that, and fails without one. Of the global barriers that others send
 * nothing can be seen there, so the address space is registered for these: it costs it an interruption by who uses them.
 */
import type { Records } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import { MAP, PR, PROT, pageSize, SYS } from './abi.ts';
import { describeProcess, readAreas, readStatus } from './proc.ts';
import { type Asking, attempt, type Remote, type Word } from './remote.ts';

type Space = Records['mm'];
export type MemoryAttributes = Pick<
  Space,
  'thpDisable' | 'thpExceptAdvised' | 'lockFuture' | 'mergeAll' | 'refuseExecGain' | 'membarrier'
>;

const MEMBARRIER_GET_REGISTRATIONS = 1 << 9;
/** Commands of membarrier(2) and their registrations: global, private, with code, with restartable sequences. */
const global = { register: 1 << 2 };
const barriers = [
  { command: 1 << 3, register: 1 << 4 },
  { command: 1 << 5, register: 1 << 6 },
  { command: 1 << 7, register: 1 << 8 },
] as const;
const registrations = [global, ...barriers].map(({ register }) => register);

const MCL_FUTURE = 2;
const MCL_ONFAULT = 4;
const exceptAdvised = 2;

export function* askMemoryAttributes(remote: Remote, pid: number): Asking<MemoryAttributes> {
  yield* refuseTaggedAddresses(remote, pid);
  yield* refuseSegments(remote, pid);
  const [thp, merge, execGain] = yield [
    [SYS.prctl, PR.getThpDisable, 0, 0, 0, 0],
    [SYS.prctl, PR.getMemoryMerge, 0, 0, 0, 0],
    [SYS.prctl, PR.getMdwe, 0, 0, 0, 0],
  ];
  const membarrier = yield* askBarriers();
  const lockFuture = yield* askLock(remote, pid);
  return {
    ...(thp! > 0n ? { thpDisable: true } : {}),
    ...(thp! > 0n && (Number(thp) & exceptAdvised) !== 0 ? { thpExceptAdvised: true } : {}),
    ...(merge === 1n ? { mergeAll: true } : {}),
    ...(execGain! > 0n ? { refuseExecGain: Number(execGain) } : {}),
    ...(membarrier ? { membarrier } : {}),
    ...(lockFuture ? { lockFuture } : {}),
  };
}

function* askBarriers(): Asking<number> {
  const [told] = yield [[SYS.membarrier, MEMBARRIER_GET_REGISTRATIONS, 0, 0]];
  if (told! >= 0n) return Number(told) & registrations.reduce((all, bit) => all | bit, 0);
  const results = yield barriers.map(({ command }) => [SYS.membarrier, command, 0, 0]);
  const found = barriers.filter((_barrier, index) => results[index] === 0n);
  // Without the call (ENOSYS) there is nothing to register for.
  return results[0] === -38n ? 0 : found.reduce((all, { register }) => all | register, global.register);
}

/** A page mapped anew, in our own area: does it come locked, and present? */
function* askLock(remote: Remote, pid: number): Asking<MemoryAttributes['lockFuture']> {
  remote.reset();
  const present = remote.put(new Uint8Array(1));
  const size = BigInt(pageSize);
  const start = ((remote.reserve(2 * pageSize) + size - 1n) / size) * size;
  const flags = MAP.private | MAP.anonymous | MAP.noReserve | MAP.fixed;
  yield [
    [SYS.mmap, start, pageSize, PROT.read | PROT.write, flags, -1, 0],
    [SYS.mincore, start, pageSize, present],
  ];
  if (Number(readStatus(pid).get('VmLck')?.[0] ?? 0) === 0) return undefined;
  const found = readAreas(pid).find((area) => area.start <= start && start < area.end);
  if (!found?.flags.has('lo')) return undefined;
  return (remote.read(present, 1)[0]! & 1) !== 0 ? 'populate' : 'onFault';
}

const ARCH_GET_UNTAG_MASK = 0x4001;

/** Pointers with data in their upper bits (LAM): on another processor each would be a fault. */
function* refuseTaggedAddresses(remote: Remote, pid: number): Asking<void> {
  remote.reset();
  const mask = remote.put(new Uint8Array(8).fill(0xff));
  const [result] = yield [[SYS.arch_prctl, ARCH_GET_UNTAG_MASK, mask]];
  if (result !== 0n) return;
  const bytes = remote.read(mask, 8);
  if (bytes.every((byte) => byte === 0xff)) return;
  throw new PodError(
    'cannot-checkpoint',
    `${describeProcess(pid)}, memory: tagged addresses (LAM) are not handled`,
    'run the program without them',
  );
}

/** Segments of its own (modify_ldt), as emulators of other systems have. */
function* refuseSegments(remote: Remote, pid: number): Asking<void> {
  remote.reset();
  const size = 16;
  const [length] = yield [[SYS.modify_ldt, 0, remote.reserve(size), size]];
  if (length! <= 0n) return;
  throw new PodError(
    'cannot-checkpoint',
    `${describeProcess(pid)}, memory: segments of its own (modify_ldt) are not handled`,
    'run the program without them',
  );
}

/** When nothing is mapped any more that is not as it will be. `warn` is told what is not to be had. */
export function* setMemoryAttributes(record: Space, warn: (sentence: string) => void): Asking<void> {
  const calls: { call: Word[]; what: string }[] = [];
  const set = (what: string, ...call: Word[]) => calls.push({ what, call });
  if (!record.thpDisable) set('huge pages', SYS.prctl, PR.setThpDisable, 0, 0, 0, 0);
  else if (record.thpExceptAdvised)
    set(
      'huge pages where advised, which it gets nowhere now',
      SYS.prctl,
      PR.setThpDisable,
      1,
      exceptAdvised,
      0,
      0,
    );
  if (record.mergeAll) set('merging of equal pages', SYS.prctl, PR.setMemoryMerge, 1, 0, 0, 0);
  if (record.refuseExecGain)
    set('the refusal of new code (PR_SET_MDWE)', SYS.prctl, PR.setMdwe, record.refuseExecGain, 0, 0, 0);
  for (const register of registrations) {
    if (((record.membarrier ?? 0) & register) !== 0)
      set('a registration for memory barriers', SYS.membarrier, register, 0, 0);
  }
  if (record.lockFuture)
    set(
      'the lock on all that it will map (mlockall)',
      SYS.mlockall,
      MCL_FUTURE | (record.lockFuture === 'onFault' ? MCL_ONFAULT : 0),
    );
  yield* attempt(
    calls.map(({ call }) => call),
    (index, errno) =>
      warn(
        `an address space of the session (${record.exe.path}) can't have ${calls[index]!.what} here (errno ${errno})`,
      ),
  );
}
