/**
 * Restart of a process from an image in memory (/dev/shm) to running, the whole command.
 *
 * The limit is a C program that maps as much memory and copies a page into each page of it: no restart can do
 * without these faults and copies.
 */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { compare, showRate, showRatio, showTime, table } from './harness.ts';
import type { Bench } from './session.ts';

export async function benchRestart(
  bench: Bench,
  options: { runs: number; sizes: readonly number[] },
): Promise<string> {
  const rows: string[][] = [];
  for (const mebibytes of options.sizes) {
    const bytes = mebibytes * 2 ** 20;
    const name = `again${mebibytes}`;
    const image = bench.path('image');
    const holder = await bench.hold(name, mebibytes, 'noise');
    bench.take(name, image);
    const pair = await compare(
      options.runs,
      async () => {
        bench.adopt(name);
        const seconds = bench.run(`pod-restart -d --name ${name}`, image);
        await holder.goesOn();
        bench.end(name);
        return seconds;
      },
      () => touch(bench, mebibytes),
    );
    rows.push([
      `${mebibytes} MiB`,
      showTime(pair.ours),
      showRate(bytes, pair.ours),
      `${showTime(pair.peer)}, ${showRate(bytes, pair.peer)}`,
      showRatio(pair),
    ]);
    rmSync(image);
  }
  return table(['restart', 'whole command', 'rate', 'limit: fault and copy only', 'limit / command'], rows);
}

/** Seconds that a fresh process needs to fill so much memory, as it says itself. */
function touch(bench: Bench, mebibytes: number): number {
  const { stdout, status } = spawnSync(bench.memory, ['fill', String(mebibytes)], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`memory fill ended with ${status}`);
  return Number(stdout) / 1e9;
}
