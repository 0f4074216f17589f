import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t from 'tap';
import { createPod } from '../../lib/pod/create.ts';
import { killPod } from '../../lib/pod/kill.ts';
import { readStat } from '../../lib/pod/proc.ts';
import { native } from '../../native/index.ts';
import { packageRoot } from '../../native/package-root.ts';
import { type House, makeHouse, until, users } from './house.ts';

interface Holder {
  child: ChildProcess;
  /** The next line it prints. */
  answer(): Promise<Record<string, unknown>>;
  say(line: string): void;
}

function hold(house: House, ...args: string[]): Holder {
  // line() runs a command of dist/bin; this tool lies elsewhere.
  const prefix = house.line('x').slice(0, -1) as [string, ...string[]];
  const [program, ...list] = [...prefix, join(packageRoot(), 'dist/esm/test/tools/hold-pod.js'), ...args];
  const child = spawn(program!, list, { env: house.env, cwd: '/', stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  return {
    child,
    answer: async () => JSON.parse((await lines.next()).value ?? 'null'),
    say: (line) => void child.stdin!.write(`${line}\n`),
  };
}

const isGone = (pid: number) => ['Z', 'X', undefined].includes(readStat(pid)?.state);

for (const user of users) {
  t.test(`a held pod, as ${user}`, async (t) => {
    const house = makeHouse(t, user);
    const holder = hold(house, 'held');
    t.teardown(() => holder.child.kill('SIGKILL'));
    const made = await holder.answer();
    const init = made.init as number;
    t.equal(made.console, '/dev/pts/0');
    t.match(house.ps(), [{ name: 'held', init, main: 0, state: 'held', processes: 0 }]);
    t.equal(house.run('pod-run', ['--name', 'held', '--', 'true']).status, 1, 'its name is taken');
    t.strictSame(
      readdirSync(`/proc/${init}/fd`),
      ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'],
      'as documented',
    );
    t.equal(readdirSync(`/proc/${init}/task`).length, 1);
    const maps = readFileSync(`/proc/${init}/maps`, 'latin1').trim().split('\n');
    t.ok(maps.length <= 12, maps.join('\n'));
    t.notMatch(maps.join('\n'), '[heap]');
    for (const line of maps.filter((one) => /pod-init/.test(one))) {
      t.ok(Number.parseInt(line, 16) < 0x40_0000, 'below where programs lie');
    }

    // What the engine does by remote clone, nsenter does well enough here.
    const space = house.uid === 0 ? [] : ['-U', '--preserve-credentials'];
    const [as, ...asRest] = house.line('x').slice(0, -2).concat('nsenter') as [string, ...string[]];
    const sleeper = spawn(
      as,
      [...asRest, '-t', String(init), ...space, '-p', '-m', '-r', '-w', 'sleep', '1000'],
      { stdio: 'ignore' },
    );
    t.teardown(() => sleeper.kill('SIGKILL'));
    await until(t, 'inside', () => house.ps()[0]?.processes === 1);
    holder.say('adopt 2');
    t.match(await holder.answer(), { name: 'held', init, main: 2, held: false });
    t.match(house.ps(), [{ name: 'held', main: 2, state: 'running', processes: 1 }]);
    t.strictSame(readdirSync(`/proc/${init}/fd`), ['0', '1', '2', '4', '5', '6', '7', '8', '9']);
    holder.child.kill('SIGKILL');
    await until(t, 'the holder is gone', () => holder.child.signalCode !== null);
    t.equal(house.ps().length, 1, 'adopted: it lives without its holder');
    t.equal(house.run('pod-kill', ['held']).status, 0);
    t.ok(isGone(init));
    t.strictSame(house.files(), []);
  });

  t.test(`held pods that come to nothing, as ${user}`, async (t) => {
    const house = makeHouse(t, user);
    for (const word of ['kill', 'destroy', 'adopt 77', 'adopt 1', 'adopt 0']) {
      const holder = hold(house, 'held');
      t.teardown(() => holder.child.kill('SIGKILL'));
      const { init } = (await holder.answer()) as { init: number };
      if (word === 'kill') holder.child.kill('SIGKILL');
      else {
        holder.say(word);
        const answer = await holder.answer();
        if (word !== 'destroy') t.match(answer, { error: 'the main process is not in the pod' });
        holder.child.stdin!.end();
      }
      await until(t, `gone after ${word}`, () => isGone(init) && house.files().length === 0);
      await new Promise((resolve) =>
        (holder.child.exitCode ?? holder.child.signalCode) !== null
          ? resolve(0)
          : holder.child.on('exit', resolve),
      );
      t.strictSame(house.files(), [], word);
    }
  });

  t.test(`no pod is left when it cannot be made, as ${user}`, (t) => {
    const house = makeHouse(t, user);
    const program = join(packageRoot(), 'build/Release/pod-init');
    const bare = spawnSync(program, ['--folder', house.folder, '--name', 'x', '--user'], {
      stdio: ['ignore', 'ignore', 'ignore', 'ignore'],
      timeout: 60_000,
    });
    t.equal(bare.status, 0, 'its parent part is done');
    const wrong = spawnSync(program, ['--nonsense'], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
      timeout: 60_000,
    });
    t.equal(wrong.status, 1);
    t.match(String(wrong.output[3]), 'error --nonsense 22');
    t.end();
  });
}

t.test('a pod whose processes we trace ourselves', async (t) => {
  const house = makeHouse(t, users[0]!);
  const { POD_RUNTIME_DIR: before } = process.env;
  process.env.POD_RUNTIME_DIR = house.folder;
  t.teardown(() => {
    if (before === undefined) delete process.env.POD_RUNTIME_DIR;
    else process.env.POD_RUNTIME_DIR = before;
  });
  const { entry } = await createPod({ name: 'traced', command: ['sleep', '1000'], cwd: '/' });
  const { mainHost } = house.ps()[0]!;
  native().seize(mainHost, 0);
  await killPod(entry);
  t.ok(isGone(entry.init));
  t.equal(readStat(mainHost), undefined, 'reaped');
  t.strictSame(house.files(), []);
});
