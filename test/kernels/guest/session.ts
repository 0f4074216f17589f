/** One self-checking program on a test machine: dumped on one, restarted on the next (protocol: pod-test.h). */
import { spawn } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { buildProgram, readProgram } from '../../tools/programs.ts';
import { RunningProgram } from '../../tools/running-program.ts';
import {
  isGood,
  type Mount,
  mustRefuse,
  mustRefuseRestart,
  type Outcome,
  type ProgramJob,
  sessionFolder,
} from '../job.ts';
import { command, type Ended, nobody } from './command.ts';

/** A command that did not do what it must. */
class StepError extends Error {
  readonly status: number | string;
  constructor(status: number | string) {
    super(`ended with ${status}`);
    this.status = status;
  }
}

export class Session {
  readonly #job: ProgramJob;
  readonly #folder: string;
  readonly #running: RunningProgram;
  readonly #engine: 'user' | 'kmod';
  #story = '';

  /** `engine`: who dumps. The module's sessions are plain ones: it takes no pod that has a console. */
  constructor(mount: Mount, job: ProgramJob, engine: 'user' | 'kmod' = 'user') {
    this.#job = job;
    this.#engine = engine;
    this.#folder = sessionFolder(mount, job);
    this.#running = new RunningProgram(join(this.#folder, 'work'));
  }

  async #command(words: readonly string[], input?: string, output?: string): Promise<Ended> {
    const ended = await command(words, this.#job.as, input, output);
    this.#story += ended.story;
    return ended;
  }

  async #must(words: readonly string[]): Promise<void> {
    const { status } = await this.#command(words);
    if (status !== 0) throw new StepError(status);
  }

  async #dump(refused: boolean): Promise<void> {
    const work = this.#running.folder;
    mkdirSync(work, { recursive: true });
    chmodSync(work, 0o777);
    if (this.#job.as === 'nobody') for (const path of [this.#folder, work]) chownSync(path, nobody, nobody);
    const executable = await buildProgram(readProgram(this.#job.name));
    if (this.#engine === 'kmod')
      spawn(executable, [work], { detached: true, stdio: 'ignore', cwd: '/' }).unref();
    else await this.#must(['pod-run', '-d', '--name', this.#job.name, '--', executable, work]);
    const pid = await this.#running.ready();
    await this.#running.beatOn(1);
    // In one step: what it did afterwards would be in its files, but not in the image.
    const image = join(this.#folder, 'image');
    const { status, story } = await this.#command(
      [
        'pod-dump',
        ...(this.#engine === 'kmod' ? ['--engine', 'kmod'] : []),
        '--then',
        'kill',
        this.#engine === 'kmod' ? String(pid) : this.#job.name,
      ],
      undefined,
      image,
    );
    if (refused) {
      if (status !== 11 || !/^pod-dump: error: .+ \(pid \d+\)/m.test(story))
        throw new StepError(`not refused: ${status}`);
      if (statSync(image).size > 0) throw new Error('it wrote something before it refused');
      await this.#running.beatOn();
      return;
    }
    if (status !== 0) throw new StepError(status);
    await this.#running.end();
    if (this.#running.result !== undefined) throw new Error(`it says already: ${this.#running.result}`);
  }

  async #restart(refused: boolean): Promise<void> {
    const image = join(this.#folder, 'image');
    if (!existsSync(image)) throw new Error('there is no image of it');
    const { status, story } = await this.#command(['pod-restart', '-d', '--name', this.#job.name], image);
    if (refused) {
      if (status !== 12 || !/^pod-restart: error: .+\npod-restart: hint: .+ Linux \d/m.test(story))
        throw new StepError(`not refused: ${status}`);
      if (this.#running.pids().length > 0) throw new Error('something of it is left');
      return;
    }
    if (status !== 0) throw new StepError(status);
    await this.#running.beatOn();
    const result = await this.#running.finish();
    if (result !== 'ok') throw new Error(`it says: ${result}`);
  }

  /** One step on a kernel, of what was dumped on another; what came of it. Nothing of the session is left running. */
  async step(step: 'dump' | 'restart', kernel: string, from = kernel): Promise<Outcome> {
    const start = performance.now();
    const refused =
      step === 'restart'
        ? mustRefuseRestart(this.#job, from, kernel)
        : this.#engine === 'user' && mustRefuse(this.#job, kernel);
    let status: Outcome['status'] = refused ? 'refused' : 0;
    try {
      await (step === 'dump' ? this.#dump(refused) : this.#restart(refused));
    } catch (error) {
      status = error instanceof StepError ? error.status : 'program';
      this.#story += `${(error as Error).message}\nresult: ${this.#running.result ?? 'none'}, beat ${this.#running.beats}\n`;
      for (const pid of this.#running.pids()) this.#story += describe(pid);
    }
    if (this.#running.pids().length > 0) {
      if (this.#engine === 'user') await command(['pod-kill', this.#job.name], this.#job.as);
      await this.#running.end();
    }
    return {
      event: 'outcome',
      step,
      ...(step === 'restart' ? { from } : {}),
      program: this.#job.name,
      as: this.#job.as,
      status,
      story: isGood(status) ? '' : this.#story,
      seconds: (performance.now() - start) / 1000,
    };
  }
}

function describe(pid: number): string {
  try {
    return readdirSync(`/proc/${pid}/task`)
      .map((tid) => {
        const status = readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8');
        const call = readFileSync(`/proc/${pid}/task/${tid}/syscall`, 'utf8').trim();
        return `process ${pid} thread ${tid}: ${/^State:.*$/m.exec(status)?.[0]} ${call}\n`;
      })
      .join('');
  } catch {
    return `process ${pid}: gone\n`;
  }
}
