/**
 * What a pod costs the session in it: the calls of WebPod's table 1, made by one program outside, one in a pod, and
 * one in a confined pod. They are asked in turn, in slices of some milliseconds of processor time, so that what else
 * the machine does meets all alike; a ratio is that of two neighbouring slices.
 */
import { spawn } from 'node:child_process';
import { closeSync, copyFileSync, mkdirSync, openSync, readSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { packageRoot } from '../native/package-root.ts';
import { compare, median, type Pair, table } from './harness.ts';
import type { Bench } from './session.ts';

/** Name for the program, for people, and how many make a slice. */
const tests = [
  ['getpid', 'getpid', 5000],
  ['ioctl', 'ioctl (FIONREAD)', 5000],
  ['semaphore', 'semget + semctl', 1000],
  ['fork', 'fork + exit', 20],
  ['shell', 'fork + sh', 4],
] as const;

/** A program that waits to be asked. */
class Subject {
  readonly #in: number;
  readonly #out: number;

  constructor(folder: string, seen: string, start: (fifos: string) => void, bench: Bench) {
    bench.run(`mkfifo -m 666 ${join(folder, 'in')} ${join(folder, 'out')}`);
    start(`${join(seen, 'in')} ${join(seen, 'out')}`);
    // In the order in which the program opens them.
    this.#in = openSync(join(folder, 'in'), 'w');
    this.#out = openSync(join(folder, 'out'), 'r');
  }

  /** Seconds. */
  ask(name: string, count: number): number {
    writeSync(this.#in, `${name} ${count}\n`);
    const answer = Buffer.alloc(64);
    const length = readSync(this.#out, answer);
    if (length === 0) throw new Error(`the program that does ${name} ended`);
    return Number(answer.toString('latin1', 0, length)) / 1e9;
  }

  close(): void {
    closeSync(this.#in);
    closeSync(this.#out);
  }
}

export async function benchOverhead(bench: Bench, runs: number): Promise<string> {
  const folder = (name: string) => {
    mkdirSync(bench.path(name), { mode: 0o755 });
    return bench.path(name);
  };
  const root = folder('root');
  mkdirSync(join(root, 'bin'));
  // The same program for all.
  const program = join(root, 'bin/overhead');
  bench.run(`cc -O2 -static -Wall -o ${program} ${join(packageRoot(), 'bench/overhead.c')}`);
  copyFileSync('/bin/sh', join(root, 'bin/sh'));
  for (const [library] of bench.ask('ldd /bin/sh').matchAll(/\/\S+/g)) {
    mkdirSync(join(root, dirname(library)), { recursive: true });
    copyFileSync(library, join(root, library));
  }

  const outside = new Subject(
    folder('outside'),
    bench.path('outside'),
    (fifos) =>
      void spawn(program, fifos.split(' '), { detached: true, stdio: ['ignore', 'ignore', 'inherit'] }),
    bench,
  );
  const inPod = (name: string, options: string, line: string) => {
    bench.run(`pod-run --name ${name} -d ${options} -- ${line}`);
    bench.adopt(name);
  };
  const inside = new Subject(
    folder('inside'),
    bench.path('inside'),
    (fifos) => inPod('overhead', '', `${program} ${fifos}`),
    bench,
  );
  const confined = new Subject(
    root,
    '/',
    (fifos) => inPod('overhead-confined', `--root ${root}`, `overhead ${fifos}`),
    bench,
  );

  const rows: string[][] = [];
  for (const [name, title, count] of tests) {
    const measure = (subject: Subject) =>
      compare(
        runs,
        () => subject.ask(name, count),
        () => outside.ask(name, count),
      );
    const [plain, shut] = [await measure(inside), await measure(confined)];
    const time = (seconds: readonly number[]) => show(median(seconds) / count);
    rows.push([
      title,
      time(plain.peer.seconds),
      time(plain.ours.seconds),
      cost(plain),
      time(shut.ours.seconds),
      cost(shut),
    ]);
  }
  for (const subject of [outside, inside, confined]) subject.close();
  // Their programs end with their input, and the pods with them.
  bench.forget('overhead');
  bench.forget('overhead-confined');
  return table(['', 'outside', 'pod', 'cost', 'confined pod', 'cost'], rows);
}

function show(seconds: number): string {
  return seconds < 1e-5 ? `${(seconds * 1e9).toFixed(0)} ns` : `${(seconds * 1e6).toFixed(0)} µs`;
}

/** Of the neighbouring slices: half of them cost less. */
function cost({ ratios }: Pair): string {
  const inverse = ratios.map((ratio) => 1 / ratio).sort((a, b) => a - b);
  const percent = (ratio: number) => `${ratio < 1 ? '−' : '+'}${Math.abs(100 * (ratio - 1)).toFixed(1)} %`;
  const at = (share: number) => inverse[Math.floor(share * (inverse.length - 1))]!;
  return `**${percent(median(inverse))}** (${percent(at(0.25))} to ${percent(at(0.75))})`;
}
