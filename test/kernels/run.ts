/**
 * `npm run test:kernels [-- OPTIONS] [KERNEL…]`: the user engine on other kernels, and between them. See
 * docs/kernels.md. Exit 0 when all went well, 1 when something did not, 2 for a wrong command line.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { buildProgram, listPrograms, readProgram } from '../tools/programs.ts';
import { fetchKernel } from './fetch-kernel.ts';
import type { ProgramJob } from './job.ts';
import { type Kernel, kernelSources } from './kernel.ts';
import { Matrix } from './matrix.ts';
import { formatTable } from './table.ts';

/** One for each kind of state that kernels treat differently, and a few an ordinary user moves. */
const usual = [
  'registers',
  'memory-private',
  'memory-shared',
  'rseq-robust',
  'rseq-own',
  'signal-pending',
  'timers-posix',
  'blocked-calls',
  'pipes',
  'unix-pairs',
  'tcp-pairs',
  'epolls',
  'ptys',
  'deleted-files',
  'registers:nobody',
  'sessions:nobody',
];
const few = ['registers', 'memory-shared', 'rseq-robust', 'rseq-own', 'tcp-pairs', 'unix-pairs:nobody'];

/** What of the checkout's tests depends on the kernel. */
const tests = [
  'pod/check.test',
  'pod/root.test',
  'pod/mounts.test',
  'pod/escape.test',
  'pod/limits.test',
  'session/own-network.test',
];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    short: { type: 'boolean', default: false },
    inside: { type: 'boolean', default: false },
    programs: { type: 'string' },
    tests: { type: 'boolean', default: false },
    test: { type: 'string' },
    cpu: { type: 'string', default: 'qemu64' },
    keep: { type: 'boolean', default: false },
    fetch: { type: 'boolean', default: false },
  },
});

const wantedKernels = positionals.length > 0 ? positionals : kernelSources.map(({ name }) => name);
const unknown = wantedKernels.filter((name) => !kernelSources.some((source) => source.name === name));
if (unknown.length > 0) {
  console.error(`test:kernels: error: no kernel is called ${unknown.join(', ')}`);
  console.error(`test:kernels: hint: ${kernelSources.map(({ name }) => name).join(', ')} are known`);
  process.exit(2);
}

const start = performance.now();
const say = (sentence: string) =>
  console.error(`[${((performance.now() - start) / 1000).toFixed(0).padStart(3)} s] ${sentence}`);

const kernels: Kernel[] = [];
let failed = false;
const sources = kernelSources.filter(({ name }) => wantedKernels.includes(name));
for (const source of sources) {
  // The oldest to be had and the newest differ most.
  if (values.short && kernels.length === 1 && source !== sources.at(-1)) continue;
  try {
    const kernel = await fetchKernel(source, say);
    say(`${kernel.name}: ${kernel.release}`);
    kernels.push(kernel);
  } catch (error) {
    const { message, cause } = error as Error;
    say(`${source.name} cannot be had: ${message} ${cause instanceof Error ? cause.message : ''}`);
    if (!source.mayLeave) failed = true;
  }
}

if (!values.fetch) {
  const all = listPrograms().filter(({ needsModule }) => !needsModule);
  const names =
    values.programs === 'all'
      ? all.map(({ name }) => name)
      : values.programs === 'all:nobody'
        ? all.filter(({ rootOnly }) => !rootOnly).map(({ name }) => `${name}:nobody`)
        : (values.programs?.split(',') ?? (values.short ? few : usual));
  const programs = names.map((each): ProgramJob => {
    const [name, as = 'root'] = each.split(':') as [string, ProgramJob['as']?];
    return { name, as };
  });
  // Compiled here: the machines find them where they are.
  for (const { name } of programs) await buildProgram(readProgram(name));

  const folder = mkdtempSync(join(tmpdir(), 'pod-kernels-'));
  process.once('exit', () => {
    if (values.keep) say(`kept: ${folder}`);
    else rmSync(folder, { recursive: true });
  });
  // Nothing is left of a run that was broken off: neither machines nor disks.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));
  const matrix = new Matrix({ programs, cpu: values.cpu, folder, say });
  if (values.tests || values.test) await matrix.tests(kernels, values.test?.split(',') ?? tests);
  else await (values.inside ? matrix.inside(kernels) : matrix.pairs(kernels));
  for (const failure of matrix.failures) console.log(`\n== ${failure}`);
  console.log(`\n${formatTable(matrix.results)}\n`);
  const good = matrix.results.filter(({ status }) => status === 0).length;
  const refused = matrix.results.filter(({ status }) => status === 'refused').length;
  const lacking = matrix.results.filter(({ status }) => status === 'lacking').length;
  const bad = matrix.results.length - good - refused - lacking + matrix.failures.length;
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  console.log(
    `${good} passed, ${refused} refused as they must be, ${lacking} not tried for want of a processor or kernel, ${bad} failed (${seconds} s)`,
  );
  if (bad > 0 || good === 0) failed = true;
}
process.exitCode = failed ? 1 : 0;
