/**
 * `npm run test:kmod [-- OPTIONS] [KERNEL…]`: the module on each kernel, built against its headers and booted in QEMU.
 * See docs/kmod.md. Exit 0 when all went well, 1 when something did not, 2 for a wrong command line.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { packageRoot } from '../../native/package-root.ts';
import { fetchKernel } from '../kernels/fetch-kernel.ts';
import type { ProgramJob } from '../kernels/job.ts';
import { type Kernel, type KernelSource, kernelSources } from '../kernels/kernel.ts';
import { runMachine } from '../kernels/machine.ts';
import { pool } from '../kernels/pool.ts';
import { buildProgram, readProgram } from '../tools/programs.ts';
import { buildModule } from './build-module.ts';
import { fetchHeaders } from './fetch-headers.ts';
import { checks, type KmodEvent, type KmodJob } from './job.ts';

const usual = 'pipes,regular-files,memory-shared,signal-pending';
const usuallyRefused = 'eventfds';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    programs: { type: 'string', default: usual },
    refused: { type: 'string', default: usuallyRefused },
    cpu: { type: 'string', default: 'qemu64' },
    keep: { type: 'boolean', default: false },
    'build-only': { type: 'boolean', default: false },
  },
});
const unknown = positionals.filter((name) => !kernelSources.some((source) => source.name === name));
if (unknown.length > 0) {
  console.error(`test:kmod: error: no kernel is called ${unknown.join(', ')}`);
  console.error(`test:kmod: hint: ${kernelSources.map(({ name }) => name).join(', ')} are known`);
  process.exit(2);
}

const toJobs = (text: string): ProgramJob[] =>
  text
    .split(',')
    .filter((each) => each !== '')
    .map((name) => ({ name, as: 'root' }));

const start = performance.now();
const say = (sentence: string) =>
  console.error(`[${((performance.now() - start) / 1000).toFixed(0).padStart(3)} s] ${sentence}`);

let passed = 0;
const failures: string[] = [];
const handled = toJobs(values.programs);
const refused = toJobs(values.refused);

async function prepare(source: KernelSource): Promise<{ kernel: Kernel; module: string } | undefined> {
  let kernel: Kernel;
  let headers: string;
  try {
    kernel = await fetchKernel(source, say);
    headers = await fetchHeaders(source, kernel, say);
  } catch (error) {
    say(`${source.name} cannot be had: ${(error as Error).message}`);
    if (!source.mayLeave) failures.push(`${source.name} cannot be had`);
    return undefined;
  }
  const { module, said } = await buildModule(kernel, headers);
  say(`${kernel.name}: built for ${kernel.release}`);
  if (/warning|error/i.test(said)) failures.push(`${kernel.name}: the compiler says:\n${said}`);
  return { kernel, module };
}

async function boot(kernel: Kernel, module: string, folder: string): Promise<void> {
  const job: KmodJob = { module, handled, refused };
  const told = new Set<string>();
  const end = await runMachine({
    kernel,
    program: [process.execPath, join(packageRoot(), 'dist/esm/test/kmod/guest/main.js')],
    job,
    cpu: values.cpu,
    kernelOptions: ['slub_debug=FZPU', 'panic_on_warn=1'],
    folder,
    name: `kmod-${kernel.name}`,
    onEvent(event) {
      const it = event as KmodEvent;
      if (it.event === 'up') say(`${kernel.name}: Linux ${it.release} is up`);
      if (it.event === 'error') say(`${kernel.name}: ${it.message}`);
      if (it.event !== 'outcome') return;
      told.add(it.what);
      const good = it.report === 'ok';
      say(`${kernel.name}: ${it.what}: ${good ? 'ok' : 'FAILED'}, ${it.seconds.toFixed(1)} s`);
      if (good) passed += 1;
      else {
        console.log(`\n== ${kernel.name}: ${it.what}\n${it.report}\n`);
        failures.push(`${kernel.name}: ${it.what} (above)`);
      }
    },
  });
  const wanted = checks.length + handled.length + refused.length;
  const failure =
    end.failure ??
    (told.size !== wanted
      ? `${told.size} of ${wanted} outcomes were told`
      : (end.events as KmodEvent[]).at(-1)?.event === 'done'
        ? undefined
        : 'the final marker is missing');
  if (failure) failures.push(`${kernel.name}: ${failure}\n${end.console.slice(-6000)}`);
  say(`${kernel.name}: ${failure ?? `done in ${end.seconds.toFixed(0)} s`}`);
}

for (const { name } of [...handled, ...refused, { name: 'memory-private' }])
  await buildProgram(readProgram(name));
const folder = mkdtempSync(join(tmpdir(), 'pod-kmod-'));
process.once('exit', () => {
  if (values.keep) say(`kept: ${folder}`);
  else rmSync(folder, { recursive: true });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));

const ready: { kernel: Kernel; module: string }[] = [];
for (const source of kernelSources) {
  if (positionals.length > 0 && !positionals.includes(source.name)) continue;
  const one = await prepare(source);
  if (one) ready.push(one);
}
if (!values['build-only'])
  await pool(
    2,
    ready.map(
      ({ kernel, module }) =>
        () =>
          boot(kernel, module, folder),
    ),
  );
for (const failure of failures) console.log(`\n== ${failure}`);
console.log(
  `\n${passed} passed, ${failures.length} failed (${((performance.now() - start) / 1000).toFixed(0)} s)`,
);
process.exitCode = failures.length > 0 || (passed === 0 && !values['build-only']) ? 1 : 0;
