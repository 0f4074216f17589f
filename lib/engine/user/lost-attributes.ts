/** Attributes that nobody can put back, and so are said to be lost. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { native } from '../../../native/index.ts';
import { inIpcOf, inNewIpc } from '../../network/elsewhere.ts';
import { PR, SYS } from './abi.ts';
import { describeProcess } from './proc.ts';
import type { Remote } from './remote.ts';
import type { SessionProcess, SessionView } from './session-view.ts';

/** `init`: pid 1 of the pod, where there is one. */
export function lostAttributes(view: SessionView, init: number | undefined): string[] {
  return [
    ...lostLabels(view.alive),
    ...lostCookies(view.alive),
    ...lostKeys(view),
    ...(init === undefined ? [] : [...lostGuests(view, init), ...lostSettings(init)]),
  ];
}

/** Processes that were sent into the pod from outside (nsenter): no children of its own, but they end with it. */
function lostGuests(view: SessionView, init: number): string[] {
  const own = new Set([1, ...view.processes.map(({ innerPid }) => innerPid)]);
  const proc = `/proc/${init}/root/proc`;
  let found: number[];
  try {
    // A session may have taken its own away.
    if (readlinkSync(`${proc}/1/ns/pid`) !== readlinkSync(`/proc/${init}/ns/pid`)) return [];
    found = readdirSync(proc).map(Number).filter(Number.isInteger);
  } catch {
    return [];
  }
  return found
    .filter((pid) => !own.has(pid))
    .flatMap((pid) => {
      const name = nameOf(`${proc}/${pid}/comm`);
      return name === undefined
        ? []
        : [`the process ${name} (${pid} in the pod), which was started from outside (nsenter)`];
    });
}

/** Of a process that nobody has stopped; undefined when it has just ended. */
function nameOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}

/** What of the pod's System V and POSIX IPC was set with sysctl(8). Only root can, and only root can ask for it. */
function lostSettings(init: number): string[] {
  if (process.getuid!() !== 0) return [];
  try {
    const found = inIpcOf(init, readIpcSettings);
    const usual = inNewIpc(readIpcSettings);
    return [...found].flatMap(([name, value]) =>
      usual.get(name) === value ? [] : [`the setting ${name.replace('/', '.')} = ${value} of the pod's IPC`],
    );
  } catch (cause) {
    // Without rights over the host (a root of its own user namespace) it can't have set any either.
    if ((cause as NodeJS.ErrnoException).code !== 'EPERM') throw cause;
    return [];
  }
}

const ipcSettings = [
  ...['msgmax', 'msgmnb', 'msgmni', 'sem', 'shmall', 'shmmax', 'shmmni', 'shm_rmid_forced'].map(
    (name) => `kernel/${name}`,
  ),
  ...['queues_max', 'msg_max', 'msgsize_max', 'msg_default', 'msgsize_default'].map(
    (name) => `fs/mqueue/${name}`,
  ),
];

function readIpcSettings(): Map<string, string> {
  const found = new Map<string, string>();
  for (const name of ipcSettings) {
    try {
      found.set(name, readFileSync(`/proc/sys/${name}`, 'latin1').trim().replace(/\s+/g, ' '));
    } catch {
      // A kernel without this kind.
    }
  }
  return found;
}

/** Label of a security module (SELinux, AppArmor, Smack); undefined where there is none. */
function labelOf(process: number | 'self'): string | undefined {
  try {
    return readFileSync(`/proc/${process}/attr/current`, 'utf8').replace(/[\0\n]+$/, '') || undefined;
  } catch {
    return undefined;
  }
}

/** Whoever restarts has a label too, which its processes get. That it is ours where nothing is set up is no loss. */
function lostLabels(processes: readonly SessionProcess[]): string[] {
  const own = labelOf('self');
  const counts = new Map<string, number>();
  for (const { pid } of processes) {
    const label = labelOf(pid);
    if (label !== undefined && label !== own) counts.set(label, (counts.get(label) ?? 0) + 1);
  }
  return [...counts].map(
    ([label, count]) =>
      `the security label ${JSON.stringify(label)} of ${count} processes, which will have that of whoever restarts them`,
  );
}

const PR_SCHED_CORE_GET = 0;

/** Who may share a core (PR_SCHED_CORE). */
function lostCookies(processes: readonly SessionProcess[]): string[] {
  const cookie = new BigUint64Array(1);
  const bytes = new Uint8Array(cookie.buffer);
  let count = 0;
  try {
    for (const { threads } of processes) {
      for (const { tid } of threads) {
        native().syscall(SYS.prctl, PR.schedCore, PR_SCHED_CORE_GET, tid, 0, bytes);
        if (cookie[0] !== 0n) count++;
      }
    }
  } catch {
    // A kernel or a computer without it.
  }
  return count === 0 ? [] : [`which of ${count} threads may share a core (PR_SCHED_CORE)`];
}

const KEYCTL_GET_KEYRING_ID = 0;
const KEYCTL_READ = 11;
/** KEY_SPEC_THREAD_KEYRING, PROCESS_KEYRING. To look at that of a session would make one. */
const keyrings = [-1, -2];

function lostKeys(view: SessionView): string[] {
  // Nobody has a key but those of the kernel and the rings themselves: nothing to ask for.
  if (!/^(?!.* keyring )/m.test(listKeys())) return [];
  return view.alive.flatMap(({ pid }) =>
    view.within(pid, hasKeys) ? [`the keys that ${describeProcess(pid)} has for itself (keyrings(7))`] : [],
  );
}

function listKeys(): string {
  try {
    return readFileSync('/proc/keys', 'latin1').trim();
  } catch {
    return '';
  }
}

function hasKeys(remote: Remote): boolean {
  const rings = remote.run(keyrings.map((ring) => [SYS.keyctl, KEYCTL_GET_KEYRING_ID, ring, 0]));
  const found = [...rings].filter((ring) => ring > 0n);
  return [...remote.run(found.map((ring) => [SYS.keyctl, KEYCTL_READ, ring, 0, 0]))].some(
    (size) => size > 0n,
  );
}
