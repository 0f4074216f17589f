/**
 * What every benchmark here is made of: two things timed in turn in one session (A B, B A, A B …, so that a machine
 * that grows slower or faster meets both alike), medians with their spread, the ratio of each pair, and a Markdown
 * table. A number without its peer means little on a machine that others use too; the ratio means something.
 */
import { readFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';

/** Seconds that one run took. */
export type Run = () => number | Promise<number>;

export interface Sample {
  /** Seconds, sorted. */
  seconds: number[];
}

export interface Pair {
  ours: Sample;
  peer: Sample;
  /** Seconds of the peer through ours, pair by pair, sorted: above 1 means that ours is faster. */
  ratios: number[];
}

export const byValue = (a: number, b: number): number => a - b;

/** Of a sorted list. */
export function median(sorted: readonly number[]): number {
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Seconds that `body` takes. */
export async function stopwatch(body: () => unknown): Promise<number> {
  const start = performance.now();
  await body();
  return (performance.now() - start) / 1000;
}

/** `runs` times both, in turn, after one run of each that does not count (caches, pages of the programs). */
export async function compare(runs: number, ours: Run, peer: Run): Promise<Pair> {
  await ours();
  await peer();
  const pairs: [number, number][] = [];
  for (let index = 0; index < runs; index += 1) {
    if (index % 2 === 0) {
      const first = await ours();
      pairs.push([first, await peer()]);
    } else {
      const first = await peer();
      pairs.push([await ours(), first]);
    }
  }
  return {
    ours: { seconds: pairs.map(([seconds]) => seconds).sort(byValue) },
    peer: { seconds: pairs.map(([, seconds]) => seconds).sort(byValue) },
    ratios: pairs.map(([a, b]) => b / a).sort(byValue),
  };
}

/** One thing alone, `runs` times after one that does not count. */
export async function repeat(runs: number, body: Run): Promise<Sample> {
  await body();
  const seconds: number[] = [];
  for (let index = 0; index < runs; index += 1) seconds.push(await body());
  return { seconds: seconds.sort(byValue) };
}

/** `123 ms (119–140)`: median, least and most. */
export function showTime(sample: Sample): string {
  const { seconds } = sample;
  const scale = median(seconds) < 2 ? ([1000, 'ms', 0] as const) : ([1, 's', 2] as const);
  const show = (value: number) => (value * scale[0]).toFixed(scale[2]);
  return `${show(median(seconds))} ${scale[1]} (${show(seconds[0]!)}–${show(seconds.at(-1)!)})`;
}

/** `1.42 GB/s`, of the median. */
export function showRate(bytes: number, sample: Sample): string {
  const rate = bytes / median(sample.seconds);
  return rate < 1e9 ? `${Math.round(rate / 1e6)} MB/s` : `${(rate / 1e9).toFixed(2)} GB/s`;
}

/** `1.24 (1.20–1.31)`. */
export function showRatio(pair: Pair): string {
  const { ratios } = pair;
  return `**${median(ratios).toFixed(2)}** (${ratios[0]!.toFixed(2)}–${ratios.at(-1)!.toFixed(2)})`;
}

/** A Markdown table, its columns aligned for readers of the source too. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => [...row[column]!].length)));
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, column) => cell + ' '.repeat(widths[column]! - [...cell].length)).join(' | ')} |`;
  return [line(head), `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`, ...rows.map(line)].join(
    '\n',
  );
}

/** The three averages of /proc/loadavg. */
export function loadAverage(): string {
  return readFileSync('/proc/loadavg', 'latin1').split(' ').slice(0, 3).join(' ');
}

/** Jiffies that the hypervisor gave to others, and all, of /proc/stat since boot. */
function jiffies(): { stolen: number; all: number; idle: number } {
  const fields = readFileSync('/proc/stat', 'latin1')
    .split('\n')[0]!
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return {
    stolen: fields[7] ?? 0,
    idle: fields[3]!,
    all: fields.slice(0, 8).reduce((sum, each) => sum + each, 0),
  };
}

/** Watches what else the machine does meanwhile; ask at the end. */
export function watchMachine(): () => string {
  const before = jiffies();
  const load = loadAverage();
  return () => {
    const after = jiffies();
    const share = (100 * (after.stolen - before.stolen)) / Math.max(after.all - before.all, 1);
    return `load average ${load} before, ${loadAverage()} after; ${share.toFixed(1)} % of the processors' time was given to other machines`;
  };
}

export function machine(): string {
  const list = cpus();
  return `${list.length} × ${list[0]?.model ?? 'unknown'}, ${(totalmem() / 2 ** 30).toFixed(0)} GiB, Linux ${release()}, Node ${process.version}`;
}
