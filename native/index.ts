/**
 * The addon: the system calls Node lacks, and nothing that decides. Errors are thrown with `code` (errno name)
 * and `syscall`. Loaded at first use.
 *
 * ptrace(2) belongs to a thread: all of this must be called from one and the same thread (the main one).
 */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { packageRoot } from './package-root.ts';

/** What waitStop() saw. */
export interface Stop {
  /** stopped: in a ptrace stop; exited / killed: gone, `signal` holds the wait status. */
  state: 'stopped' | 'exited';
  /** Stop signal (SIGTRAP | 0x80 at system calls), or the wait status. */
  signal: number;
  /** PTRACE_EVENT_*, 0 for none. */
  event: number;
}

export interface Rseq {
  address: bigint;
  length: number;
  signature: number;
  flags: number;
}

export interface ReceivedMessage {
  data: Uint8Array;
  /** msg_name. */
  address: Uint8Array;
  /** Raw control messages (cmsghdr…). */
  control: Uint8Array;
  /** msg_flags. */
  flags: number;
}

export interface Native {
  /** Any system call of this process; Uint8Arrays are passed as pointers. Throws on -1..-4095. x86_64 numbers. */
  syscall(number: number, ...args: (number | bigint | Uint8Array | null)[]): bigint;

  // ptrace(2)
  seize(tid: number, options: number): void;
  interrupt(tid: number): void;
  /** PTRACE_CONT (`how` = 7), PTRACE_SYSCALL (24), PTRACE_DETACH (17), PTRACE_LISTEN (0x4208). */
  resume(tid: number, how: number, signal: number): void;
  /** wait4(tid, __WALL); undefined when nothing happened in time (ms; -1 waits for ever, 0 looks). */
  waitStop(tid: number, timeout: number): Stop | undefined;
  /** struct user_regs_struct: 27 u64, 216 bytes. */
  getRegisters(tid: number): Uint8Array;
  setRegisters(tid: number, registers: Uint8Array): void;
  /** PTRACE_GETREGSET / SETREGSET; type 0x202 is NT_X86_XSTATE. */
  getRegset(tid: number, type: number): Uint8Array;
  setRegset(tid: number, type: number, bytes: Uint8Array): void;
  getSignalMask(tid: number): bigint;
  setSignalMask(tid: number, mask: bigint): void;
  /** Pending signals, siginfo_t of 128 bytes each, of the thread or shared by its process. */
  peekSignals(tid: number, shared: boolean): Uint8Array[];
  getEventMessage(tid: number): bigint;
  /** PTRACE_GETSIGINFO of the current stop. */
  getSiginfo(tid: number): Uint8Array;
  /** PTRACE_GET_RSEQ_CONFIGURATION; undefined when none is registered, null when the kernel (before 5.13) can't tell. */
  getRseq(tid: number): Rseq | undefined | null;
  poke(tid: number, address: bigint, value: bigint): void;
  peek(tid: number, address: bigint): bigint;

  /**
   * Run system calls in stopped tasks, in all of them at once. `jobs` holds 4 u64 a task: tid, number of calls, loop,
   * table. `registers` (216 bytes a task) is the template: its rip must point at a `syscall` instruction, its rsp wherever
   * is safe. `calls` holds 7 u64 a call (number, six arguments), task after task; results (may be negative errno) come
   * back in that order. A clone in the list reports its new host tid in `children`. Throws ESRCH when a task dies.
   *
   * With `room` 0 each call is two stops, and the tasks are left in the last syscall-exit-stop; the caller restores their
   * registers. Else each runs the loop that lies at `loop` (call-site.ts) over a table with room for `room` calls, and is
   * left in the delivery of a SIGSTOP of its own, which resuming it takes away.
   */
  remoteCalls(
    jobs: BigUint64Array,
    registers: Uint8Array,
    calls: BigUint64Array,
    room: number,
  ): { results: BigInt64Array; children: number[] };

  /** Where PKRU (pkeys(7)) lies in what getRegset(…, 0x202) gives; 0 where processor or kernel have no keys. */
  protectionKeyState(): number;

  // memory of another process
  /** process_vm_readv of one range, all of it (throws EFAULT otherwise); falls back to /proc/PID/mem for PROT_NONE. */
  readMemory(pid: number, address: bigint, target: Uint8Array): void;
  /** The same for whole pages, which the process goes on sharing with whom it shares them since a fork. */
  readPages(pid: number, pagemap: number, address: bigint, target: Uint8Array): void;
  writeMemory(pid: number, address: bigint, source: Uint8Array): void;
  /**
   * Page ranges worth saving in [start, end): present or swapped, and not the zero page; with `privateOnly`
   * not page-cache pages either. Pairs of start, end addresses. PAGEMAP_SCAN, or /proc/PID/pagemap on kernels
   * before 6.7. `pagemap` is an open descriptor of /proc/PID/pagemap.
   */
  scanPages(pagemap: number, start: bigint, end: bigint, privateOnly: boolean): BigUint64Array;
  /** Guard regions (MADV_GUARD_INSTALL) in [start, end), pairs of addresses; none where the kernel does not tell. */
  scanGuards(pagemap: number, start: bigint, end: bigint): BigUint64Array;
  /**
   * Of [start, end): private pages that two stopped processes do not share since a fork. Told by page frames, or,
   * where these are not to be known, by contents. `pagemap`s are open descriptors of /proc/PID/pagemap.
   */
  differingPages(
    pid: number,
    pagemap: number,
    otherPid: number,
    otherPagemap: number,
    start: bigint,
    end: bigint,
  ): BigUint64Array;
  /** Runs of pages that are not all zero: pairs of first page, page behind. */
  nonZeroRuns(bytes: Uint8Array, pageSize: number): Uint32Array;

  // descriptors
  /** recvmsg(2) on a local descriptor. undefined on EAGAIN. */
  receiveMessage(fd: number, maxData: number, flags: number): ReceivedMessage | undefined;
  /** Whether an eventfd of a stopped session is a semaphore, found out by a read that is made good at once. */
  isSemaphore(fd: number, count: bigint): boolean;
}

let loaded: Native | undefined;

/** The addon. */
export function native(): Native {
  loaded ??= createRequire(import.meta.url)(join(packageRoot(), 'build/Release/podstream.node')) as Native;
  return loaded;
}

/** Path of a static program built beside the addon: `pod-init`. */
export function nativeProgram(name: 'pod-init'): string {
  return join(packageRoot(), 'build/Release', name);
}
