/** Test machines with the module: one boot a list of things to try, and what came of each. */
import { join } from 'node:path';
import { packageRoot } from '../../native/package-root.ts';
import type { Kernel } from '../kernels/kernel.ts';
import { type Disk, runMachine } from '../kernels/machine.ts';
import { type KmodEvent, type KmodJob, lastChecks, nameOf, type Part } from './job.ts';

/** A kernel, and pod.ko for it. */
export interface Built {
  kernel: Kernel;
  module: string;
}

export interface Setting {
  /** QEMU's model of the processor. */
  cpu: string;
  folder: string;
  say: (sentence: string) => void;
}

/**
 * What is written after it was freed, freed twice, or warned of ends the machine. A busy computer lets an emulated one
 * stand still for long, which is nobody's fault in it.
 */
/** For the CRC of the stream, before Linux 6.14; without a processor that has it the module goes on without. */
export const moduleHelpers = ['crc32_pclmul'];
/** Has what that needs, and FXSAVE only. */
export const usualCpu = 'qemu64,+ssse3,+sse4.1,+sse4.2,+pclmulqdq';

export const kernelOptions = [
  'slub_debug=FZPU',
  'panic_on_warn=1',
  'rcupdate.rcu_cpu_stall_suppress=1',
  'sysctl.kernel.watchdog_thresh=60',
];

export class Machines {
  readonly #setting: Setting;
  passed = 0;
  refused = 0;
  lacking = 0;
  readonly failures: string[] = [];

  constructor(setting: Setting) {
    this.#setting = setting;
  }

  async run(
    { kernel, module }: Built,
    what: string,
    parts: readonly Part[],
    disks: readonly Disk[] = [],
  ): Promise<void> {
    const { cpu, folder, say } = this.#setting;
    const name = `${what}-${kernel.name}`;
    const missing = new Set<string>([...parts.map(nameOf), ...lastChecks]);
    const job: KmodJob = { module, parts };
    const end = await runMachine({
      kernel,
      program: [process.execPath, join(packageRoot(), 'dist/esm/test/kmod/guest/main.js')],
      modules: moduleHelpers,
      job,
      cpu,
      kernelOptions,
      folder,
      name,
      disks,
      onEvent: (event) => this.#hear(name, event as KmodEvent, missing),
    });
    const failure =
      end.failure ??
      (missing.size > 0
        ? `nothing was told of: ${[...missing].join(', ')}`
        : (end.events as KmodEvent[]).at(-1)?.event === 'done'
          ? undefined
          : 'the final marker is missing');
    if (failure) this.failures.push(`${name}: ${failure}\n${end.console.slice(-6000)}`);
    say(`${name}: ${failure ?? `done in ${end.seconds.toFixed(0)} s`}`);
  }

  #hear(name: string, it: KmodEvent, missing: Set<string>): void {
    const { say } = this.#setting;
    if (it.event === 'up') say(`${name}: Linux ${it.release} is up`);
    if (it.event === 'error') say(`${name}: ${it.message}`);
    if (it.event === 'says') say(`${name}: ${it.text}`);
    if (it.event !== 'outcome') return;
    missing.delete(it.what);
    const { what, status, story, seconds } = it;
    const bad = status === 'failed';
    const how = bad ? 'FAILED' : [status, story].filter(Boolean).join(': ');
    say(`${name}: ${what}: ${how}, ${seconds.toFixed(1)} s`);
    if (status === 'ok') this.passed += 1;
    else if (status === 'refused') this.refused += 1;
    else if (status === 'lacking') this.lacking += 1;
    else {
      console.log(`\n== ${name}: ${what}\n${story}\n`);
      this.failures.push(`${name}: ${what} (above)`);
    }
  }
}
