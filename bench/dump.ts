/**
 * Dump of a process: the whole command, into nothing and into a pipe, and how long the session stands still.
 *
 * The limit is reading the same bytes out of the same process by process_vm_readv in calls of 1 MiB, with nothing
 * done to them: what is above it is our work.
 */
import { native } from '../native/index.ts';
import {
  compare,
  median,
  repeat,
  type Sample,
  showRate,
  showRatio,
  showTime,
  stopwatch,
  table,
} from './harness.ts';
import type { Bench } from './session.ts';

const chunk = 1 << 20;

export async function benchDump(
  bench: Bench,
  options: { runs: number; sizes: readonly number[] },
): Promise<string> {
  const rows: string[][] = [];
  for (const mebibytes of options.sizes) {
    const bytes = mebibytes * 2 ** 20;
    const name = `hold${mebibytes}`;
    const holder = await bench.hold(name, mebibytes, 'noise');
    const { pid } = holder;
    const buffer = new Uint8Array(chunk);
    const limit = () =>
      stopwatch(() => {
        for (let at = 0; at < bytes; at += chunk) native().readMemory(pid, holder.start + BigInt(at), buffer);
      });
    for (const [what, output] of [
      ['to /dev/null', ''],
      ['through a pipe to `cat`', ' | cat'],
    ] as const) {
      const gaps: number[] = [];
      const pair = await compare(
        options.runs,
        async () => {
          holder.forget();
          const seconds = bench.run(`pod-dump ${name}${output}`);
          await holder.goesOn();
          gaps.push(holder.beats().longestGap);
          return seconds;
        },
        limit,
      );
      const stopped: Sample = { seconds: gaps.slice(1).sort((a, b) => a - b) };
      rows.push([
        `${mebibytes} MiB ${what}`,
        showTime(pair.ours),
        showTime(stopped),
        showRate(bytes, stopped),
        `${showTime(pair.peer)}, ${showRate(bytes, pair.peer)}`,
        (median(pair.peer.seconds) / median(stopped.seconds)).toFixed(2),
        showRatio(pair),
      ]);
    }
    bench.end(name);
  }
  return table(
    [
      'dump',
      'whole command',
      'session stopped',
      'memory while stopped',
      'limit: read only',
      'limit / stopped',
      'limit / command',
    ],
    rows,
  );
}

/** What is stopped and written when there is next to nothing to save. */
export async function benchSmallDump(bench: Bench, runs: number): Promise<Sample> {
  const holder = await bench.hold('tiny', 1, 'noise');
  const gaps: number[] = [];
  await repeat(runs, async () => {
    holder.forget();
    bench.run('pod-dump tiny');
    await holder.goesOn();
    gaps.push(holder.beats().longestGap);
    return 0;
  });
  bench.end('tiny');
  return { seconds: gaps.slice(1).sort((a, b) => a - b) };
}
