/** The program of a test machine: reads its job, does it, tells each outcome. Never run by hand. */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync } from 'node:fs';
import { cycle } from '../../tools/cycle.ts';
import { readProgram } from '../../tools/programs.ts';
import { once } from '../../tools/refused.ts';
import { isHidden, type Job, type Mount, mustRefuse, type ProgramJob } from '../job.ts';
import { runGuest } from './run-guest.ts';
import { Session } from './session.ts';
import { tell } from './tell.ts';
import { runTest } from './tests.ts';

function mount({ device, path }: Mount): void {
  mkdirSync(path, { recursive: true });
  execFileSync('/run/busybox', ['mount', '-t', 'ext4', device, path]);
  chmodSync(path, 0o755);
}

function unmount({ path }: Mount): void {
  execFileSync('/run/busybox', ['umount', path]);
}

/** Told instead of tried: what the program needs is not here, or the user engine can't see it. */
function tellLacking(
  { kind: step, kernel, ...job }: Extract<Job, { kind: 'dump' | 'cycle' }>,
  { name, as }: ProgramJob,
): boolean {
  const unseen = !('module' in job) && isHidden(name, kernel) ? 'this kernel tells nobody of it' : undefined;
  const lacking = readProgram(name).lacking ?? unseen;
  if (lacking !== undefined)
    tell({ event: 'outcome', step, program: name, as, status: 'lacking', story: lacking, seconds: 0 });
  return lacking !== undefined;
}

async function cycleOne(kernel: string, place: Mount, { name, as }: ProgramJob): Promise<void> {
  process.env['TMPDIR'] = place.path;
  const start = performance.now();
  const refused = mustRefuse({ name, as }, kernel);
  const report = await cycle(readProgram(name), {
    mode: refused ? 'refused' : once.has(name) ? 'once' : 'restart',
    as,
  });
  tell({
    event: 'outcome',
    step: 'cycle',
    program: name,
    as,
    status: report !== 'ok' ? 'program' : refused ? 'refused' : 0,
    story: report === 'ok' ? '' : report,
    seconds: (performance.now() - start) / 1000,
  });
}

async function work(job: Job): Promise<void> {
  if (job.kind === 'restart') {
    for (const { from, mount: place, programs } of job.sources) {
      mount(place);
      for (const program of programs)
        tell(await new Session(place, program).step('restart', job.kernel, from));
    }
    return;
  }
  if (job.kind === 'tests') {
    for (const file of job.files) await runTest(file);
    return;
  }
  mount(job.mount);
  const module = job.kind === 'dump' ? job.module : undefined;
  if (module !== undefined) execFileSync('/run/busybox', ['insmod', module]);
  for (const program of job.programs) {
    if (tellLacking(job, program)) continue;
    if (job.kind === 'dump')
      tell(
        await new Session(job.mount, program, module === undefined ? 'user' : 'kmod').step(
          'dump',
          job.kernel,
        ),
      );
    else await cycleOne(job.kernel, job.mount, program);
  }
  // What another machine shall find must be on the disk.
  if (job.kind === 'dump') unmount(job.mount);
}

await runGuest(work);
