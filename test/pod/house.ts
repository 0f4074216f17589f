/** A runtime directory of its own for a test, the commands in it, and a clean end whatever happens. */
import { spawn, spawnSync } from 'node:child_process';
import { chownSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';
import { isAlive } from '../../lib/pod/proc.ts';
import { packageRoot } from '../../native/package-root.ts';
import { removeFolder } from '../tools/remove-folder.ts';

export interface Outcome {
  status: number | null;
  stdout: string;
  stderr: string;
}

export interface House {
  /** Who runs the commands. */
  user: string;
  uid: number;
  /** A folder of this user, removed at the end. */
  folder: string;
  env: NodeJS.ProcessEnv;
  /** Argument list that runs dist/bin/NAME as the user. */
  line(name: string, ...args: string[]): [string, ...string[]];
  run(name: string, args: string[], input?: string | Buffer): Outcome;
  /** The same without waiting. */
  start(name: string, args: string[], stdio?: 'ignore' | 'pipe'): ReturnType<typeof spawn>;
  /** Files of pods in the runtime directory. */
  files(): string[];
  /** pod-ps --json. */
  ps(): { name: string; init: number; state: string; processes: number; memory: number; mainHost: number }[];
}

const nobody = 65534;

/** As root the pods of root and of an ordinary user are tried; otherwise one's own. */
export const users = process.getuid!() === 0 ? ['root', 'nobody'] : ['self'];

export function makeHouse(t: Test, user: string): House {
  const folder = mkdtempSync(join(tmpdir(), 'pod-test-'));
  const uid = user === 'nobody' ? nobody : process.getuid!();
  if (user === 'nobody') chownSync(folder, nobody, nobody);
  const bin = join(packageRoot(), 'dist/bin');
  const env = { ...process.env, POD_RUNTIME_DIR: folder, PATH: `${bin}:${process.env.PATH}` };
  const prefix =
    user === 'nobody' ? ['setpriv', `--reuid=${nobody}`, `--regid=${nobody}`, '--clear-groups'] : [];
  const line = (name: string, ...args: string[]) =>
    [...prefix, process.execPath, join(bin, name), ...args] as [string, ...string[]];
  const house: House = {
    user,
    uid,
    folder,
    env,
    line,
    run(name, args, input = '') {
      const [program, ...list] = line(name, ...args);
      const result = spawnSync(program, list, { env, input, timeout: 60_000, cwd: '/', maxBuffer: 1 << 28 });
      return { status: result.status, stdout: result.stdout.toString(), stderr: result.stderr.toString() };
    },
    start(name, args, stdio = 'ignore') {
      const [program, ...list] = line(name, ...args);
      return spawn(program, list, { env, cwd: '/', stdio: [stdio, stdio, stdio] });
    },
    files: () => {
      try {
        return readdirSync(join(folder, 'pods')).sort();
      } catch {
        return [];
      }
    },
    ps: () => JSON.parse(house.run('pod-ps', ['--json']).stdout),
  };
  t.teardown(async () => {
    for (const file of house.files().filter((name) => name.endsWith('.json'))) {
      const entry = JSON.parse(readFileSync(join(folder, 'pods', file), 'utf8'));
      if (!isAlive(entry.init, entry.initStart)) continue;
      process.kill(entry.init, 'SIGKILL');
      for (let turn = 0; turn < 200 && isAlive(entry.init, entry.initStart); turn++) await sleep(20);
    }
    removeFolder(folder);
  });
  return house;
}

/** Wait until something holds; fails the test after a minute. */
export async function until(t: Test, what: string, holds: () => boolean): Promise<void> {
  for (let turn = 0; turn < 3000; turn++) {
    if (holds()) return;
    await sleep(20);
  }
  t.fail(`waited in vain: ${what}`);
}
