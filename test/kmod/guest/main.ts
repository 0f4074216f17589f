/** The program of a test machine of the module: loads it, takes programs through it, looks at the kernel's log. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { tell } from '../../kernels/guest/tell.ts';
import { jobPath } from '../../kernels/initramfs.ts';
import type { ProgramJob } from '../../kernels/job.ts';
import { cycle } from '../../tools/cycle.ts';
import { readProgram } from '../../tools/programs.ts';
import { keepDescriptors } from '../../tools/running-program.ts';
import type { KmodEvent, KmodJob } from '../job.ts';
import { checkDevice } from './check-device.ts';
import { compareStreams } from './compare-streams.ts';

const say = (event: KmodEvent) => tell(event);
const busybox = (...words: string[]) => execFileSync('/run/busybox', words, { encoding: 'utf8' });

async function outcome(what: string, body: () => Promise<string> | string): Promise<void> {
  const start = performance.now();
  let report: string;
  try {
    report = await body();
  } catch (error) {
    report = (error as Error).stack ?? String(error);
  }
  say({ event: 'outcome', what, report, seconds: (performance.now() - start) / 1000 });
}

const nameOf = ({ name, as }: ProgramJob) => (as === 'nobody' ? `${name} (user)` : name);

/** Gone, and loads again: nothing of a session has kept it. */
function unload(module: string): string {
  for (let turn = 0; turn < 3; turn++) {
    busybox('rmmod', 'pod');
    if (existsSync('/dev/pod')) return 'after rmmod /dev/pod is still there';
    busybox('insmod', module);
    if (!existsSync('/dev/pod')) return 'after insmod there is no /dev/pod';
  }
  busybox('rmmod', 'pod');
  return 'ok';
}

const trouble =
  /\bBUG\b|WARNING:|Oops|Call Trace|general protection|list_(add|del) corruption|blocked for more than/;

function readLog(): string {
  const bad = busybox('dmesg')
    .split('\n')
    .filter((line) => trouble.test(line));
  return bad.length === 0 ? 'ok' : bad.join('\n');
}

async function work(job: KmodJob): Promise<void> {
  busybox('insmod', job.module);
  await outcome('device', checkDevice);
  await outcome('streams', compareStreams);
  for (const program of job.handled)
    await outcome(nameOf(program), () =>
      cycle(readProgram(program.name), { mode: 'thrice', as: program.as, via: 'pid', engine: 'kmod' }),
    );
  for (const program of job.refused)
    await outcome(`refused ${nameOf(program)}`, () =>
      cycle(readProgram(program.name), { mode: 'refused', as: program.as, via: 'pid', engine: 'kmod' }),
    );
  await outcome('unload', () => unload(job.module));
  await outcome('log', readLog);
}

keepDescriptors();
try {
  say({ event: 'up', release: release() });
  await work(JSON.parse(readFileSync(jobPath, 'utf8')) as KmodJob);
  say({ event: 'done' });
} catch (error) {
  say({ event: 'error', message: (error as Error).stack ?? String(error) });
  process.exitCode = 1;
}
