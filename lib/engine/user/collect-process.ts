/** Processes and threads: what /proc tells, what ptrace tells, and what only the task itself can be asked. */
import { readFileSync, readlinkSync } from 'node:fs';
import { native, type Rseq } from '../../../native/index.ts';
import type { Records } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import { PR, REG, registerWords, SYS } from './abi.ts';
import { type AskedMemory, askMemory } from './collect-memory.ts';
import { interruptedCall } from './interrupted-call.ts';
import { readRights } from './objects/protection-keys.ts';
import type { FilterCollector } from './objects/seccomp.ts';
import { describeProcess, inner, readLimits, readStat, readStatus, type Status, statField } from './proc.ts';
import { askProcessTime, CLOCK_THREAD, readTime, threadTime, timeLength } from './processor-time.ts';
import type { Asking, Remote } from './remote.ts';
import { askRseq } from './rseq.ts';
import { readAutogroup, readScheduling } from './scheduling.ts';
import type { SessionProcess, SessionThread, SessionView } from './session-view.ts';
import { askThreadAttributes, type ThreadAttributes } from './thread-attributes.ts';
import { askTimers } from './timers.ts';

type Process = Records['process'];
type Thread = Records['thread'];
type Credentials = Thread['credentials'];

export interface AskedProcess {
  memory: AskedMemory;
  handlers: Records['handlers']['actions'];
  process: Pick<Process, 'itimers' | 'timers' | 'childSubreaper' | 'processorStates' | 'processorTime'>;
}

const longSize = 8;
const kernelSigaction = 32;
const ARCH_GET_XCOMP_PERM = 0x1022;

/** Signals in a hexadecimal mask of /proc/PID/status. */
function signalsOf(status: Status, ...keys: string[]): number[] {
  const mask = keys.reduce((sum, key) => sum | BigInt(`0x${status.get(key)?.[0] ?? '0'}`), 0n);
  return Array.from({ length: 64 }, (_none, index) => index + 1).filter(
    (signal) => (mask >> BigInt(signal - 1)) & 1n,
  );
}

export interface Asked {
  thread: AskedThread;
  /** Of a process's first thread. */
  process?: AskedProcess;
}

/** Everything that only a thread can tell; its first also tells what belongs to the process as a whole. */
export function* askThread(remote: Remote, process: SessionProcess, thread: SessionThread): Asking<Asked> {
  const own = yield* askOwn(remote, process, thread);
  if (thread !== process.threads[0]) return { thread: own };
  return {
    thread: own,
    process: {
      memory: yield* askMemory(remote, process.pid, own.fields),
      handlers: yield* askHandlers(remote, own.status),
      process: {
        ...(yield* askTimers(remote, process)),
        ...(yield* askSubreaper(remote)),
        ...(yield* askProcessorStates(remote)),
        processorTime: yield* askProcessTime(remote),
      },
    },
  };
}

const SIGCHLD = 17;

function* askHandlers(remote: Remote, status: Status): Asking<Records['handlers']['actions']> {
  // SIGCHLD has flags that count (SA_NOCLDWAIT, SA_NOCLDSTOP) though nobody handles or ignores it.
  const signals = [...new Set([...signalsOf(status, 'SigCgt', 'SigIgn'), SIGCHLD])];
  remote.reset();
  const address = remote.reserve(kernelSigaction * 64);
  yield signals.map((signal, index) => [
    SYS.rt_sigaction,
    signal,
    0,
    address + BigInt(index * kernelSigaction),
    longSize,
  ]);
  const bytes = remote.read(address, kernelSigaction * 64);
  const view = new DataView(bytes.buffer);
  return signals.map((signal, index) => {
    const word = (place: number) => view.getBigUint64(index * kernelSigaction + 8 * place, true);
    return { signal, handler: word(0), flags: word(1), restorer: word(2), mask: word(3) };
  });
}

function* askSubreaper(remote: Remote): Asking<{ childSubreaper?: boolean }> {
  remote.reset();
  const address = remote.reserve(8);
  yield [[SYS.prctl, PR.getChildSubreaper, address, 0, 0, 0]];
  return new DataView(remote.read(address, 8).buffer).getInt32(0, true) === 1 ? { childSubreaper: true } : {};
}

/** Components of the extended state that a process must ask for before it may use them (AMX). */
const onDemand = 1n << 18n;

function* askProcessorStates(remote: Remote): Asking<{ processorStates?: bigint }> {
  remote.reset();
  const address = remote.put(new Uint8Array(8));
  const [result] = yield [[SYS.arch_prctl, ARCH_GET_XCOMP_PERM, address]];
  if (result !== 0n) return {};
  const allowed = new DataView(remote.read(address, 8).slice().buffer).getBigUint64(0, true) & onDemand;
  return allowed === 0n ? {} : { processorStates: allowed };
}

const readNumber = (path: string, radix = 10) => Number.parseInt(readFileSync(path, 'utf8'), radix);

/** The process's record; ids name what was collected before. */
export function processRecord(
  process: SessionProcess,
  ids: Pick<Process, 'mm' | 'files' | 'fs' | 'handlers'>,
  asked: AskedProcess,
): Process {
  const { pid } = process;
  const pending = native().peekSignals(process.threads[0]!.tid, true);
  const autogroupNice = readAutogroup(pid);
  return {
    pid: process.innerPid,
    ...ids,
    limits: readLimits(pid),
    personality: readNumber(`/proc/${pid}/personality`, 16),
    ...(pending.length > 0 ? { pending } : {}),
    ...asked.process,
    oomScoreAdjust: readNumber(`/proc/${pid}/oom_score_adj`),
    coredumpFilter: readNumber(`/proc/${pid}/coredump_filter`, 16),
    ...(autogroupNice === undefined ? {} : { autogroupNice }),
  };
}

/** A thread's record and its extended registers. */
export function threadRecord(
  process: SessionProcess,
  thread: SessionThread,
  asked: AskedThread,
  filters: FilterCollector,
): { meta: Thread; data: Uint8Array } {
  const { status, fields } = asked;
  const pending = native().peekSignals(thread.tid, false);
  const robustList = readRobustList(thread.tid);
  const call = interruptedCall(thread.state.registers);
  const pkru = readRights(thread.state.extended);
  const meta: Thread = {
    pid: process.innerPid,
    tid: thread.innerTid,
    ...thread.own,
    ...filters.of(process.pid, thread.tid, status),
    comm: readFileSync(`/proc/${process.pid}/task/${thread.tid}/comm`, 'utf8').replace(/\n$/, ''),
    registers: thread.state.resumable,
    signalMask: thread.state.mask,
    credentials: { ...readCredentials(status), securebits: asked.securebits },
    scheduling: readScheduling(thread.tid, Number(statField(fields, 19)), asked.timerSlackNs),
    ...(pending.length > 0 ? { pending } : {}),
    ...(asked.alternateStack ? { alternateStack: asked.alternateStack } : {}),
    ...(robustList ? { robustList } : {}),
    ...(asked.clearChildTid === 0n ? {} : { clearChildTid: asked.clearChildTid }),
    ...(asked.rseq ? { rseq: asked.rseq } : {}),
    ...(asked.parentDeathSignal === 0 ? {} : { parentDeathSignal: asked.parentDeathSignal }),
    ...asked.attributes,
    processorTime: threadTime(asked.fields, asked.runNs),
    ...(call ? { systemCall: call } : {}),
    ...(pkru === undefined ? {} : { pkru }),
  };
  return { meta, data: thread.state.extended };
}

/** Before it is asked anything. */
export function refuseThread(process: SessionProcess, thread: SessionThread): void {
  const words = registerWords(thread.state.registers);
  if (words[REG.cs] !== 0x33n)
    throw new PodError(
      'cannot-checkpoint',
      `${describeProcess(process.pid)} runs 32-bit code, which this engine does not handle`,
    );
}

export interface AskedThread {
  alternateStack: Thread['alternateStack'];
  clearChildTid: bigint;
  parentDeathSignal: number;
  securebits: number;
  timerSlackNs: bigint;
  /** What its clock of processor time says. */
  runNs: bigint;
  rseq: Rseq | undefined;
  attributes: ThreadAttributes;
  /** Of /proc, when all of the session was stopped: another thread may have given this one its filters (TSYNC). */
  status: Status;
  comm: string;
  fields: readonly string[];
}

const SS_DISABLE = 2;

function* askOwn(
  remote: Remote,
  process: SessionProcess,
  { tid: host, state }: SessionThread,
): Asking<AskedThread> {
  const status = readStatus(process.pid, host);
  const { comm, fields } = readStat(process.pid, host);
  remote.reset();
  const stack = remote.reserve(24);
  const tid = remote.reserve(8);
  const death = remote.reserve(8);
  const clock = remote.reserve(timeLength);
  const [, , , securebits, slack] = yield [
    [SYS.sigaltstack, 0, stack],
    [SYS.prctl, PR.getTidAddress, tid, 0, 0, 0],
    [SYS.prctl, PR.getPdeathsig, death, 0, 0, 0],
    [SYS.prctl, PR.getSecurebits, 0, 0, 0, 0],
    [SYS.prctl, PR.getTimerslack, 0, 0, 0, 0],
    [SYS.clock_gettime, CLOCK_THREAD, clock],
  ];
  const view = new DataView(remote.read(stack, Number(clock - stack) + timeLength).buffer);
  const flags = view.getUint32(8, true);
  return {
    // Whether the thread is on it shows in its stack pointer, not here: we asked from elsewhere.
    alternateStack:
      flags & SS_DISABLE
        ? undefined
        : {
            address: view.getBigUint64(0, true),
            size: view.getBigUint64(16, true),
            flags: (flags & ~1) >>> 0,
          },
    clearChildTid: view.getBigUint64(Number(tid - stack), true),
    parentDeathSignal: view.getInt32(Number(death - stack), true),
    securebits: Number(securebits),
    timerSlackNs: slack!,
    runNs: readTime(view, Number(clock - stack)),
    attributes: yield* askThreadAttributes(remote, status, Number(statField(fields, 9))),
    rseq: yield* askRseq(host, state.registers, remote),
    status,
    comm,
    fields,
  };
}

function readRobustList(tid: number): Thread['robustList'] {
  const pair = new BigUint64Array(2);
  const bytes = new Uint8Array(pair.buffer);
  native().syscall(SYS.get_robust_list, tid, bytes.subarray(0, 8), bytes.subarray(8));
  return pair[0] === 0n ? undefined : { head: pair[0]!, length: pair[1]! };
}

function readCredentials(status: Status): Omit<Credentials, 'securebits'> {
  const numbers = (key: string) => (status.get(key) ?? []).filter((word) => word !== '').map(Number);
  const set = (key: string) => BigInt(`0x${status.get(key)?.[0] ?? '0'}`);
  return {
    uids: numbers('Uid'),
    gids: numbers('Gid'),
    groups: numbers('Groups'),
    inheritable: set('CapInh'),
    permitted: set('CapPrm'),
    effective: set('CapEff'),
    bounding: set('CapBnd'),
    ambient: set('CapAmb'),
    noNewPrivs: status.get('NoNewPrivs')?.[0] === '1',
  };
}

/** Root, working directory, umask of a process, or of a thread. */
export function fsRecord(id: number, pid: number, status: Status): Records['fs'] {
  const cwd = readlinkSync(`/proc/${pid}/cwd`);
  if (cwd.endsWith(' (deleted)')) {
    throw new PodError(
      'cannot-checkpoint',
      `the working directory of ${describeProcess(pid)} was removed (${cwd})`,
      'let it change to another directory first',
    );
  }
  return {
    id,
    cwd,
    root: readlinkSync(`/proc/${pid}/root`),
    umask: Number.parseInt(status.get('Umask')?.[0] ?? '022', 8),
  };
}

const P_PID = 1;
const WNOHANG = 1;
const WSTOPPED = 2;
const WEXITED = 4;
const WALL = 0x40000000;
const WNOWAIT = 0x1000000;

/**
 * What the parent's waitid(2) says of a child, without taking it: siginfo_t, si_pid 0 when there is nothing to
 * report. undefined when the parent is outside, or dead itself.
 */
function lookAsParent(view: SessionView, process: SessionProcess, event: number): DataView | undefined {
  const parent = view.process(process.parent);
  if (!parent || parent.zombie) return undefined;
  return view.within(process.parent, (remote) => {
    remote.reset();
    const info = remote.put(new Uint8Array(128));
    remote.run([[SYS.waitid, P_PID, process.innerPid, info, event | WNOHANG | WNOWAIT | WALL, 0]]);
    return new DataView(remote.read(info, 128).buffer);
  });
}

const siPid = 16;

/** Whether the parent's waitpid(2) would still report the stop. A parent outside is taken to have been told. */
function isUncollected(view: SessionView, process: SessionProcess): boolean {
  return lookAsParent(view, process, WSTOPPED)?.getInt32(siPid, true) === process.innerPid;
}

const CLD_EXITED = 1;
const CLD_DUMPED = 3;

/** Wait status of a zombie. /proc shows it to us as 0 when the process was not dumpable and we are not root. */
function zombieStatus(view: SessionView, process: SessionProcess, shown: number): number {
  const info = lookAsParent(view, process, WEXITED);
  if (info?.getInt32(siPid, true) !== process.innerPid) return shown;
  const code = info.getInt32(8, true);
  const value = info.getInt32(24, true);
  if (code === CLD_EXITED) return (value & 0xff) << 8;
  return value | (code === CLD_DUMPED ? 0x80 : 0);
}

/**
 * A line of the tree. `outside`: whether a group or session id belongs to a process that is not of the session; `asked`:
 * what its first thread has told.
 */
export function treeEntry(
  view: SessionView,
  process: SessionProcess,
  outside: (id: number) => boolean,
  asked: Pick<AskedThread, 'comm' | 'status' | 'fields'> | undefined,
): Records['tree']['processes'][number] {
  const { comm, fields } = asked ?? readStat(process.pid);
  const status = asked?.status ?? readStatus(process.pid);
  const keep = (id: number) => (outside(id) ? 0 : id);
  const stopSignal = process.threads[0]?.stopSignal ?? 0;
  return {
    pid: process.innerPid,
    ppid: view.innerPid(process.parent),
    pgid: keep(inner(status, 'NSpgid')),
    sid: keep(inner(status, 'NSsid')),
    state: process.zombie ? 'zombie' : stopSignal ? 'stopped' : 'alive',
    comm: comm.slice(0, 16),
    exitSignal: Number(statField(fields, 38)),
    ...(process.zombie ? { status: zombieStatus(view, process, Number(statField(fields, 52))) } : {}),
    ...(stopSignal ? { stopSignal } : {}),
    ...(stopSignal && isUncollected(view, process) ? { stopUncollected: true } : {}),
  };
}
