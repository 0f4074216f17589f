/**
 * One session through many generations in one boot: dumped by the module, killed, restarted by the user engine, again
 * and again. Nothing of the kernel's memory may be lost on the way, and no round may take longer than the first ones.
 */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { Collector } from '../../../lib/filter/check/sample.ts';
import { dumpSession, findSession } from '../../../lib/session/dump-session.ts';
import { restartSession } from '../../../lib/session/restart-session.ts';
import { until } from '../../tools/running-program.ts';
import { finishPlain, startPlain } from './plain-session.ts';

/** Much in one: several processes, threads, pipes with content of every kind. */
const program = 'pipes';
const runtime = '/run/pod-rounds';

/**
 * Growth that is noise, KiB. What is on its way (buffers of 9p, lists of the processors) comes and goes by ten megabytes,
 * so the least of each half is compared; three pages lost in each of 1,000 rounds are more.
 */
const noise = 4096;
/** How often memory is looked at. */
const looks = 20;
/** A round may take this often the time of the first ones: guests share a busy computer. */
const slower = 6;
/** Rounds below which a tenth is too few to compare. */
const enough = 50;

interface Memory {
  /** KiB that are in use and that no counter of the kernel accounts for: pages whose last reference never goes. */
  unaccounted: number;
  slab: number;
}

function readMemory(): Memory {
  // Whatever can go is not in use.
  writeFileSync('/proc/sys/vm/drop_caches', '3');
  const text = readFileSync('/proc/meminfo', 'utf8');
  const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0);
  const sum = (...names: string[]) => names.reduce((total, name) => total + field(name), 0);
  const known = ['MemFree', 'Buffers', 'Cached', 'AnonPages', 'Slab', 'KernelStack', 'PageTables', 'Percpu'];
  return { unaccounted: field('MemTotal') - sum(...known, 'VmallocUsed'), slab: field('SUnreclaim') };
}

const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]!;

/** What it found. Throws when a round fails, or memory or time grows. */
export async function runRounds(rounds: number, say: (sentence: string) => void): Promise<string> {
  mkdirSync(runtime, { recursive: true });
  chmodSync(runtime, 0o700);
  process.env['POD_RUNTIME_DIR'] = runtime;
  const session = await startPlain(program);
  const { running } = session;
  const dumps: number[] = [];
  const restarts: number[] = [];
  const memory: Memory[] = [];
  let target = String(session.pid);
  let round = 0;
  try {
    for (; round < rounds; round++) {
      if (round % Math.ceil(rounds / looks) === 0) memory.push(readMemory());
      const image = new Collector();
      let start = performance.now();
      await dumpSession(findSession(target), { producer: 'test', fate: 'kill', engine: 'kmod' }, image);
      dumps.push(performance.now() - start);
      if (!(await until(() => running.pids().length === 0)))
        throw new Error(`alive after its end: ${running.pids()}`);
      const { bytes } = image;
      let at = 0;
      const source = (buffer: Uint8Array) => {
        const piece = bytes.subarray(at, at + buffer.length);
        buffer.set(piece);
        at += piece.length;
        return piece.length;
      };
      start = performance.now();
      target = `round-${round}`;
      await restartSession(source, { name: target, open: (sink) => sink, warn: say });
      restarts.push(performance.now() - start);
      await running.beatOn(1);
      if ((round + 1) % 10 === 0) say(`${round + 1} rounds`);
    }
    await finishPlain(session);
  } catch (cause) {
    throw new Error(`round ${round + 1}: ${(cause as Error).stack}; ${running.result ?? ''}`, { cause });
  } finally {
    await running.remove();
  }
  memory.push(readMemory());
  return judge(dumps, restarts, memory);
}

function judge(dumps: readonly number[], restarts: readonly number[], memory: readonly Memory[]): string {
  const tenth = Math.max(1, Math.floor(dumps.length / 10));
  const times = Object.entries({ dump: dumps, restart: restarts }).map(([name, all]) => ({
    name,
    first: median(all.slice(0, tenth)),
    last: median(all.slice(-tenth)),
  }));
  const least = (some: readonly Memory[]) => Math.min(...some.map(({ unaccounted }) => unaccounted));
  const half = memory.length >> 1;
  const grown = least(memory.slice(half)) - least(memory.slice(0, half));
  const found = [
    ...times.map(
      ({ name, first, last }) =>
        `${name}: ${first.toFixed(0)} ms in the first tenth, ${last.toFixed(0)} ms in the last`,
    ),
    `KiB that nobody accounts for, over the time: ${memory.map(({ unaccounted }) => unaccounted).join(' ')}`,
    `slab: ${memory.map(({ slab }) => slab).join(' ')}`,
  ].join('; ');
  if (dumps.length >= enough && times.some(({ first, last }) => last > slower * first + 200))
    throw new Error(`the rounds take longer and longer: ${found}`);
  if (grown > noise) throw new Error(`memory is lost: ${found}`);
  return found;
}
