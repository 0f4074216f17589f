/**
 * What else a thread may have set for itself by prctl(2) and its kin, beside its credentials and its scheduling. Most
 * of it is told by /proc, or impossible on this processor, and then the thread is not asked: there may be thousands.
 */
import { native } from '../../../native/index.ts';
import type { Records } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import { PR, SYS } from './abi.ts';
import type { FrozenProcess } from './freeze.ts';
import { cpuFlags } from './preflight.ts';
import { describeProcess, type Status } from './proc.ts';
import { type Asking, attempt, type Remote, type Word } from './remote.ts';

type Thread = Records['thread'];
export type ThreadAttributes = Pick<
  Thread,
  'machineCheckKill' | 'ioFlusher' | 'speculation' | 'noTimeStampCounter' | 'noCpuid' | 'memoryPolicy'
>;

/** Flags in /proc/PID/stat: PF_MCE_PROCESS; PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE. */
const machineCheckFlag = 0x80;
const flusherFlags = 0x180000;

const PR_TSC_SIGSEGV = 2;
const PR_MCE_KILL_SET = 1;
const PR_MCE_KILL_DEFAULT = 2;
const ARCH_GET_CPUID = 0x1011;
const ARCH_SET_CPUID = 0x1012;
/** PR_SPEC_: may be set by prctl; DISABLE, FORCE_DISABLE, DISABLE_NOEXEC. */
const SPEC_PRCTL = 1;
const specDisabled = 4 | 8 | 16;
/** PR_SPEC_STORE_BYPASS, INDIRECT_BRANCH, L1D_FLUSH. */
const features = [0, 1, 2];
const L1D_FLUSH = 2;
const L1dEnable = 2;
/** Nodes that a mask may name. */
const mostNodes = 1024;

export function* askThreadAttributes(
  remote: Remote,
  status: Status,
  flags: number,
): Asking<ThreadAttributes> {
  remote.reset();
  const counter = remote.put(new Uint8Array(8));
  const mode = remote.put(new Uint8Array(8));
  const nodes = remote.put(new Uint8Array(mostNodes / 8));
  const asked = askedSpeculation(status);
  const calls: Word[][] = [
    [SYS.prctl, PR.getTsc, counter, 0, 0, 0],
    [SYS.get_mempolicy, mode, nodes, mostNodes, 0, 0],
    ...asked.map((feature) => [SYS.prctl, PR.getSpeculation, feature, 0, 0, 0]),
  ];
  const results = [...(yield calls)].map(Number);
  const word = (address: bigint) => new DataView(remote.read(address, 4).slice().buffer).getInt32(0, true);
  const speculation = asked.flatMap((feature, index) => {
    const setting = results[2 + index]!;
    const chosen = feature === L1D_FLUSH ? setting & L1dEnable : setting & specDisabled;
    return setting > 0 && (setting & SPEC_PRCTL) !== 0 && chosen !== 0 ? [{ feature, setting: chosen }] : [];
  });
  const policy = results[1] === 0 ? word(mode) : 0;
  return {
    ...(yield* askRare(flags)),
    ...(speculation.length > 0 ? { speculation } : {}),
    ...(word(counter) === PR_TSC_SIGSEGV ? { noTimeStampCounter: true } : {}),
    ...(policy === 0 ? {} : { memoryPolicy: { mode: policy, nodes: remote.read(nodes, mostNodes / 8) } }),
  };
}

/** What only few threads can have. */
function* askRare(flags: number): Asking<ThreadAttributes> {
  const found: ThreadAttributes = {};
  if ((flags & machineCheckFlag) !== 0) {
    const [kill] = yield [[SYS.prctl, PR.getMachineCheckKill, 0, 0, 0, 0]];
    if (kill! >= 0n && Number(kill) !== PR_MCE_KILL_DEFAULT) found.machineCheckKill = Number(kill);
  }
  if ((flags & flusherFlags) === flusherFlags) found.ioFlusher = true;
  if (hasCpuidFault()) {
    const [allowed] = yield [[SYS.arch_prctl, ARCH_GET_CPUID, 0]];
    if (allowed === 0n) found.noCpuid = true;
  }
  return found;
}

let cpuidFault: boolean | undefined;
const hasCpuidFault = () => (cpuidFault ??= cpuFlags().includes('cpuid_fault'));

/** Whether the kernel lets a program control a feature of speculation at all: it says so to us too. */
const controlled = new Map<number, boolean>();

function isControlled(feature: number): boolean {
  const known = controlled.get(feature);
  if (known !== undefined) return known;
  let result = false;
  try {
    result = (Number(native().syscall(SYS.prctl, PR.getSpeculation, feature, 0, 0, 0)) & SPEC_PRCTL) !== 0;
  } catch {
    // This kernel does not know it.
  }
  controlled.set(feature, result);
  return result;
}

/** Features whose setting /proc does not show to be the usual one. */
function askedSpeculation(status: Status): number[] {
  const line = (key: string) => (status.get(key) ?? []).join(' ');
  const usual = [
    line('Speculation_Store_Bypass') === 'thread vulnerable',
    line('SpeculationIndirectBranch') === 'conditional enabled',
    false,
  ];
  return features.filter((feature) => !usual[feature] && isControlled(feature));
}

/** `warn` is told what is not to be had here. */
export function* setThreadAttributes(
  remote: Remote,
  record: Thread,
  warn: (sentence: string) => void,
): Asking<void> {
  const calls: { call: Word[]; what: string }[] = [];
  const set = (what: string, ...call: Word[]) => calls.push({ what, call });
  const { memoryPolicy } = record;
  if (record.machineCheckKill !== undefined)
    set(
      'its answer to broken memory (PR_MCE_KILL)',
      SYS.prctl,
      PR.setMachineCheckKill,
      PR_MCE_KILL_SET,
      record.machineCheckKill,
      0,
      0,
    );
  if (record.ioFlusher) set('the state of an I/O flusher', SYS.prctl, PR.setIoFlusher, 1, 0, 0, 0);
  for (const { feature, setting } of record.speculation ?? [])
    set('its control of speculation', SYS.prctl, PR.setSpeculation, feature, setting, 0, 0);
  if (record.noTimeStampCounter)
    set('the ban on reading the time stamp counter', SYS.prctl, PR.setTsc, PR_TSC_SIGSEGV, 0, 0, 0);
  if (record.noCpuid) set('the ban on CPUID', SYS.arch_prctl, ARCH_SET_CPUID, 0);
  if (memoryPolicy) {
    remote.reset();
    const nodes = remote.put(memoryPolicy.nodes);
    set('its memory policy', SYS.set_mempolicy, memoryPolicy.mode, nodes, 8 * memoryPolicy.nodes.length);
  }
  yield* attempt(
    calls.map(({ call }) => call),
    (index, errno) => warn(`thread ${record.tid} can't have ${calls[index]!.what} here (errno ${errno})`),
  );
}

const PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG = 0x4211;

/**
 * System calls that a thread hands to its own handler (PR_SET_SYSCALL_USER_DISPATCH, as Wine does): ours in it would
 * end there too. Before any is made. Before Linux 6.4 nobody can tell.
 */
export function refuseDispatched(processes: readonly FrozenProcess[]): void {
  const config = new Uint8Array(32);
  for (const { pid, threads } of processes) {
    for (const { tid } of threads) {
      try {
        native().syscall(SYS.ptrace, PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, tid, config.length, config);
      } catch {
        return;
      }
      if (config[0] === 0) continue;
      throw new PodError(
        'cannot-checkpoint',
        `${describeProcess(pid)}, thread ${tid}: its system calls go to a handler of its own (PR_SET_SYSCALL_USER_DISPATCH), which is not handled`,
        'run the program without it',
      );
    }
  }
}
