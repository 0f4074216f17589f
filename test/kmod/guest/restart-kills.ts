/**
 * pod-restart --engine kmod killed with SIGKILL at random moments: no process of the session is left, or it was done
 * and the session runs. That the module holds nothing of it the last checks see.
 */
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../../native/package-root.ts';
import { until } from '../../tools/running-program.ts';
import { finishPlain, startPlain } from './plain-session.ts';

const program = 'pipes';
const folder = '/run/pod-restart-kills';
const name = 'killed';

const environment = () => ({
  PATH: `${join(packageRoot(), 'dist/bin')}:${process.env['PATH']}`,
  POD_RUNTIME_DIR: folder,
});

/** Its exit status, or the signal that ended it; `after`: ms until it is killed. */
async function restart(image: string, after?: number): Promise<number | string> {
  const child = spawn('pod-restart', ['--engine', 'kmod', '-d', '--name', name], {
    // A file: the pod keeps it.
    stdio: [openSync(image, 'r'), 'ignore', openSync(join(folder, 'errors'), 'w')],
    env: environment(),
    cwd: '/',
  });
  const ended = new Promise<number | string>((resolve) =>
    child.on('exit', (code, signal) => resolve(code ?? signal ?? 'gone')),
  );
  if (after !== undefined) {
    await sleep(after);
    child.kill('SIGKILL');
  }
  return ended;
}

/** How many kills came before it was done. Throws when anything is left of one, or of the session lost. */
export async function runRestartKills(rounds: number, say: (sentence: string) => void): Promise<string> {
  mkdirSync(folder, { recursive: true });
  chmodSync(folder, 0o700);
  const image = join(folder, 'image');
  const session = await startPlain(program);
  const { running } = session;
  const must = (status: number | string) => {
    if (status !== 0)
      throw new Error(`pod-restart ended with ${status}: ${readFileSync(join(folder, 'errors'), 'utf8')}`);
  };
  const end = async () => {
    execFileSync('pod-kill', [name], { env: environment(), stdio: 'ignore' });
    if (!(await until(() => running.pids().length === 0))) throw new Error('alive after pod-kill');
  };
  let early = 0;
  try {
    execFileSync('/bin/sh', ['-c', `exec pod-dump --engine kmod --then kill ${session.pid} > ${image}`], {
      env: environment(),
    });
    const start = performance.now();
    must(await restart(image));
    const whole = performance.now() - start;
    await running.beatOn(1);
    await end();
    for (let round = 0; round < rounds; round++) {
      const status = await restart(image, Math.random() * whole);
      if (status === 0) {
        await running.beatOn(1);
        await end();
      } else if (status === 'SIGKILL') {
        early += 1;
        if (!(await until(() => running.pids().length === 0)))
          throw new Error(`round ${round + 1}: alive after the end of pod-restart: ${running.pids()}`);
      } else must(status);
      if ((round + 1) % 10 === 0) say(`${round + 1} restarts`);
    }
    must(await restart(image));
    await finishPlain(session);
    return `${early} of ${rounds} before it was done`;
  } finally {
    await running.remove();
  }
}
