/**
 * Every self-checking program through the engine. By default two ways a program that together touch everything
 * (a pid and a pod, root and an ordinary user, no restart, three in a row); POD_TEST_FULL=1 runs them all,
 * POD_TEST_PROGRAMS=a,b only some programs.
 */
import t from 'tap';
import { type CycleOptions, cycle } from '../tools/cycle.ts';
import { listPrograms, type Program } from '../tools/programs.ts';
import { isRefused, once } from '../tools/refused.ts';

const isRoot = process.getuid!() === 0;
const wanted = process.env['POD_TEST_PROGRAMS']?.split(',');

const usual: CycleOptions[] = [
  { mode: 'undisturbed', as: 'root', via: 'pid' },
  { mode: 'thrice', as: 'nobody', via: 'pod' },
];
const conflict: CycleOptions = { mode: 'conflict', as: 'nobody', via: 'pod' };
const full: CycleOptions[] = (['undisturbed', 'restart', 'thrice', 'alive'] as const).flatMap((mode) =>
  (['root', 'nobody'] as const).flatMap((as) => (['pid', 'pod'] as const).map((via) => ({ mode, as, via }))),
);

/** What these hold belongs to the machine (names, files that they change): the stopped original still has it. */
const holdsNames = new Set([
  'blocked-flock',
  'blocked-accept',
  'fifos',
  'file-locks',
  'hidden-lock',
  'netlinks',
  'syscall-storm',
  'stopped',
  'tcp-listen',
  'tcp-pairs',
  'udp',
  'unix-backlog',
  'unix-rights',
]);

/** Of these, what is held can be held by one session only. */
const conflicting = new Set(['blocked-flock', 'file-locks', 'hidden-lock']);

/** These are also moved as if to other kernels. */
const wanderers = new Set(['vdso', 'syscall-storm', 'ptys']);

function ways(program: Program): CycleOptions[] {
  const everybody = process.env['POD_TEST_FULL'] ? full : usual;
  const ways = [
    ...everybody,
    ...(wanderers.has(program.name) ? [{ mode: 'foreign', as: 'nobody', via: 'pod' } as const] : []),
    ...(program.name === 'clocks' ? [{ mode: 'later', as: 'root', via: 'pod' } as const] : []),
  ];
  if (once.has(program.name))
    return ways
      .filter(({ as }) => isRoot || as === 'nobody')
      .map((way) => ({ ...way, mode: 'once' as const }));
  if (isRefused(program.name)) return [{ mode: 'refused', via: 'pod' }];
  const possible = [...ways, ...(conflicting.has(program.name) ? [conflict] : [])]
    .filter(({ as }) => isRoot || as === 'nobody')
    // What only root can set up runs as root in every mode.
    .map((way) => (program.rootOnly ? { ...way, as: 'root' as const } : way))
    .map((way) => (isRefused(program.name, way.as) ? { ...way, mode: 'refused' as const } : way))
    .map((way) => (program.podOnly ? { ...way, via: 'pod' as const } : way))
    .filter(({ mode }) => mode !== 'alive' || !holdsNames.has(program.name))
    // Dumped here all the same; restarted by test/kmod.
    .filter(({ mode }) => mode === 'undisturbed' || !program.needsModule);
  return [...new Map(possible.map((way) => [JSON.stringify(way), way])).values()];
}

t.jobs = 3;
t.setTimeout(3_600_000);
for (const program of listPrograms()) {
  if (wanted !== undefined && !wanted.includes(program.name)) continue;
  if (program.rootOnly && !isRoot) continue;
  const options = { buffered: true, timeout: 1_200_000, skip: program.lacking ?? false };
  t.test(program.name, options, async (t) => {
    for (const way of ways(program)) {
      const report = await cycle(program, way);
      const name = `${way.mode} as ${way.as} via ${way.via}`;
      report === 'ok' ? t.pass(name) : t.fail(name, { report });
    }
  });
}
