/** What a user waits for with a small session: start-up of each command, and suspend and resume of a game. */
import { spawnSync } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../native/package-root.ts';
import { compare, repeat, showRatio, showTime, stopwatch, table } from './harness.ts';
import { type Bench, nap } from './session.ts';

/** Each command's --help against `node -e 0`. */
export async function benchStartUp(bench: Bench, runs: number): Promise<string> {
  const start = (program: string, args: string[]) =>
    stopwatch(() => {
      const { status } = spawnSync(program, args, { stdio: 'ignore', env: bench.environment });
      if (status !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${status}`);
    });
  const rows: string[][] = [];
  for (const folder of ['bin', 'filters'])
    for (const name of readdirSync(join(packageRoot(), 'dist', folder)).sort()) {
      if (!name.startsWith('pod')) continue;
      const program = join(packageRoot(), 'dist', folder, name);
      const pair = await compare(
        runs,
        () => start(program, ['--help']),
        () => start(process.execPath, ['-e', '0']),
      );
      rows.push([`\`${name} --help\``, showTime(pair.ours), showTime(pair.peer), showRatio(pair)]);
    }
  return table(['', 'start-up', '`node -e 0`', 'ratio'], rows);
}

/** examples/life.js, suspended and resumed: in one process, and as the pipe of separate commands. */
export async function benchLife(bench: Bench, runs: number): Promise<string> {
  const drive = bench.path('drive');
  const key = bench.path('life.key');
  const pub = bench.path('life.pub');
  bench.run(`age-keygen -o ${key} 2>/dev/null && age-keygen -y ${key} > ${pub}`);
  bench.run(`pod-run --name life -d -- node ${join(packageRoot(), 'examples/life.js')}`);
  bench.adopt('life');
  await nap(1000);
  const rows: string[][] = [];
  const line = async (what: string, suspend: string, resume: string) => {
    const back: number[] = [];
    const away = await repeat(runs, async () => {
      const seconds = bench.run(suspend);
      back.push(bench.run(resume));
      // The game draws five times a second: let it live between two suspends.
      await nap(300);
      bench.run('pod-ps | grep -q life');
      return seconds;
    });
    const resumed = { seconds: back.slice(1).sort((a, b) => a - b) };
    rows.push([what, showTime(away), showTime(resumed)]);
  };
  await line('one process, compressed', `pod suspend life ${drive}`, `pod resume -d ${drive}`);
  await line(
    'one process, compressed and encrypted',
    `pod suspend life ${drive} -R ${pub}`,
    `pod resume -d ${drive} -i ${key}`,
  );
  await line(
    'five and two commands in a pipe',
    `pod-dump --suspend life | pod-filter upgrade-2.6 | pod-filter compress | pod-filter encrypt -R ${pub} | pod-store ${drive}`,
    `pod-load ${drive} | pod-restart -d -i ${key}`,
  );
  bench.end('life');
  rmSync(drive, { recursive: true });
  return table(['examples/life.js', 'suspend', 'resume'], rows);
}
