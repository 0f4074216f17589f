/**
 * Take one self-checking program through the engine: start it (in a pod, or as an ordinary session of the host),
 * dump it, restart it, and let it judge itself. What goes wrong comes back as a text with everything that is needed
 * to find out why.
 */
import { type StdioOptions, spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../native/package-root.ts';
import { makeVdsoForeign } from './foreign-vdso.ts';
import { buildProgram, type Program } from './programs.ts';
import { removeFolder } from './remove-folder.ts';
import { keepDescriptors, RunningProgram, until } from './running-program.ts';

/**
 * - `undisturbed`: dumped again and again while it runs on.
 * - `restart`: dumped, killed, restarted.
 * - `thrice`: the same, three generations in a row, each from the image of the one before.
 * - `alive`: restarted while the original is still there (stopped), so that its pids are taken.
 * - `later`: restarted when some seconds have passed, which its monotonic clocks must not notice; for `clocks`.
 * - `foreign`: the same, each image as if from a kernel with another vdso.
 * - `once`: restarted twice; then a dump that it survives goes well, and the next one is refused.
 * - `conflict`: restarted while the original is still there, whose locks it can't have: exit 12, original unharmed.
 * - `refused`: the engine does not handle the object yet: exit 11 before anything is written, session unharmed.
 */
export type Mode =
  | 'undisturbed'
  | 'restart'
  | 'thrice'
  | 'alive'
  | 'later'
  | 'foreign'
  | 'once'
  | 'conflict'
  | 'refused';

export interface CycleOptions {
  mode: Mode;
  /** Who runs the session and the commands. Default: who runs the test. */
  as?: 'root' | 'nobody';
  /** How the session is started and named: pod-run and its name, or a plain session and its pid. */
  via?: 'pod' | 'pid';
  /** Who dumps; default: whoever pod-dump chooses. */
  engine?: 'user' | 'kmod';
  /** Who restarts; default: whoever pod-restart chooses. */
  restarter?: 'user' | 'kmod';
  /** Dumps of an undisturbed program; default 3. */
  dumps?: number;
  /** Most that a command may take, ms; default 90 s. */
  commandLimit?: number;
}

const nobody = 65534;
/** ms that pass in mode `later`. */
const later = 3000;

/** What a command of ours left behind. */
interface Outcome {
  status: number | string;
  stderr: string;
  ms: number;
}

class CycleError extends Error {}

class Cycle {
  readonly #program: Program;
  readonly #executable: string;
  readonly #as: 'root' | 'nobody';
  readonly #via: 'pod' | 'pid';
  readonly #dumper: readonly string[];
  readonly #restarter: readonly string[];
  readonly #commandLimit: number;
  /** Holds everything: `work` is the program's, `run` the runtime directory, images lie beside them. */
  readonly #folder: string;
  readonly #running: RunningProgram;
  readonly #story: string[] = [];
  #generation = 0;
  #image: string | undefined;
  /** What pod-dump is told: name or host pid. */
  #target = '';

  constructor(program: Program, executable: string, options: CycleOptions) {
    this.#program = program;
    this.#executable = executable;
    this.#as = options.as ?? (process.getuid!() === 0 ? 'root' : 'nobody');
    this.#via = options.via ?? 'pod';
    this.#dumper = ['pod-dump', ...(options.engine ? ['--engine', options.engine] : [])];
    this.#restarter = ['pod-restart', ...(options.restarter ? ['--engine', options.restarter] : [])];
    this.#commandLimit = options.commandLimit ?? 90_000;
    this.#folder = mkdtempSync(join(tmpdir(), `pod-cycle-${program.name}-`));
    chmodSync(this.#folder, 0o755);
    for (const name of ['work', 'run']) {
      const path = join(this.#folder, name);
      mkdirSync(path);
      chmodSync(path, name === 'work' ? 0o777 : 0o700);
      if (this.#switchesUser) chownSync(path, nobody, nobody);
    }
    this.#running = new RunningProgram(join(this.#folder, 'work'));
  }

  get #switchesUser(): boolean {
    return this.#as === 'nobody' && process.getuid!() === 0;
  }

  #environment(): NodeJS.ProcessEnv {
    const bin = join(packageRoot(), 'dist/bin');
    return {
      PATH: `${bin}:${process.env['PATH']}`,
      POD_RUNTIME_DIR: join(this.#folder, 'run'),
      POD_DEBUG: '1',
    };
  }

  #asUser(command: string[]): string[] {
    const switched = `--reuid=${nobody} --regid=${nobody} --clear-groups --`.split(' ');
    return this.#switchesUser ? ['setpriv', ...switched, ...command] : command;
  }

  /** Run one of our commands to its end; `input` and `output` are paths. */
  async #command(command: string[], input?: string, output?: string): Promise<Outcome> {
    const files = [input && openSync(input, 'r'), output && openSync(output, 'w')] as const;
    const errors = join(this.#folder, 'stderr');
    const errorFile = openSync(errors, 'w');
    const [program, ...args] = this.#asUser(command) as [string, ...string[]];
    const start = performance.now();
    try {
      // stderr is a file: a pod that outlives the command may keep it.
      const stdio: StdioOptions = [files[0] || 'ignore', files[1] || 'ignore', errorFile];
      const child = spawn(program, args, { stdio, env: this.#environment(), cwd: '/' });
      const limit = setTimeout(() => child.kill('SIGKILL'), this.#commandLimit);
      const status = await new Promise<number | string>((resolve) => {
        child.on('exit', (code, signal) => resolve(code ?? signal ?? 'gone'));
        child.on('error', (error) => resolve(error.message));
      });
      clearTimeout(limit);
      const outcome = { status, stderr: readFileSync(errors, 'utf8'), ms: performance.now() - start };
      this.#story.push(
        `${command.join(' ')}: ${status} after ${outcome.ms.toFixed(0)} ms\n${outcome.stderr}`,
      );
      return outcome;
    } finally {
      closeSync(errorFile);
      for (const file of files) if (typeof file === 'number') closeSync(file);
    }
  }

  async #must(command: string[], input?: string, output?: string): Promise<void> {
    const { status } = await this.#command(command, input, output);
    if (status !== 0) throw new CycleError(`${command[0]} ended with ${status}`);
  }

  async start(): Promise<void> {
    const command = [this.#executable, this.#running.folder];
    if (this.#via === 'pod') {
      this.#target = `test-${process.pid}-${this.#program.name}`;
      await this.#must(['pod-run', '-d', '--name', this.#target, '--', ...command]);
    } else {
      const log = openSync(join(this.#running.folder, 'log'), 'a', 0o666);
      // A restart opens it again, as that user.
      chmodSync(join(this.#running.folder, 'log'), 0o666);
      const [program, ...args] = this.#asUser(command) as [string, ...string[]];
      // `detached` is setsid: a session of its own, as the engine wants it whole.
      spawn(program, args, {
        detached: true,
        stdio: ['ignore', log, log],
        env: this.#environment(),
        cwd: '/',
      }).unref();
      closeSync(log);
      // Whatever the umask: the session's own user opens it again.
      chmodSync(join(this.#running.folder, 'log'), 0o666);
    }
    const pid = await this.#running.ready();
    if (this.#via === 'pid') this.#target = String(pid);
    await this.#running.beatOn(1);
  }

  /** Dump to a file of this generation. A session that runs on is neither traced nor stopped. */
  async dump(then: 'run' | 'kill' = 'run'): Promise<void> {
    const image = join(this.#folder, `image-${++this.#generation}`);
    await this.#must([...this.#dumper, '--then', then, this.#target], undefined, image);
    this.#image = image;
    const held = this.#heldTasks();
    if (held.length > 0) throw new CycleError(`after the dump these tasks are held: ${held.join(', ')}`);
  }

  /** In one step: what it did in between would not be in the image, but in its files. Returns when all are gone. */
  async dumpAndEnd(): Promise<void> {
    await this.dump('kill');
    const left = await until(() => this.#running.pids().length === 0, 10_000);
    if (!left) throw new CycleError(`alive after pod-dump --then kill: ${this.#running.pids().join(', ')}`);
  }

  /** A dump that must be refused for what the session holds, named in the message. */
  async dumpInVain(): Promise<void> {
    const output = join(this.#folder, 'nothing');
    const { status, stderr } = await this.#command([...this.#dumper, this.#target], undefined, output);
    if (status !== 11) throw new CycleError(`pod-dump ended with ${status}, not with 11`);
    if (!/^pod-dump: error: .+ \(pid \d+\), /.test(stderr)) throw new CycleError('the message names nothing');
    if (statSync(output).size > 0) throw new CycleError('pod-dump wrote something before it refused');
    const held = this.#heldTasks();
    if (held.length > 0) throw new CycleError(`after the dump these tasks are held: ${held.join(', ')}`);
  }

  /** Tasks that are traced, or in a trace stop. */
  #heldTasks(): string[] {
    return this.#running.pids().flatMap((pid) => heldTasks(pid));
  }

  async restart(name: string): Promise<void> {
    await this.#must([...this.#restarter, '-d', '--name', name], this.#image);
    this.#target = name;
  }

  /** What the session holds, somebody has already: named, and nothing is left of the attempt. */
  async restartInVain(): Promise<void> {
    const { status, stderr } = await this.#command([...this.#restarter, '-d', '--name', 'vain'], this.#image);
    if (status !== 12) throw new CycleError(`pod-restart ended with ${status}, not with 12`);
    const named = new RegExp(
      `^pod-restart: error: /.+ (locked|leased) here by ${this.#program.name} \\(pid \\d+\\)`,
      'm',
    );
    if (!named.test(stderr)) throw new CycleError('the message names nobody');
  }

  async run(mode: Mode, dumps: number): Promise<void> {
    await this.start();
    if (mode === 'undisturbed') {
      for (let i = 0; i < dumps; i++) {
        await this.dump();
        await this.#running.beatOn();
      }
    } else if (mode === 'refused') {
      await this.dumpInVain();
      await this.#running.beatOn();
    } else if (mode === 'once') {
      for (let i = 0; i < 2; i++) {
        await this.dumpAndEnd();
        await this.restart(`test-${process.pid}-${this.#program.name}-${i}`);
        await this.#running.beatOn();
      }
      await this.dump();
      await this.dumpInVain();
      await this.#running.beatOn();
    } else if (mode === 'conflict') {
      await this.dump();
      const originals = this.#running.pids();
      for (const pid of originals) process.kill(pid, 'SIGSTOP');
      await this.restartInVain();
      for (const pid of originals) process.kill(pid, 'SIGCONT');
      await this.#running.beatOn();
    } else if (mode === 'alive') {
      await this.dump();
      const originals = this.#running.pids();
      for (const pid of originals) process.kill(pid, 'SIGSTOP');
      await this.restart(`test-${process.pid}-again`);
      await this.#running.beatOn();
    } else {
      for (let i = 0; i < (mode === 'restart' || mode === 'later' ? 1 : 3); i++) {
        if (i === 0) {
          // A dump that it survives leaves its traces (calls that the kernel has begun again) for the next.
          await this.dump();
          await this.#running.beatOn(1);
        }
        await this.dumpAndEnd();
        if (mode === 'foreign') writeFileSync(this.#image!, makeVdsoForeign(readFileSync(this.#image!)));
        if (mode === 'later') await sleep(later);
        const before = this.#running.beats;
        await this.restart(`test-${process.pid}-${this.#program.name}-${i}`);
        await this.#running.beatOn();
        this.#story.push(`generation ${i + 1}: beats on from ${before}`);
      }
    }
    const result = await this.#running.finish();
    if (this.#program.name === 'clocks') this.#checkGap(mode === 'later');
    if (result !== 'ok') throw new CycleError(`the program says: ${result}`);
    await until(() => this.#heldTasks().length === 0, 5_000);
  }

  /** By how much the wall clock ran ahead of the others, ms, as the program saw it. */
  #checkGap(isLater: boolean): void {
    const gap = Number(readFileSync(join(this.#running.folder, 'gap'), 'utf8'));
    // From the stop of the tasks to the restart: at least the wait, and not much more than all commands took.
    if (isLater && gap < later - 500) throw new CycleError(`the monotonic clock noticed the move: ${gap} ms`);
    if (gap < -500) throw new CycleError(`the monotonic clock ran ahead by ${-gap} ms`);
  }

  /** Everything that may tell what went wrong. */
  async report(error: unknown): Promise<string> {
    const log = join(this.#running.folder, 'log');
    const parts = [
      `${this.#program.name} as ${this.#as} via ${this.#via}: ${(error as Error).message}`,
      `result: ${this.#running.result ?? 'none'}, beat ${this.#running.beats}`,
      ...this.#story,
      existsSync(log) ? `log: ${readFileSync(log, 'utf8')}` : '',
      ...this.#running.pids().map(describeProcess),
    ];
    if (this.#image && existsSync(this.#image) && existsSync(join(packageRoot(), 'dist/bin/pod-inspect'))) {
      const output = join(this.#folder, 'inspect');
      await this.#command(['pod-inspect'], this.#image, output);
      parts.push(readFileSync(output, 'utf8').slice(0, 20_000));
    }
    return parts.filter(Boolean).join('\n');
  }

  async remove(): Promise<void> {
    const pods = join(this.#folder, 'run/pods');
    const names = existsSync(pods) ? readdirSync(pods).filter((file) => file.endsWith('.json')) : [];
    if (names.length > 0) await this.#command(['pod-kill', ...names.map((file) => file.slice(0, -5))]);
    await this.#running.remove();
    if (!process.env['POD_TEST_KEEP']) removeFolder(this.#folder);
  }
}

/** Tasks of a process that are traced or in a trace stop, each as a sentence. */
export function heldTasks(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((tid) => {
      const status = readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8');
      const tracer = /^TracerPid:\t(\d+)$/m.exec(status)?.[1];
      const state = /^State:\t(\w)/m.exec(status)?.[1];
      return tracer !== '0' || state === 't' ? [`${tid} (state ${state}, traced by ${tracer})`] : [];
    });
  } catch {
    // It ended while we looked.
    return [];
  }
}

function describeProcess(pid: number): string {
  try {
    const tasks = readdirSync(`/proc/${pid}/task`).map((tid) => {
      const status = readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8');
      return `  ${tid}: ${/^State:.*$/m.exec(status)?.[0]} ${readFileSync(`/proc/${pid}/task/${tid}/wchan`, 'utf8')}`;
    });
    return `process ${pid}:\n${tasks.join('\n')}`;
  } catch {
    return `process ${pid}: gone`;
  }
}

/** Take a program through one cycle: `ok`, or the story of what went wrong. */
export async function cycle(program: Program, options: CycleOptions): Promise<string> {
  keepDescriptors();
  const run = new Cycle(program, await buildProgram(program), options);
  try {
    await run.run(options.mode, options.dumps ?? 3);
    return 'ok';
  } catch (error) {
    return await run.report(error);
  } finally {
    await run.remove();
  }
}
