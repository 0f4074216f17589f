/** Many processes connected by pipes and sockets, and a process of many threads: dump and restart, whole commands. */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { repeat, showTime, table } from './harness.ts';
import { type Bench, Holder, nap } from './session.ts';

export async function benchTree(
  bench: Bench,
  options: { runs: number; trees: readonly { processes: number; threads: number }[] },
): Promise<string> {
  const rows: string[][] = [];
  for (const { processes, threads } of options.trees) {
    const name = `tree${processes}x${threads}`;
    const told = bench.path(`${name}.told`);
    const image = bench.path('image');
    bench.run(`pod-run --name ${name} --cwd / -d -- ${bench.tree} ${told} ${processes} ${threads}`);
    bench.adopt(name);
    while (!existsSync(told) || !readFileSync(told, 'utf8').endsWith('\n')) await nap(20);
    const holder = new Holder(() => bench.mainProcess(name), readFileSync(told, 'utf8'));
    const dumps = await repeat(options.runs, async () => {
      await holder.goesOn();
      return bench.run(`pod-dump ${name}`, '/dev/null', image);
    });
    bench.take(name, image);
    const restarts = await repeat(options.runs, async () => {
      bench.adopt(name);
      const seconds = bench.run(`pod-restart -d --name ${name}`, image);
      await holder.goesOn();
      bench.end(name);
      return seconds;
    });
    rows.push([String(processes), String(threads), showTime(dumps), showTime(restarts)]);
    rmSync(image);
  }
  return table(['processes', 'more threads each', 'dump', 'restart'], rows);
}
