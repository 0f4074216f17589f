/** `pod-run --check`: what this machine lets this user do, tried where it can be tried, and what follows from a no. */
import { accessSync, closeSync, constants, existsSync, openSync, readdirSync } from 'node:fs';
import { release } from 'node:os';
import { native } from '../../native/index.ts';
import { ptraceScope } from '../../native/ptrace-scope.ts';
import { PodError } from '../stream/error.ts';
import { findPlace } from './cgroups.ts';
import { hasTimeNamespaces } from './clocks.ts';
import { preparePod } from './create.ts';

export interface Finding {
  what: string;
  can: boolean;
  /** Of a no: what does not work without it. Of a yes: what it is. */
  meaning: string;
  /** Without it there are no pods at all. */
  needed?: boolean;
}

/** Everything that is looked at, in the order in which it matters. */
export async function checkMachine(): Promise<Finding[]> {
  const root = process.geteuid!() === 0;
  const controllers = (['memory', 'cpu', 'pids'] as const).map((name) => ({ name, can: mayGroup(name) }));
  const groups = controllers.filter(({ can }) => can).map(({ name }) => name);
  return [
    finding('Linux 5.10 or newer', isAtLeast(5, 10), release(), `${release()} is not supported`, true),
    await tryPod(),
    finding(
      "tracing one's own processes",
      ptraceScope() < 3,
      'sessions can be dumped and restarted',
      'kernel.yama.ptrace_scope is 3: nothing can be dumped or restarted',
      true,
    ),
    finding(
      'tracing processes outside pods',
      root || ptraceScope() === 0,
      'pod-dump takes plain pids too',
      'kernel.yama.ptrace_scope forbids it: only pods can be dumped, no plain pids',
    ),
    finding(
      'time namespaces',
      hasTimeNamespaces(),
      'the clocks of a session go on after a restart',
      "a restarted session's monotonic clock jumps",
    ),
    finding(
      'kcmp',
      answers(312, process.pid, process.pid, 0, 0, 0),
      'what processes share stays shared',
      'this kernel lacks CONFIG_KCMP: sessions cannot be dumped',
      true,
    ),
    finding(
      'CONFIG_CHECKPOINT_RESTORE',
      existsSync('/proc/sys/kernel/shm_next_id'),
      'System V ids, watch numbers and timers come back as they were',
      'sessions with System V IPC or inotify cannot be restarted',
    ),
    finding(
      'PAGEMAP_SCAN',
      canScanPages(),
      'memory that was changed is found fast',
      'Linux before 6.7: a dump looks at each page, and takes longer',
    ),
    finding(
      'rights over mapped files (CAP_CHECKPOINT_RESTORE)',
      mayOpenMapped(),
      'deleted files that are only mapped travel whole',
      'of a deleted file that is only mapped, what is mapped travels; the rest is named as a loss',
    ),
    finding(
      'seccomp filters',
      existsSync('/proc/sys/kernel/seccomp/actions_avail'),
      'pods with --root are confined',
      'this kernel lacks CONFIG_SECCOMP_FILTER: --root works only with --no-confine',
    ),
    finding(
      'Landlock for socket names',
      landlockVersion() >= 6,
      "a confined session does not reach the host's abstract sockets",
      'Linux before 6.12, or without Landlock: a confined session reaches abstract sockets of its network namespace',
    ),
    await tryNetwork(),
    finding(
      'control groups',
      groups.length === controllers.length,
      '--memory, --cpus and --pids',
      `no ${controllers
        .filter(({ can }) => !can)
        .map(({ name }) => ({ memory: '--memory', cpu: '--cpus', pids: '--pids' })[name])
        .join(', ')}: no such controller here, or its groups belong to others`,
    ),
    finding(
      'files and programs of other users',
      root,
      'set-user-ID programs work, sessions may have several users',
      "an ordinary user's pod has one user: set-user-ID programs (sudo, su) have no effect, other owners show as nobody, ports below 1024 are the host's matter",
    ),
    finding(
      'images of other users',
      root,
      'whatever users a session had, it can be restarted',
      'only sessions whose processes were all yours can be restarted',
    ),
  ];
}

function finding(what: string, can: boolean, yes: string, no: string, needed = false): Finding {
  return { what, can, meaning: can ? yes : no, ...(needed ? { needed } : {}) };
}

/** The table, a line each. */
export function formatFindings(findings: readonly Finding[]): string {
  return findings.map(({ what, can, meaning }) => `${can ? 'yes' : 'no '}  ${what}: ${meaning}\n`).join('');
}

function isAtLeast(major: number, minor: number): boolean {
  const [a, b] = release().split('.').map(Number) as [number, number];
  return a > major || (a === major && b >= minor);
}

/** Namespaces, mounts and console, as every pod needs them. */
async function tryPod(): Promise<Finding> {
  const what = 'pods (user, pid, mount, ipc and uts namespaces)';
  try {
    await (await preparePod({ name: `check-${process.pid}`, command: ['true'] })).destroy();
    return { what, can: true, meaning: 'one was made and ended', needed: true };
  } catch (cause) {
    const { message, hint } = PodError.from(cause);
    return { what, can: false, meaning: hint ? `${message} (${hint})` : message, needed: true };
  }
}

async function tryNetwork(): Promise<Finding> {
  const what = 'networks that lead to this computer';
  try {
    await (await preparePod({ name: `check-${process.pid}`, command: ['true'], net: 'own' })).destroy();
    return finding(what, true, '--net own', '');
  } catch (cause) {
    return finding(what, false, '', `no --net own: ${PodError.from(cause).message}`);
  }
}

/** Whether a call gives no error. */
function answers(number: number, ...args: Parameters<ReturnType<typeof native>['syscall']>[1][]): boolean {
  try {
    native().syscall(number, ...args);
    return true;
  } catch {
    return false;
  }
}

const PAGEMAP_SCAN = 0xc0606610;

function canScanPages(): boolean {
  const fd = openSync('/proc/self/pagemap', 'r');
  try {
    // Nothing to scan: only a kernel that does not know it objects.
    const ask = new Uint8Array(96);
    ask[0] = ask.length;
    return answers(16, fd, PAGEMAP_SCAN, ask);
  } finally {
    closeSync(fd);
  }
}

function mayOpenMapped(): boolean {
  const [name] = readdirSync('/proc/self/map_files');
  try {
    closeSync(openSync(`/proc/self/map_files/${name}`, 'r'));
    return true;
  } catch {
    return false;
  }
}

const landlock_create_ruleset = 444;

function landlockVersion(): number {
  try {
    return Number(native().syscall(landlock_create_ruleset, null, 0, 1));
  } catch {
    return 0;
  }
}

function mayGroup(controller: Parameters<typeof findPlace>[0]): boolean {
  const place = findPlace(controller);
  if (!place) return false;
  try {
    accessSync(place.folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
