/** What makes a task of ours the process of the image: limits, handlers, credentials, timers, threads. */
import { writeFileSync } from 'node:fs';
import { native } from '../../../native/index.ts';
import type { Records } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import { CLONE, NT_X86_XSTATE, PR, SYS } from './abi.ts';
import { type ImageRecords, needed, type ProcessImage, type ThreadImage } from './image-records.ts';
import type { NewTask } from './new-task.ts';
import { readRights, withRights } from './objects/protection-keys.ts';
import { readLimits, readStatus } from './proc.ts';
import { type Asking, attempt, type Remote, type Word } from './remote.ts';
import { setScheduling } from './scheduling.ts';
import { planThreads, type ThreadContext } from './split-threads.ts';
import { setThreadAttributes } from './thread-attributes.ts';

type Warn = (sentence: string) => void;

/** Threads beside the leader. */
export function makeThreads(task: NewTask, image: ProcessImage): NewTask[] {
  const steps = planThreads(contextsOf(image));
  if (!steps) {
    throw new PodError(
      'cannot-restart',
      `the threads of process ${image.record.pid} share descriptors and directories in a ring`,
      'the image does not fit together: load it again',
    );
  }
  const tasks = [task];
  for (const { thread, maker, files, fs } of steps) {
    const { tid } = image.threads[thread]!.record;
    const flags = CLONE.vm | CLONE.sighand | CLONE.thread | CLONE.sysvsem;
    const shared = (files ? CLONE.files : 0) | (fs ? CLONE.fs : 0);
    const parent = tasks[maker]!;
    const what = `thread ${tid} of process ${image.record.pid}`;
    tasks[thread] = parent.clone(parent.remote, tid, flags | shared, 0, what);
  }
  return tasks.slice(1);
}

/** Descriptor table and filesystem context of each thread. */
export function contextsOf({ record, threads }: ProcessImage): ThreadContext[] {
  return threads.map(({ record: { files = record.files, fs = record.fs } }) => ({ files, fs }));
}

/** Working directory, root, umask. */
export function* enterDirectory(task: NewTask, remote: Remote, fs: Records['fs']): Asking<void> {
  const steps = [
    ...(fs.root === '/' ? [] : [{ number: SYS.chroot, path: fs.root }]),
    { number: SYS.chdir, path: fs.cwd },
  ];
  remote.reset();
  const calls = steps.map(({ number, path }) => [number, remote.putString(path)]);
  yield* attempt([...calls, [SYS.umask, fs.umask]], (index, errno) => {
    throw new PodError(
      'cannot-restart',
      `process ${task.inner} can't enter ${steps[index]?.path} (errno ${errno})`,
      'the session needs this directory where it was; see pod-filter relocate',
    );
  });
}

const SIGKILL = 9;
const SIGSTOP = 19;

/** Signals whose disposition is not the default with all it has: what whoever is forked from this task starts with. */
export function signalsInherited({ remote }: NewTask): number[] {
  remote.reset();
  const signals = Array.from({ length: 64 }, (_none, index) => index + 1);
  const address = remote.reserve(actionSize * signals.length);
  remote.run(
    signals.map((signal, at) => [SYS.rt_sigaction, signal, 0, address + BigInt(actionSize * at), 8]),
  );
  const bytes = remote.read(address, actionSize * signals.length);
  return signals.filter((_signal, at) =>
    bytes.subarray(actionSize * at, actionSize * (at + 1)).some((byte) => byte !== 0),
  );
}

/** struct sigaction of the kernel, bytes. */
const actionSize = 32;

/** sigaction(2) for what the image lists; of the rest those that `inherited` says are not SIG_DFL. */
export function* setHandlers(
  task: NewTask,
  remote: Remote,
  actions: Records['handlers']['actions'],
  inherited: readonly number[],
): Asking<void> {
  remote.reset();
  const bytes = new Uint8Array(actionSize * (actions.length + 1));
  const view = new DataView(bytes.buffer);
  actions.forEach((action, index) => {
    const at = actionSize * (index + 1);
    [action.handler, action.flags, action.restorer, action.mask].forEach((word, place) => {
      view.setBigUint64(at + 8 * place, word, true);
    });
  });
  const address = remote.put(bytes);
  const settings = new Map(inherited.map((signal) => [signal, address]));
  actions.forEach(({ signal }, index) => {
    settings.set(signal, address + BigInt(actionSize * (index + 1)));
  });
  const calls = [...settings]
    .filter(([signal]) => signal !== SIGKILL && signal !== SIGSTOP)
    .map(([signal, setting]) => [SYS.rt_sigaction, signal, setting, 0, 8]);
  yield* attempt(calls, (_index, errno) => {
    throw new PodError(
      'cannot-restart',
      `the signal handlers of process ${task.inner} can't be set (errno ${errno})`,
    );
  });
}

/** Limits: lowering always works; raising needs a right that even root may lack. */
export function setLimits(task: NewTask, limits: Records['process']['limits'], warn: Warn): void {
  const { remote } = task;
  const present = readLimits(task.tid);
  limits.forEach((limit, resource) => {
    const old = present[resource];
    if (!old || (old.soft === limit.soft && old.hard === limit.hard)) return;
    const set = (soft: bigint, most: bigint) => {
      remote.reset();
      const bytes = new BigUint64Array([soft, most]);
      return remote.run([[SYS.prlimit64, 0, resource, remote.put(new Uint8Array(bytes.buffer)), 0]])[0]!;
    };
    if (set(limit.soft, limit.hard) >= 0n) return;
    const most = limit.hard < old.hard ? limit.hard : old.hard;
    const soft = limit.soft < most ? limit.soft : most;
    if (set(soft, most) < 0n || soft !== limit.soft)
      warn(`process ${task.inner}: resource limit ${resource} could not be raised to ${limit.soft}`);
  });
}

/** What else belongs to the process. */
export function* setProcess(task: NewTask, record: Records['process'], warn: Warn): Asking<void> {
  yield [
    [SYS.personality, record.personality],
    [SYS.prctl, PR.setChildSubreaper, record.childSubreaper ? 1 : 0, 0, 0, 0],
  ];
  allowProcessorStates(task, record.processorStates ?? 0n);
  writeProc(task, 'oom_score_adj', record.oomScoreAdjust, warn);
  writeProc(task, 'coredump_filter', record.coredumpFilter, warn);
}

const ARCH_REQ_XCOMP_PERM = 0x1023;

/** Before any thread has an alternate stack, which must be large enough for them. */
function allowProcessorStates(task: NewTask, components: bigint): void {
  for (let number = 0n; components >> number !== 0n; number++) {
    if (((components >> number) & 1n) === 0n) continue;
    const [result] = task.remote.run([[SYS.arch_prctl, ARCH_REQ_XCOMP_PERM, number]]);
    if (result! < 0n)
      throw new PodError(
        'cannot-restart',
        `process ${task.inner} uses processor registers (component ${number}) that it can't have here (errno ${-result!})`,
        'restart on the same kind of processor',
      );
  }
}

function writeProc(task: NewTask, file: string, value: number | undefined, warn: Warn): void {
  if (value === undefined) return;
  try {
    writeFileSync(
      `/proc/${task.tid}/${file}`,
      file === 'coredump_filter' ? `0x${value.toString(16)}` : String(value),
    );
  } catch {
    warn(`process ${task.inner}: ${file} could not be set to ${value}`);
  }
}

/** What a thread has of its own, but its registers and credentials. */
export function* setThread(task: NewTask, remote: Remote, image: ThreadImage, warn: Warn): Asking<void> {
  const { record } = image;
  remote.reset();
  const calls: Word[][] = [
    [SYS.prctl, PR.setName, remote.putString(record.comm), 0, 0, 0],
    [SYS.set_tid_address, record.clearChildTid ?? 0],
    [SYS.prctl, PR.setTimerslack, record.scheduling.timerSlackNs ?? 50000n, 0, 0, 0],
  ];
  if (record.robustList) calls.push([SYS.set_robust_list, record.robustList.head, record.robustList.length]);
  if (record.alternateStack) {
    const stack = new Uint8Array(24);
    const view = new DataView(stack.buffer);
    view.setBigUint64(0, record.alternateStack.address, true);
    view.setUint32(8, record.alternateStack.flags, true);
    view.setBigUint64(16, record.alternateStack.size, true);
    calls.push([SYS.sigaltstack, remote.put(stack), 0]);
  }
  yield* attempt(calls, (index, errno) => {
    throw new PodError(
      'cannot-restart',
      `thread ${record.tid}: call ${calls[index]![0]} failed (errno ${errno})`,
    );
  });
  yield* setScheduling(task, remote, record.scheduling, warn);
  yield* setThreadAttributes(remote, record, warn);
  if (record.rseq) yield* setRseq(task, record.rseq);
}

/** Registering also writes the current processor into the structure, which is what the program expects there. */
function* setRseq(task: NewTask, rseq: NonNullable<Records['thread']['rseq']>): Asking<void> {
  const own = native().getRseq(task.tid);
  const calls: Word[][] = own ? [[SYS.rseq, own.address, own.length, 1, own.signature]] : [];
  calls.push([SYS.rseq, rseq.address, rseq.length, rseq.flags, rseq.signature]);
  yield* attempt(calls, (_index, errno) => {
    throw new PodError('cannot-restart', `thread ${task.inner}: rseq can't be registered (errno ${errno})`);
  });
}

/** Without what the pod does not let its session have. */
export function cutCredentials(
  wanted: Records['thread']['credentials'],
  most: bigint | undefined,
): Records['thread']['credentials'] {
  if (most === undefined) return wanted;
  return {
    ...wanted,
    bounding: wanted.bounding & most,
    permitted: wanted.permitted & most,
    effective: wanted.effective & most,
    inheritable: wanted.inheritable & most,
    ambient: wanted.ambient & most,
  };
}

/** SECBIT_KEEP_CAPS. */
const keepCaps = 1 << 4;

/** credentials(7), in the order in which each step is still allowed. */
export function* setCredentials(
  task: NewTask,
  remote: Remote,
  wanted: Records['thread']['credentials'],
  warn: Warn,
): Asking<void> {
  const status = readStatus(task.tid, task.tid);
  const words = (key: string) => (status.get(key) ?? []).filter((word) => word !== '').map(Number);
  const set = (key: string) => BigInt(`0x${status.get(key)?.[0] ?? '0'}`);
  const same = (a: readonly number[], b: readonly number[]) =>
    a.length === b.length && a.every((value, index) => value === b[index]);
  remote.reset();
  const calls: { call: Word[]; what: string; must: boolean }[] = [];
  const add = (what: string, must: boolean, ...call: Word[]) => calls.push({ call, what, must });

  if (!same(words('Groups'), wanted.groups)) {
    const groups = remote.put(new Uint8Array(Uint32Array.from(wanted.groups).buffer));
    add('supplementary groups', true, SYS.setgroups, wanted.groups.length, groups);
  }
  for (let capability = 0; capability < 64; capability++) {
    const bit = 1n << BigInt(capability);
    if ((set('CapBnd') & bit) !== 0n && (wanted.bounding & bit) === 0n)
      add('the bounding set', true, SYS.prctl, PR.capbsetDrop, capability, 0, 0, 0);
  }
  const [ruid, euid, suid, fsuid] = wanted.uids as [number, number, number, number];
  const [rgid, egid, sgid, fsgid] = wanted.gids as [number, number, number, number];
  // Setting them takes a capability that is gone in the end; and until then capabilities must outlive the user id.
  if (wanted.securebits !== 0) {
    add('securebits', false, SYS.prctl, PR.setSecurebits, wanted.securebits | keepCaps, 0, 0, 0);
  } else {
    add('capabilities', false, SYS.prctl, PR.setKeepCaps, 1, 0, 0, 0);
  }
  if (!same(words('Gid'), wanted.gids)) {
    add('group ids', true, SYS.setresgid, rgid, egid, sgid);
    if (fsgid !== egid) add('file system group id', true, SYS.setfsgid, fsgid);
  }
  if (!same(words('Uid'), wanted.uids)) {
    add('user ids', true, SYS.setresuid, ruid, euid, suid);
    if (fsuid !== euid) add('file system user id', true, SYS.setfsuid, fsuid);
  }
  // A capability the pod never had can't be given; one it has beyond the image must go.
  const permitted = wanted.permitted & set('CapPrm');
  const header = remote.put(new Uint8Array(Uint32Array.from([0x20080522, 0]).buffer));
  const half = (value: bigint, high: boolean) => Number((high ? value >> 32n : value) & 0xffffffffn);
  const effective = wanted.effective & permitted;
  const data = Uint32Array.from(
    [false, true].flatMap((high) => [
      half(effective, high),
      half(permitted, high),
      half(wanted.inheritable, high),
    ]),
  );
  add('capabilities', true, SYS.capset, header, remote.put(new Uint8Array(data.buffer)));
  if ((wanted.securebits & keepCaps) === 0) {
    add('capabilities', false, SYS.prctl, PR.setKeepCaps, 0, 0, 0, 0);
  }
  for (let capability = 0; capability < 64; capability++) {
    if ((wanted.ambient >> BigInt(capability)) & 1n)
      add('the ambient set', false, SYS.prctl, PR.capAmbient, PR.capAmbientRaise, capability, 0, 0);
  }
  if (wanted.noNewPrivs) add('no_new_privs', true, SYS.prctl, PR.setNoNewPrivs, 1, 0, 0, 0);
  if (permitted !== wanted.permitted)
    warn(`thread ${task.inner}: some capabilities of the session are not to be had here`);
  yield* attempt(
    calls.map((each) => each.call),
    (index, errno) => {
      const { what, must } = calls[index]!;
      if (must)
        throw new PodError(
          'cannot-restart',
          `thread ${task.inner} can't be given its ${what} (errno ${errno})`,
          "restart as root, or as the session's own user",
        );
      warn(`thread ${task.inner}: ${what} could not be set`);
    },
  );
}

/**
 * Behind the credentials of all threads: when any of them changes its own, the flag of their address space is reset.
 * Nobody can set 2, which differs from 0 only in that root gets a core file.
 */
export function* setLate(dumpable: number | undefined, deathSignal: number | undefined): Asking<void> {
  const calls: Word[][] = [];
  if (dumpable !== undefined) calls.push([SYS.prctl, PR.setDumpable, dumpable === 1 ? 1 : 0, 0, 0, 0]);
  if (deathSignal) calls.push([SYS.prctl, PR.setPdeathsig, deathSignal, 0, 0, 0]);
  if (calls.length > 0) yield calls;
}

/** Take away the signals that the building itself has sent (SIGCHLD of ghosts); before any is queued anew. */
export function* dropPending(remote: Remote): Asking<void> {
  remote.reset();
  const set = remote.put(new Uint8Array(8).fill(0xff));
  const zero = remote.put(new Uint8Array(16));
  // EINTR only says that something else called for attention; EAGAIN that nothing is left.
  while ((yield [[SYS.rt_sigtimedwait, set, 0, zero, 8]])[0] !== -11n);
}

/** Of a siginfo_t. */
export function signalNumber(signal: Uint8Array): number {
  return new DataView(signal.buffer, signal.byteOffset).getInt32(0, true);
}

/** Signals that were queued when the session was dumped. */
export function setPending(
  task: NewTask,
  pid: number,
  shared: readonly Uint8Array[],
  own: readonly Uint8Array[],
): void {
  const { remote } = task;
  for (const signal of shared) {
    remote.reset();
    remote.call('rt_sigqueueinfo', SYS.rt_sigqueueinfo, pid, signalNumber(signal), remote.put(signal));
  }
  for (const signal of own) {
    remote.reset();
    remote.call(
      'rt_tgsigqueueinfo',
      SYS.rt_tgsigqueueinfo,
      pid,
      task.inner,
      signalNumber(signal),
      remote.put(signal),
    );
  }
}

/** Registers and mask: the task goes on from here as soon as it is let go; `registers` instead of those of the image. */
export function setRegisters(task: NewTask, image: ThreadImage, registers = image.record.registers): void {
  const addon = native();
  const { record } = image;
  setExtended(task, image);
  addon.setRegisters(task.tid, registers.slice());
  addon.setSignalMask(task.tid, record.signalMask);
}

const legacyState = 512;
const NT_PRFPREG = 2;
/** x87, SSE, AVX: components that lie at the same place on every processor. */
const commonComponents = 0b111n;

/** The XSAVE area must have exactly this machine's size; see docs/engine-user.md on other processors. */
function setExtended(task: NewTask, { record, extended }: ThreadImage): void {
  const addon = native();
  if (extended.length === legacyState) {
    addon.setRegset(task.tid, NT_PRFPREG, extended);
    return;
  }
  const here = addon.getRegset(task.tid, NT_X86_XSTATE);
  const before = readRights(here);
  const { pkru } = record;
  const fitted = fitExtended(task, pkru === undefined ? extended : withRights(extended, 0), here);
  // Of a machine without protection keys: what every new program has.
  const rights = pkru ?? before ?? 0;
  const whole = fitted === extended ? extended : withRights(fitted, rights);
  addon.setRegset(task.tid, NT_X86_XSTATE, whole);
  if (pkru === undefined || before === undefined || before === rights) return;
  if (readRights(addon.getRegset(task.tid, NT_X86_XSTATE)) === rights) return;
  throw new PodError(
    'cannot-restart',
    `thread ${task.inner} can't be given its rights to memory protection keys: this kernel does not take them`,
    'some kernels from Linux 5.14 to 6.1 lack it (PKRU by ptrace): restart on another one',
  );
}

function fitExtended(task: NewTask, extended: Uint8Array, here: Uint8Array): Uint8Array {
  if (here.length === extended.length) return extended;
  const used = new DataView(extended.buffer, extended.byteOffset).getBigUint64(legacyState, true);
  if ((used & ~commonComponents) !== 0n) {
    throw new PodError(
      'cannot-restart',
      `thread ${task.inner} uses processor registers that lie elsewhere on this processor (components ${used.toString(2)})`,
      'restart on the same kind of processor',
    );
  }
  const fitted = here.slice().fill(0, 0);
  fitted.set(extended.subarray(0, Math.min(extended.length, here.length)));
  fitted.set(here.subarray(464, legacyState), 464);
  return fitted;
}

/** The image's process behind a task. */
export function processOf(image: ImageRecords, task: NewTask): ProcessImage {
  return needed(image.processes, task.inner, 'process');
}
