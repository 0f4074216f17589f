/**
 * Limits of a pod by control groups: cgroups(7). Each controller is in a hierarchy of its own (version 1) or in the
 * one of version 2; either way the pod's group is made below the caller's own, so that what limits the caller limits
 * the pod too. A group can't be removed before its last process is gone, so pid 1 can't do it: whoever ends a pod
 * removes its groups, and whoever makes one those that a pod left which ended by itself.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PodError } from '../stream/error.ts';

export interface Limits {
  /** Bytes, swap included where the kernel counts it. */
  memory?: bigint;
  /** Thousandths of a processor. */
  milliCpus?: number;
  /** Processes and threads at a time. */
  pids?: number;
}

type Controller = 'memory' | 'cpu' | 'pids';

/** Where this process stands, and where its groups are seen. */
export interface View {
  /** /proc/self/cgroup. */
  own: string;
  /** /proc/self/mountinfo. */
  mounts: string;
}

const readView = (): View => ({
  own: readFileSync('/proc/self/cgroup', 'utf8'),
  mounts: readFileSync('/proc/self/mountinfo', 'utf8'),
});

interface Place {
  version: 1 | 2;
  /** Folder below which the pod's group is made. */
  folder: string;
}

/** Where a controller's groups can be made; undefined when this machine has no such controller. */
export function findPlace(controller: Controller, view: View = readView()): Place | undefined {
  const own = view.own.split('\n').map((line) => line.split(':') as [string, string, string]);
  for (const line of view.mounts.split('\n')) {
    const [before, after] = line.split(' - ') as [string, string?];
    const [type, , options] = after?.split(' ') ?? [];
    const [, , , part, point] = before.split(' ');
    const below = (path: string) =>
      join(point!, part === '/' || !path.startsWith(part!) ? path : path.slice(part!.length));
    if (type === 'cgroup' && options!.split(',').includes(controller)) {
      const mine = own.find(([, names]) => names?.split(',').includes(controller));
      if (mine) return { version: 1, folder: below(mine[2]) };
    }
    if (type === 'cgroup2' && read(join(point!, 'cgroup.controllers')).split(/\s+/).includes(controller)) {
      const mine = own.find(([, names]) => names === '');
      if (mine) return { version: 2, folder: delegating(below(mine[2]), point!, controller) };
    }
  }
  return undefined;
}

/** In version 2 a group with processes passes no controller on: the nearest one above that does. */
function delegating(folder: string, top: string, controller: Controller): string {
  for (let at = folder; at.startsWith(top) && at !== top; at = dirname(at))
    if (read(join(at, 'cgroup.subtree_control')).split(/\s+/).includes(controller)) return at;
  return top;
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}

const period = 100_000;

/** Files and what goes into them; a `?` stands before those that not every kernel has. */
function settings(limits: Limits, controller: Controller, version: 1 | 2): [string, string][] {
  const { memory, milliCpus, pids } = limits;
  const quota = String(Math.max(1000, ((milliCpus ?? 0) * period) / 1000));
  const all = {
    memory: {
      1: [
        ['memory.limit_in_bytes', String(memory)],
        ['?memory.memsw.limit_in_bytes', String(memory)],
      ],
      2: [
        ['memory.max', String(memory)],
        ['?memory.swap.max', '0'],
      ],
    },
    cpu: {
      1: [
        ['cpu.cfs_period_us', String(period)],
        ['cpu.cfs_quota_us', quota],
      ],
      2: [['cpu.max', `${quota} ${period}`]],
    },
    // pid 1 is not the session's.
    pids: { 1: [['pids.max', String((pids ?? 0) + 1)]], 2: [['pids.max', String((pids ?? 0) + 1)]] },
  } satisfies Record<Controller, Record<1 | 2, string[][]>>;
  return all[controller][version] as [string, string][];
}

const wantedBy = (limits: Limits): Controller[] => [
  ...(limits.memory === undefined ? [] : (['memory'] as const)),
  ...(limits.milliCpus === undefined ? [] : (['cpu'] as const)),
  ...(limits.pids === undefined ? [] : (['pids'] as const)),
];

const prefix = 'podstream-';

/** The groups of a pod. */
export interface Groups {
  readonly folders: string[];
  /** Let the limits hold. A restart does so when all is made: the making takes more than the session. */
  set(): void;
}

/** Put a pod's pid 1 into groups of its own. Throws, and leaves nothing, when one of the limits can't be had. */
export function joinGroups(limits: Limits, name: string, pid: number, view?: View): Groups {
  const made: { folder: string; controller: Controller; version: 1 | 2 }[] = [];
  try {
    for (const controller of wantedBy(limits)) {
      const place = findPlace(controller, view);
      if (!place) throw refuse(controller, `this machine has no ${controller} controller`);
      sweep(place.folder);
      const folder = join(place.folder, `${prefix}${name}-${pid}`);
      attempt(controller, () => {
        if (
          place.version === 2 &&
          !read(join(place.folder, 'cgroup.subtree_control')).split(/\s+/).includes(controller)
        )
          writeFileSync(join(place.folder, 'cgroup.subtree_control'), `+${controller}`);
        mkdirSync(folder, { recursive: true });
      });
      made.push({ folder, controller, version: place.version });
      attempt(controller, () => writeFileSync(join(folder, 'cgroup.procs'), String(pid)));
    }
  } catch (cause) {
    removeEmpty(made.map(({ folder }) => folder));
    throw cause;
  }
  return {
    folders: [...new Set(made.map(({ folder }) => folder))],
    set() {
      for (const { folder, controller, version } of made)
        for (const [file, value] of settings(limits, controller, version)) {
          const path = join(folder, file.replace(/^\?/, ''));
          if (file.startsWith('?') && !existsSync(path)) continue;
          attempt(controller, () => writeFileSync(path, value));
        }
    },
  };
}

function attempt(controller: Controller, body: () => void): void {
  try {
    body();
  } catch (cause) {
    throw refuse(controller, (cause as Error).message.replace(/, \w+ /, ' '), cause);
  }
}

const options: Record<Controller, string> = { memory: 'memory', cpu: 'cpus', pids: 'pids' };

function refuse(controller: Controller, why: string, cause?: unknown): PodError {
  return new PodError(
    'other',
    `--${options[controller]} can't be had here: ${why}`,
    'limits need control groups that you may make: as root, or, where systemd gives them to users, systemd-run --user --scope -p Delegate=yes pod-run …',
    { cause },
  );
}

/** Remove groups; one that still has a process stays. */
function removeEmpty(folders: readonly string[]): void {
  for (const folder of folders) {
    try {
      rmdirSync(folder);
    } catch {
      // Not ours, gone, or in use.
    }
  }
}

/** Remove the groups of a pod that has just ended, or is about to: pid 1 goes last. */
export async function removeGroups(folders: readonly string[]): Promise<void> {
  for (let turn = 0; turn < 40 && folders.some((folder) => existsSync(folder)); turn++) {
    if (turn > 0) await sleep(25);
    removeEmpty(folders);
  }
}

/** Groups of pods whose pid 1 is gone: another pod's may be just made, and still empty. */
function sweep(folder: string): void {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    return;
  }
  for (const name of names) {
    const pid = new RegExp(`^${prefix}.*-(\\d+)$`).exec(name)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) removeEmpty([join(folder, name)]);
  }
}
