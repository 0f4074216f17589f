/**
 * `npm run test:kmod [-- OPTIONS] [KERNEL…]`: the module on each kernel, built against its headers and booted in QEMU.
 * See docs/kmod.md. Exit 0 when all went well, 1 when something did not, 2 for a wrong command line.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { NoArchive } from '../kernels/apt.ts';
import { makeDisk } from '../kernels/disk.ts';
import { fetchKernel } from '../kernels/fetch-kernel.ts';
import { isGood } from '../kernels/job.ts';
import { type KernelSource, kernelSources } from '../kernels/kernel.ts';
import { Matrix } from '../kernels/matrix.ts';
import { pool } from '../kernels/pool.ts';
import { formatTable } from '../kernels/table.ts';
import { buildProgram, readProgram } from '../tools/programs.ts';
import { buildModule, buildReader } from './build-module.ts';
import { fetchHeaders } from './fetch-headers.ts';
import type { Part } from './job.ts';
import { type Built, Machines, moduleHelpers, usualCpu } from './machines.ts';
import { fetchNewest } from './newest.ts';
import {
  alwaysNeeded,
  fewHandled,
  fewRefused,
  fewRestarted,
  handled,
  inPods,
  limits,
  refused,
  restarted,
  restartedOfUser,
} from './programs.ts';
import { measureSpeed } from './speed.ts';

const pieces = ['inside', 'restart', 'campaigns', 'pipeline', 'pairs', 'speed'] as const;
type Piece = (typeof pieces)[number];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    short: { type: 'boolean', default: false },
    only: { type: 'string' },
    programs: { type: 'string' },
    refused: { type: 'string' },
    rounds: { type: 'string' },
    kills: { type: 'string' },
    'restart-kills': { type: 'string' },
    cpu: { type: 'string', default: usualCpu },
    keep: { type: 'boolean', default: false },
    'build-only': { type: 'boolean', default: false },
  },
});

function wrong(error: string, hint: string): never {
  console.error(`test:kmod: error: ${error}`);
  console.error(`test:kmod: hint: ${hint}`);
  process.exit(2);
}

const listOf = (text: string | undefined, usual: readonly string[]) =>
  text?.split(',').filter((each) => each !== '') ?? usual;
const { short } = values;
/** Only compiled for. */
const newest = 'newest';
const known = [...kernelSources.map(({ name }) => name), newest];
const unknown = positionals.filter((name) => !known.includes(name));
if (unknown.length > 0) wrong(`no kernel is called ${unknown.join(', ')}`, `${known.join(', ')} are known`);
const wanted = listOf(values.only, short ? ['inside', 'restart', 'campaigns'] : pieces) as readonly Piece[];
if (wanted.some((each) => !pieces.includes(each))) wrong(`--only ${values.only}`, `of ${pieces.join(', ')}`);
const count = (name: 'rounds' | 'kills' | 'restart-kills', whole: number, few: number) => {
  const number = Number(values[name] ?? (short ? few : whole));
  if (!Number.isInteger(number) || number < 1) wrong(`--${name} ${values[name]}`, 'a number, at least 1');
  return number;
};
const rounds = count('rounds', 1000, 20);
const kills = count('kills', 200, 10);
const restartKills = count('restart-kills', 40, 1);
const goodPrograms = listOf(values.programs, short ? fewHandled : handled);
const podPrograms = inPods.filter((program) => goodPrograms.includes(program));
const badPrograms = listOf(values.refused, short ? fewRefused : refused());

const start = performance.now();
const say = (sentence: string) =>
  console.error(`[${((performance.now() - start) / 1000).toFixed(0).padStart(3)} s] ${sentence}`);
const failures: string[] = [];
/** Kernels that the archive does not give. */
const absent: string[] = [];

/** The module is built for all, whatever is booted. */
async function prepare(source: KernelSource): Promise<Built | undefined> {
  let built: Awaited<ReturnType<typeof fetchKernel>>;
  let headers: string;
  try {
    built = await fetchKernel(source, say);
    headers = await fetchHeaders(source, built, say);
  } catch (error) {
    const { message, cause } = error as Error;
    say(`${source.name} cannot be had: ${message} ${cause instanceof Error ? cause.message : ''}`);
    // Without a network there is nothing to test, which is said, and is nobody's fault.
    if (error instanceof NoArchive) absent.push(source.name);
    else failures.push(`${source.name} cannot be had: ${message}`);
    return undefined;
  }
  try {
    const { module, said } = await buildModule(built, headers);
    say(`${built.name}: built for ${built.release}`);
    if (/warning|error/i.test(said)) failures.push(`${built.name}: the compiler says:\n${said}`);
    return { kernel: built, module };
  } catch (error) {
    failures.push(`${built.name}: pod.ko can't be built: ${(error as Error).message}`);
    return undefined;
  }
}

/** Debian's newest headers: nothing is booted. */
async function compileForNewest(): Promise<void> {
  try {
    const { release, headers, programs } = await fetchNewest(say);
    const { said } = await buildModule({ name: newest }, headers, programs);
    say(`${newest}: built for ${release}`);
    if (/warning|error/i.test(said)) failures.push(`${newest}: the compiler says:\n${said}`);
    else passed += 1;
  } catch (error) {
    if (error instanceof NoArchive) absent.push(newest);
    else failures.push(`${newest}: ${(error as Error).message}`);
  }
}

const inside = (): Part[] => [
  { part: 'device' },
  { part: 'streams' },
  { part: 'node' },
  // The first of them three times: the second and third image are those of a pod.
  ...goodPrograms.map(
    (program, index): Part => ({
      part: 'cycle',
      program,
      mode: index === 0 && !short ? 'thrice' : 'restart',
      via: 'pid',
    }),
  ),
  ...podPrograms.map((program): Part => ({ part: 'cycle', program, mode: 'restart', via: 'pod' })),
  ...badPrograms.map((program): Part => ({ part: 'refused', program })),
];
/** By the module: thrice what both engines carry, as the second image is one of a pod. */
const restart = (): Part[] => {
  const given = values.programs === undefined ? undefined : listOf(values.programs, []);
  const both = given ?? (short ? fewRestarted : restarted);
  return [
    ...both.flatMap((program) =>
      (['kmod', 'user'] as const).map(
        (dumper): Part => ({ part: 'restart', program, dumper, mode: short ? 'restart' : 'thrice' }),
      ),
    ),
    ...(given || short ? [] : restartedOfUser).map(
      (program): Part => ({ part: 'restart', program, dumper: 'user', mode: 'restart' }),
    ),
    { part: 'rests' },
    ...(short || given ? [] : [{ part: 'restart-kills', rounds: restartKills } as const]),
  ];
};
const campaigns = (): Part[] => [
  { part: 'kills', rounds: kills },
  { part: 'rounds', rounds },
];

async function boot(ready: readonly Built[], folder: string): Promise<void> {
  const machines = new Machines({ cpu: values.cpu, folder, say });
  const has = (piece: Piece) => wanted.includes(piece);
  // The short form tries all on one.
  const chosen = short ? ready.slice(-1) : ready;
  const tasks = chosen.flatMap((built) => {
    const jobs: [string, Part[]][] = short
      ? [
          [
            'short',
            [
              ...(has('inside') ? inside() : []),
              ...(has('restart') ? restart() : []),
              ...(has('campaigns') ? campaigns() : []),
            ],
          ],
        ]
      : [
          ...(has('inside') ? [['inside', inside()] as [string, Part[]]] : []),
          ...(has('restart') ? [['restart', restart()] as [string, Part[]]] : []),
          ...(has('campaigns') ? [['campaigns', campaigns()] as [string, Part[]]] : []),
        ];
    return jobs.map(
      ([name, parts]) =>
        () =>
          machines.run(built, name, parts),
    );
  });
  if (has('pipeline') && chosen.length > 0) {
    const drive = join(folder, 'stick.disk');
    makeDisk(drive);
    tasks.push(() =>
      machines.run(chosen.at(-1)!, 'pipeline', [{ part: 'pipeline', drive: '/dev/vda' }], [{ path: drive }]),
    );
  }
  await pool(availableParallelism() + 1, tasks);
  failures.push(...machines.failures);
  passed += machines.passed;
  refusals += machines.refused;
  lacking += machines.lacking;
  if (has('pairs')) {
    const matrix = new Matrix({
      programs: goodPrograms.map((name) => ({ name, as: 'root' })),
      cpu: values.cpu,
      folder,
      say,
      modules: new Map(chosen.map(({ kernel, module }) => [kernel.name, module])),
      helpers: moduleHelpers,
    });
    await matrix.pairs(chosen.map(({ kernel }) => kernel));
    console.log(`\nDumped by the module, restarted by the user engine:\n\n${formatTable(matrix.results)}\n`);
    passed += matrix.results.filter(({ status }) => status === 0).length;
    failures.push(
      ...matrix.failures,
      ...matrix.results
        .filter(({ status }) => !isGood(status))
        .map(
          (each) => `${each.program}: ${each.step} ${each.from ?? ''} on ${each.on}: ${each.status} (above)`,
        ),
    );
  }
  if (has('speed'))
    for (const built of chosen)
      try {
        console.log(`\n${await measureSpeed(built, values.cpu, folder)}\n`);
        passed += 1;
      } catch (error) {
        failures.push(`speed-${built.kernel.name}: ${(error as Error).message}`);
      }
}

let passed = 0;
let refusals = 0;
let lacking = 0;
const ready: Built[] = [];
const isChosen = (name: string) => positionals.length === 0 || positionals.includes(name);
for (const source of kernelSources) {
  if (!isChosen(source.name)) continue;
  const one = await prepare(source);
  if (one) ready.push(one);
}
if (isChosen(newest) && !short) await compileForNewest();
if (!values['build-only'] && ready.length > 0) {
  // Compiled here: the machines find them where they are.
  for (const name of [
    ...goodPrograms,
    ...badPrograms,
    ...alwaysNeeded,
    ...(wanted.includes('restart')
      ? restart().flatMap((part) => ('program' in part ? part.program : []))
      : []),
  ])
    await buildProgram(readProgram(name));
  await buildReader();
  const folder = mkdtempSync(join(tmpdir(), 'pod-kmod-'));
  process.once('exit', () => {
    if (values.keep) say(`kept: ${folder}`);
    else rmSync(folder, { recursive: true });
  });
  // Nothing is left of a run that was broken off: neither machines nor disks.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));
  await boot(ready, folder);
}
for (const failure of failures) console.log(`\n== ${failure}`);
const seconds = ((performance.now() - start) / 1000).toFixed(0);
if (!short && !values.programs)
  for (const [program, limit] of Object.entries(limits)) console.log(`\nnot tried: ${program}: ${limit}`);
if (absent.length > 0)
  console.log(`\nNOT TESTED, as Debian's archive can't be reached: ${absent.join(', ')}`);
console.log(
  `\n${passed} passed, ${refusals} refused as they must be, ${lacking} not tried for want of a processor or kernel, ${failures.length} failed (${seconds} s)`,
);
const nothing =
  ready.length > 0 ? passed === 0 && !values['build-only'] : passed === 0 && absent.length === 0;
process.exitCode = failures.length > 0 || nothing ? 1 : 0;
