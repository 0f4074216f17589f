/** Attributes that nobody can put back, and so are said to be lost. */
import { readFileSync } from 'node:fs';
import { native } from '../../../native/index.ts';
import { PR, SYS } from './abi.ts';
import { describeProcess } from './proc.ts';
import type { Remote } from './remote.ts';
import type { SessionProcess, SessionView } from './session-view.ts';

export function lostAttributes(view: SessionView): string[] {
  return [...lostLabels(view.alive), ...lostCookies(view.alive), ...lostKeys(view)];
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
