/** Sessions, programs and commands that the benchmarks time. */
import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sessionRoots } from '../lib/session/session-roots.ts';
import { native } from '../native/index.ts';
import { packageRoot } from '../native/package-root.ts';

/** Where everything lies while it is measured: a tmpfs, so that no disk is in the numbers. */
const base = '/dev/shm';

/** A folder, an environment and a compiled bench/memory.c; everything that it started ends with close(). */
export class Bench {
  readonly folder = mkdtempSync(join(base, 'podstream-bench-'));
  /** For the program itself: an executable in /dev/shm can't be dumped, since /dev/shm does not go along. */
  readonly #programs = mkdtempSync(join(tmpdir(), 'podstream-bench-'));
  readonly environment: NodeJS.ProcessEnv;
  readonly #pods = new Set<string>();
  readonly #compiled = new Map<string, string>();

  constructor() {
    const { NODE_EXTRA_CA_CERTS: _slow, NODE_OPTIONS: _options, ...plain } = process.env;
    mkdirSync(this.path('run'), { mode: 0o700 });
    this.environment = {
      ...plain,
      PATH: `${join(packageRoot(), 'dist/bin')}:${join(packageRoot(), 'dist/filters')}:${plain['PATH']}`,
      POD_RUNTIME_DIR: this.path('run'),
    };
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** bench/memory.c, compiled. */
  get memory(): string {
    return this.#compile('memory');
  }

  /** bench/tree.c, compiled. */
  get tree(): string {
    return this.#compile('tree');
  }

  #compile(name: string): string {
    const known = this.#compiled.get(name);
    if (known !== undefined) return known;
    const program = join(this.#programs, name);
    this.run(`cc -O2 -Wall -o ${program} ${join(packageRoot(), `bench/${name}.c`)} -lpthread`);
    this.#compiled.set(name, program);
    return program;
  }

  /** Run a shell line to its end, stdin and stdout from and to a file; throws when any part of it fails. Seconds. */
  run(line: string, input = '/dev/null', output = '/dev/null'): number {
    const [from, to] = [openSync(input, 'r'), openSync(output, 'w')];
    const start = performance.now();
    const { status } = spawnSync('bash', ['-o', 'pipefail', '-c', line], {
      stdio: [from, to, 2],
      env: this.environment,
    });
    const seconds = (performance.now() - start) / 1000;
    closeSync(from);
    closeSync(to);
    if (status !== 0) throw new Error(`${line} ended with ${status}`);
    return seconds;
  }

  /** What a shell line prints. */
  ask(line: string): string {
    this.run(line, '/dev/null', this.path('answer'));
    return readFileSync(this.path('answer'), 'utf8');
  }

  /** Peak resident memory of a shell command in kB, by /usr/bin/time. */
  peak(command: string, input = '/dev/null', output = '/dev/null'): number {
    this.run(`/usr/bin/time -f %M -o ${this.path('peak')} ${command}`, input, output);
    return Number(readFileSync(this.path('peak'), 'utf8').trim().split('\n').at(-1));
  }

  /** A pod of this name that runs `memory hold`; resolves when its memory is filled. */
  async hold(name: string, mebibytes: number, content: 'mixed' | 'noise'): Promise<Holder> {
    const told = this.path(`${name}.told`);
    const last = content === 'noise' ? ' noise' : '';
    this.run(`pod-run --name ${name} --cwd / -d -- ${this.memory} hold ${mebibytes} ${told}${last}`);
    this.#pods.add(name);
    while (!existsSync(told) || !readFileSync(told, 'utf8').endsWith('\n')) await nap(20);
    return new Holder(() => this.mainProcess(name), readFileSync(told, 'utf8'));
  }

  /** Host pid of the topmost process of a pod. */
  mainProcess(name: string): number {
    const entry = JSON.parse(readFileSync(this.path(`run/pods/${name}.json`), 'utf8')) as { init: number };
    return sessionRoots(entry.init)[0]!;
  }

  /** A pod of this name was made by a command, and close() shall end it. */
  adopt(name: string): void {
    this.#pods.add(name);
  }

  /** A pod of this name has ended by itself. */
  forget(name: string): void {
    this.#pods.delete(name);
  }

  /** Dump a pod into a file and end it. */
  take(name: string, image: string): void {
    this.run(`pod-dump --then kill ${name}`, '/dev/null', image);
    this.forget(name);
  }

  end(name: string): void {
    this.run(`pod-kill ${name}`);
    this.forget(name);
  }

  close(): void {
    try {
      for (const name of [...this.#pods]) this.end(name);
    } finally {
      for (const folder of [this.folder, this.#programs]) rmSync(folder, { recursive: true, force: true });
    }
  }
}

export const nap = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A process that sits on its memory and counts heartbeats. */
export class Holder {
  /** Address of its filled memory. */
  readonly start: bigint;
  readonly #pid: () => number;
  readonly #beat: bigint;

  /** `told`: what `memory hold` wrote. */
  constructor(pid: () => number, told: string) {
    const [beat, memory] = told.trim().split(' ');
    this.#pid = pid;
    this.#beat = BigInt(beat!);
    this.start = BigInt(memory!);
  }

  get pid(): number {
    return this.#pid();
  }

  /** Heartbeats so far, and the longest time between two since forget(), in seconds. */
  beats(pid = this.pid): { count: bigint; longestGap: number } {
    const words = new BigUint64Array(2);
    native().readMemory(pid, this.#beat, new Uint8Array(words.buffer));
    return { count: words[0]!, longestGap: Number(words[1]!) / 1e9 };
  }

  forget(): void {
    native().writeMemory(this.pid, this.#beat + 8n, new Uint8Array(8));
  }

  /** Wait until the process (or another one made from its image) has counted on; throws when it does not in 5 s. */
  async goesOn(pid = this.pid): Promise<void> {
    const { count } = this.beats(pid);
    for (let tries = 0; tries < 500; tries += 1) {
      await nap(10);
      if (this.beats(pid).count > count + 2n) return;
    }
    throw new Error(`process ${pid} does not go on`);
  }
}
