/** Which machines are booted with which jobs, some at a time, and what came of it all. */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../native/package-root.ts';
import { makeDisk } from './disk.ts';
import { type GuestEvent, isGood, type Job, type Mount, type Outcome, type ProgramJob } from './job.ts';
import type { Kernel } from './kernel.ts';
import { type Disk, type MachineEnd, runMachine } from './machine.ts';
import { pool } from './pool.ts';

export interface Setting {
  programs: readonly ProgramJob[];
  /** QEMU's model of the processor of all machines. */
  cpu: string;
  /** For disks, consoles and initramfs. */
  folder: string;
  say: (sentence: string) => void;
  /** pod.ko by the kernel's name: the module dumps, plain sessions of root's. Default: the user engine, pods. */
  modules?: ReadonlyMap<string, string>;
  /** Modules of the kernel that it asks for. */
  helpers?: readonly string[];
}

/** One outcome, and the kernel it was on. */
export type Result = Outcome & { on: string };

/** Machines at a time: each keeps one processor busy, but for the moments in which it waits. */
const atOnce = availableParallelism() + 1;

const guestProgram = () => join(packageRoot(), 'dist/esm/test/kernels/guest/main.js');

/** Paths are those of the machine of the dump, on every machine. */
const placeOf = (from: Kernel, index: number): Mount => ({
  device: `/dev/vd${String.fromCharCode(97 + index)}`,
  path: `/srv/pod-${from.name}`,
});

export class Matrix {
  readonly #setting: Setting;
  readonly results: Result[] = [];
  /** Machines that did not end as they should. */
  readonly failures: string[] = [];

  constructor(setting: Setting) {
    this.#setting = setting;
  }

  #disk(kernel: Kernel): string {
    return join(this.#setting.folder, `${kernel.name}.disk`);
  }

  async #machine(kernel: Kernel, name: string, job: Job, disks: readonly Disk[]): Promise<void> {
    const { cpu, folder, say, helpers = [] } = this.#setting;
    const onEvent = (event: unknown) => {
      const it = event as GuestEvent;
      if (it.event === 'up') say(`${name}: Linux ${it.release} is up`);
      if (it.event === 'error') say(`${name}: ${it.message}`);
      if (it.event !== 'outcome') return;
      const good = isGood(it.status);
      this.results.push({ ...it, on: kernel.name });
      const what = [it.step, it.program, it.as === 'nobody' ? 'as nobody' : '', it.from && `from ${it.from}`];
      const how = good ? (it.status === 0 ? 'ok' : it.status) : `FAILED (${it.status})`;
      say(`${name}: ${what.filter(Boolean).join(' ')}: ${how}, ${it.seconds.toFixed(1)} s`);
      if (!good) console.log(`\n== ${name}: ${what.filter(Boolean).join(' ')}: ${it.status}\n${it.story}`);
    };
    const program = [process.execPath, guestProgram()];
    const end = await runMachine({
      kernel,
      modules: helpers,
      program,
      job,
      disks,
      cpu,
      folder,
      name,
      onEvent,
    });
    const failure = end.failure ?? missing(end, job);
    if (failure) {
      this.failures.push(`${name}: ${failure}\n${end.console.slice(-4000)}`);
      say(`${name}: ${failure}`);
    } else {
      say(`${name}: done in ${end.seconds.toFixed(0)} s`);
    }
  }

  /** Dump on each kernel, then on each restart what each has dumped. */
  async pairs(kernels: readonly Kernel[]): Promise<void> {
    const { programs } = this.#setting;
    for (const kernel of kernels) makeDisk(this.#disk(kernel));
    await pool(
      atOnce,
      kernels.map((kernel) => () => {
        const module = this.#setting.modules?.get(kernel.name);
        const job: Job = {
          kind: 'dump',
          kernel: kernel.name,
          mount: placeOf(kernel, 0),
          programs,
          ...(module ? { module } : {}),
        };
        return this.#machine(kernel, `dump-${kernel.name}`, job, [{ path: this.#disk(kernel) }]);
      }),
    );
    await pool(
      atOnce,
      kernels.map((kernel) => () => {
        const sources = kernels.map((from, index) => ({
          from: from.name,
          mount: placeOf(from, index),
          programs: programs.filter((program) => this.#dumped(from, program)),
        }));
        const disks = kernels.map((from) => ({ path: this.#disk(from), forget: true }));
        return this.#machine(
          kernel,
          `restart-${kernel.name}`,
          { kind: 'restart', kernel: kernel.name, sources },
          disks,
        );
      }),
    );
  }

  #dumped(on: Kernel, { name, as }: ProgramJob): boolean {
    return this.results.some(
      (each) =>
        each.step === 'dump' &&
        each.on === on.name &&
        each.program === name &&
        each.as === as &&
        each.status === 0,
    );
  }

  /** Tests of the checkout inside each kernel. */
  async tests(kernels: readonly Kernel[], files: readonly string[]): Promise<void> {
    await pool(
      atOnce,
      kernels.map(
        (kernel) => () => this.#machine(kernel, `tests-${kernel.name}`, { kind: 'tests', files }, []),
      ),
    );
  }

  /** Each program through dump, kill and restart inside each kernel. */
  async inside(kernels: readonly Kernel[]): Promise<void> {
    const { programs } = this.#setting;
    for (const kernel of kernels) makeDisk(this.#disk(kernel));
    await pool(
      atOnce,
      kernels.map((kernel) => () => {
        const job: Job = { kind: 'cycle', kernel: kernel.name, mount: placeOf(kernel, 0), programs };
        return this.#machine(kernel, `inside-${kernel.name}`, job, [{ path: this.#disk(kernel) }]);
      }),
    );
  }
}

/** Whatever the exit status says: a job is done when it told each of its outcomes, and that it is done. */
function missing(end: MachineEnd, job: Job): string | undefined {
  const events = end.events as GuestEvent[];
  const wanted =
    job.kind === 'restart'
      ? job.sources.reduce((sum, source) => sum + source.programs.length, 0)
      : job.kind === 'tests'
        ? job.files.length
        : job.programs.length;
  const told = events.filter(({ event }) => event === 'outcome').length;
  if (told !== wanted) return `${told} of ${wanted} outcomes were told`;
  return events.at(-1)?.event === 'done' ? undefined : 'the final marker is missing';
}
