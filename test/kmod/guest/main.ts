/** The program of a test machine of the module: loads it, takes programs through it, looks at the kernel's log. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { runGuest } from '../../kernels/guest/run-guest.ts';
import { tell } from '../../kernels/guest/tell.ts';
import { cycle } from '../../tools/cycle.ts';
import { readProgram } from '../../tools/programs.ts';
import { until } from '../../tools/running-program.ts';
import { readerPath } from '../build-module.ts';
import { type KmodEvent, type KmodJob, type KmodOutcome, nameOf, type Part } from '../job.ts';
import { checkDevice } from './check-device.ts';
import { checkTimes } from './check-times.ts';
import { compareStreams } from './compare-streams.ts';
import { runKills } from './kills.ts';
import { readAllocations } from './leaks.ts';
import { runNode } from './node-session.ts';
import { runPipeline } from './pipeline.ts';
import { refuse } from './refuse.ts';
import { runRestartKills } from './restart-kills.ts';
import { checkRests } from './rests.ts';
import { runRounds } from './rounds.ts';

const say = (event: KmodEvent) => tell(event);
const saySentence = (text: string) => say({ event: 'says', text });
const busybox = (...words: string[]) => execFileSync('/run/busybox', words, { encoding: 'utf8' });

/** Text: what was measured. Throws what went wrong. */
async function outcome(
  what: string,
  body: () => Promise<string> | string,
  { good = 'ok', lacking }: { good?: 'ok' | 'refused'; lacking?: string | undefined } = {},
): Promise<void> {
  const start = performance.now();
  const done = (status: KmodOutcome['status'], story: string) =>
    say({ event: 'outcome', what, status, story, seconds: (performance.now() - start) / 1000 });
  try {
    if (lacking !== undefined) done('lacking', lacking);
    else done(good, await body());
  } catch (error) {
    done('failed', (error as Error).stack ?? String(error));
  }
}

/** For what reports `ok`, or the story of what went wrong. */
async function mustBeOk(report: Promise<string>): Promise<string> {
  const story = await report;
  if (story !== 'ok') throw new Error(story);
  return '';
}

const references = () => readFileSync('/sys/module/pod/refcnt', 'utf8').trim();

/** Nothing is left of any dump: no reference, no memory. */
async function checkLeaks(before: ReadonlyMap<string, number>): Promise<string> {
  if (!(await until(() => references() === '0'))) throw new Error(`${references()} hold the module`);
  let grown: string[] = [];
  // What is freed after a grace period is still there for a moment.
  await until(() => {
    grown = [...readAllocations()]
      .filter(([who, count]) => count > (before.get(who) ?? 0))
      .map(([who, count]) => `${count} ${who} (${before.get(who) ?? 0} when it was loaded)`);
    return grown.length === 0;
  }, 20_000);
  if (grown.length > 0) throw new Error(`the module still has:\n${grown.join('\n')}`);
  return '';
}

/** Gone, and loads again: nothing of a session has kept it. */
function unload(module: string): string {
  for (let turn = 0; turn < 3; turn++) {
    busybox('rmmod', 'pod');
    if (existsSync('/dev/pod')) throw new Error('after rmmod /dev/pod is still there');
    busybox('insmod', module);
    if (!existsSync('/dev/pod')) throw new Error('after insmod there is no /dev/pod');
  }
  busybox('rmmod', 'pod');
  return '';
}

const trouble =
  /\bBUG\b|WARNING:|Oops|Call Trace|general protection|list_(add|del) corruption|blocked for more than/;

function readLog(): string {
  const bad = busybox('dmesg')
    .split('\n')
    .filter((line) => trouble.test(line));
  if (bad.length > 0) throw new Error(bad.join('\n'));
  return '';
}

function run(part: Part): Promise<string> {
  switch (part.part) {
    case 'device':
      return mustBeOk(checkDevice().then((found) => (found === 'ok' ? checkTimes() : found)));
    case 'streams':
      return mustBeOk(compareStreams());
    case 'cycle':
      return mustBeOk(
        cycle(readProgram(part.program), {
          mode: part.mode,
          as: 'root',
          via: part.via,
          engine: 'kmod',
          commandLimit: 600_000,
        }),
      );
    case 'restart':
      return mustBeOk(
        cycle(readProgram(part.program), {
          mode: part.mode,
          as: 'root',
          via: 'pid',
          engine: part.dumper,
          restarter: 'kmod',
          commandLimit: 600_000,
        }),
      );
    case 'rests':
      return checkRests(saySentence);
    case 'restart-kills':
      return runRestartKills(part.rounds, saySentence);
    case 'node':
      return runNode(saySentence);
    case 'refused':
      return refuse(part.program);
    case 'rounds':
      return runRounds(part.rounds, saySentence);
    case 'kills':
      return runKills(part.rounds, readerPath(), saySentence);
    case 'pipeline':
      return runPipeline(part.drive);
  }
}

async function work({ module, parts }: KmodJob): Promise<void> {
  busybox('insmod', module);
  const atFirst = readAllocations();
  for (const part of parts)
    await outcome(nameOf(part), () => run(part), {
      good: part.part === 'refused' ? 'refused' : 'ok',
      lacking: 'program' in part ? readProgram(part.program).lacking : undefined,
    });
  await outcome('leaks', () => checkLeaks(atFirst));
  await outcome('unload', () => unload(module));
  await outcome('log', readLog);
}

await runGuest(work);
