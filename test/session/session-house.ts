/** A house (see test/pod/house.ts) whose user has a shell: pipelines as they stand in the README, without pipefail. */
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';
import { innerPid, pidNamespace, processesByNamespace } from '../../lib/pod/proc.ts';
import { packageRoot } from '../../native/package-root.ts';
import { type House, makeHouse, users } from '../pod/house.ts';
import { heldTasks } from '../tools/cycle.ts';
import { keepDescriptors } from '../tools/running-program.ts';

/** POD_TEST_SHORT=1, as in CI: what holds for each user is tried for one, and what is random less often. */
export const short = (process.env['POD_TEST_SHORT'] ?? '') !== '';

/** Who goes through all of a campaign. */
export const campaignUsers = short ? users.slice(-1) : users;

/**
 * What a test needs and is not here, commands or paths: it is skipped, or, with POD_TEST_NEED_ALL=1 (CI, which
 * installs everything), fails.
 */
export function lacking(needs: readonly string[]): { skip: string | false; fail?: string } {
  const missing = needs.filter((need) =>
    need.startsWith('/')
      ? !existsSync(need)
      : spawnSync('sh', ['-c', `command -v ${need}`], { env: wide }).status !== 0,
  );
  if (missing.length === 0) return { skip: false };
  const why = `${missing.join(', ')} not installed`;
  return (process.env['POD_TEST_NEED_ALL'] ?? '') === '' ? { skip: why } : { skip: false, fail: why };
}

/** Daemons lie where only root's path leads. */
const wide = { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin:/usr/games` };

/** Why a pod can have no interface that leads to its host: the kernel may lack them, a container's root the rights. */
export const noVeth = ((): string | false => {
  if (process.getuid!() !== 0) return 'only root makes networks';
  const line = 'ip link add name pod0 type veth peer name pod1';
  const { status, stderr } = spawnSync('unshare', ['-n', ...line.split(' ')], {
    env: wide,
    encoding: 'utf8',
  });
  return status === 0 ? false : `no veth interfaces: ${stderr}`;
})();

export interface Shell extends House {
  /** Run a shell line to its end. Its status is that of its last command. */
  sh(line: string, more?: Record<string, string>): Done;
  /** The same without waiting; the child leads a process group of its own. */
  background(line: string): { pid: number; end: Promise<Done> };
  /** Whole environment that the lines see. */
  environment: NodeJS.ProcessEnv;
}

export interface Done {
  /** 128 + n when the shell died of signal n. */
  status: number;
  stdout: string;
  stderr: string;
}

const signals: Record<string, number> = { SIGINT: 2, SIGKILL: 9, SIGTERM: 15, SIGPIPE: 13 };

export function makeShell(t: Test, user: string, more: Record<string, string> = {}): Shell {
  keepDescriptors();
  const house = makeHouse(t, user);
  const environment = {
    ...house.env,
    PATH: `${house.env.PATH}:/usr/sbin:/sbin:/usr/games`,
    LC_ALL: 'C',
    // Nobody's own is nologin, and a caller need not have any: programs that start a shell start this one.
    SHELL: '/bin/bash',
    // What sessions leave behind when they are killed goes with the house.
    TMPDIR: house.folder,
    EXAMPLES: join(packageRoot(), 'examples'),
    F: house.folder,
    ...more,
  };
  const prefix = user === 'nobody' ? 'setpriv --reuid=65534 --regid=65534 --clear-groups --'.split(' ') : [];
  const argv = (line: string): [string, string[]] => {
    const [program, ...rest] = [...prefix, 'bash', '-c', line];
    return [program!, rest];
  };
  let count = 0;
  // Output goes to files: a session that was started keeps nothing of ours open that we would wait for.
  const files = () => {
    count += 1;
    const paths = [join(house.folder, `out-${count}`), join(house.folder, `err-${count}`)] as const;
    return { paths, fds: [openSync(paths[0], 'w'), openSync(paths[1], 'w')] as const };
  };
  const done = (status: number | null, signal: string | null, paths: readonly [string, string]): Done => ({
    status: status ?? 128 + (signals[signal ?? ''] ?? 99),
    stdout: readFileSync(paths[0], 'utf8'),
    stderr: readFileSync(paths[1], 'utf8'),
  });
  return {
    ...house,
    environment,
    sh(line, variables = {}) {
      const { paths, fds } = files();
      const [program, rest] = argv(line);
      const result = spawnSync(program, rest, {
        cwd: '/',
        env: { ...environment, ...variables },
        stdio: ['ignore', ...fds],
        timeout: 180_000,
        killSignal: 'SIGKILL',
      });
      for (const fd of fds) closeSync(fd);
      return done(result.status, result.signal, paths);
    },
    background(line) {
      const { paths, fds } = files();
      const [program, rest] = argv(line);
      const child = spawn(program, rest, {
        cwd: '/',
        env: environment,
        stdio: ['ignore', ...fds],
        detached: true,
      });
      for (const fd of fds) closeSync(fd);
      const end = new Promise<Done>((resolve) =>
        child.once('exit', (status, signal) => resolve(done(status, signal, paths))),
      );
      return { pid: child.pid!, end };
    },
  };
}

/** A passphrase file in the house, readable for its user. */
export function writePassphrase(house: House): string {
  const path = join(house.folder, 'passphrase');
  writeFileSync(path, 'correct horse battery staple, and then some\n', { mode: 0o644 });
  return path;
}

/** Host pids of the processes of a pod, without pod-init. */
export function podProcesses(init: number): number[] {
  const space = pidNamespace(init);
  return (space === undefined ? [] : (processesByNamespace().get(space) ?? [])).filter((pid) => pid !== init);
}

/** `pid name` of each process of a pod as the pod sees it, sorted. */
export function podTree(init: number): string[] {
  return podProcesses(init)
    .flatMap((pid) => {
      try {
        return [`${innerPid(pid)} ${readFileSync(`/proc/${pid}/comm`, 'utf8').trim()}`];
      } catch {
        // It ended while we looked.
        return [];
      }
    })
    .sort();
}

/** Tasks of these processes that are stopped, traced or gone. */
export function disturbed(pids: readonly number[]): string[] {
  return pids.flatMap((pid) => {
    try {
      const state = /^State:\t(\w)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
      return state === 'T' || state === 't' || state === 'Z' ? [`${pid} is ${state}`] : heldTasks(pid);
    } catch {
      return [`${pid} is gone`];
    }
  });
}

/** All pids of this machine that run in another pid namespace than ours. */
export function foreignNamespaces(): number[] {
  const own = pidNamespace(process.pid);
  return [...processesByNamespace()].filter(([space]) => space !== own).flatMap(([, pids]) => pids);
}

/** Names of the files below a folder. */
export function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
}

/** Wait until `probe` gives something, looking every `pause` ms; throws after `limit` ms. */
export async function waitFor<T>(
  what: string | (() => string),
  probe: () => T | undefined | false,
  limit = 60_000,
  pause = 20,
): Promise<T> {
  for (const end = Date.now() + limit; ; await sleep(pause)) {
    const value = probe();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > end) throw new Error(`waited in vain: ${typeof what === 'string' ? what : what()}`);
  }
}
