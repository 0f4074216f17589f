/**
 * A command that is given bad input, and what must hold of it whatever the input is: it ends by itself, says one
 * cause in one line (and a hint), gives the next stage nothing that passes for a whole stream, takes no more
 * memory than it should, and leaves no file, no pod and no process behind.
 */
import { spawn } from 'node:child_process';
import {
  chownSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PodError } from '../../lib/stream/error.ts';
import { StreamParser } from '../../lib/stream/stream-parser.ts';
import { packageRoot } from '../../native/package-root.ts';

/** Most memory of a command, KiB. */
export const mostMemory = 150 << 10;
/** Longest that a command may take, ms: only what hangs takes so long. */
const patience = 90_000;
const nobody = 65534;

interface Teardown {
  teardown(handler: () => void): unknown;
}

export interface Ended {
  /** Exit status; a name when it died of a signal. */
  status: number | string;
  stdout: Buffer;
  stderr: string;
  /** Peak of the memory that was its own, KiB, as far as it was seen. */
  memory: number;
}

export interface Run {
  /** Command and arguments; the first is looked for in dist/bin. */
  command: readonly [string, ...string[]];
  /** Standard input: bytes, or a file that is opened (`/dev/zero`). Default: no bytes. */
  input?: Uint8Array | string;
  env?: NodeJS.ProcessEnv;
}

/** A user's surroundings: folders of his own, and all that came into being in them. */
export class Surroundings {
  readonly folder: string;
  /** Working directory of every command. */
  readonly work: string;
  readonly #mark: string;
  readonly #as: 'self' | 'nobody';
  #known = new Set<string>();

  /** `nobody`: commands run as an ordinary user, when the test itself is root. */
  constructor(t: Teardown, as: 'self' | 'nobody' = 'self') {
    this.folder = mkdtempSync(join(tmpdir(), 'pod-bad-input-'));
    t.teardown(() => rmSync(this.folder, { recursive: true, force: true }));
    this.#as = process.getuid!() === 0 ? as : 'self';
    this.work = join(this.folder, 'work');
    for (const path of [this.work, join(this.folder, 'run'), join(this.folder, 'tmp')]) {
      mkdirSync(path, { mode: 0o700 });
      if (this.#as === 'nobody') chownSync(path, nobody, nobody);
    }
    if (this.#as === 'nobody') chownSync(this.folder, nobody, nobody);
    this.#mark = `POD_TEST_MARK=${this.folder}`;
  }

  get environment(): NodeJS.ProcessEnv {
    const { NODE_EXTRA_CA_CERTS: _slow, POD_DEBUG: _more, ...rest } = process.env;
    return {
      ...rest,
      PATH: `${join(packageRoot(), 'dist/bin')}:${process.env.PATH}`,
      POD_RUNTIME_DIR: join(this.folder, 'run'),
      POD_TEST_MARK: this.folder,
      HOME: this.work,
      TMPDIR: join(this.folder, 'tmp'),
      LC_ALL: 'C',
    };
  }

  /** Take what is there now as given: only what comes later counts as left behind. */
  settle(): void {
    this.#known = new Set(this.#files());
  }

  run({ command: [name, ...args], input = new Uint8Array(0), env = {} }: Run): Promise<Ended> {
    const switched = `--reuid=${nobody} --regid=${nobody} --clear-groups --`.split(' ');
    const path = join(packageRoot(), 'dist/bin', name);
    const argv = [process.execPath, path, ...args];
    const [program, ...rest] = (this.#as === 'nobody' ? ['setpriv', ...switched, ...argv] : argv) as [string];
    const file = typeof input === 'string' ? openSync(input, 'r') : undefined;
    const child = spawn(program, rest, {
      cwd: this.work,
      env: { ...this.environment, ...env },
      stdio: [file ?? 'pipe', 'pipe', 'pipe'],
    });
    if (file !== undefined) closeSync(file);
    // A command that has seen enough goes without reading the rest.
    child.stdin?.on('error', () => undefined);
    if (typeof input !== 'string') child.stdin?.end(input);
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout!.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr!.on('data', (chunk: Buffer) => stderr.push(chunk));
    let memory = 0;
    const look = setInterval(() => {
      memory = Math.max(memory, peakOf(child.pid!));
    }, 20);
    const limit = setTimeout(() => child.kill('SIGKILL'), patience);
    return new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code, signal) => {
        clearInterval(look);
        clearTimeout(limit);
        resolve({
          status: code ?? signal ?? 'gone',
          stdout: Buffer.concat(stdout),
          stderr: Buffer.concat(stderr).toString(),
          memory,
        });
      });
    });
  }

  /** What is left of commands that ended: files, pods, processes. */
  leftovers(): string[] {
    const files = this.#files().filter((path) => !this.#known.has(path));
    return [...files.map((path) => `file ${path}`), ...this.#processes()];
  }

  #files(): string[] {
    return (
      readdirSync(this.folder, { recursive: true, encoding: 'utf8' })
        // The runtime directory's own furniture, and the word that a store leaves for a waiting dumper.
        .filter((path) => !/^run\/(pods|receipts)$|^run\/receipts\/[0-9a-f]{32}\.(json|failed)$/.test(path))
        .sort()
    );
  }

  /** Processes that were started in these surroundings, however far from here they are now. */
  #processes(): string[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .flatMap((pid) => {
        try {
          if (!readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(this.#mark)) return [];
          return [`process ${pid} ${readFileSync(`/proc/${pid}/comm`, 'utf8').trim()}`];
        } catch {
          return [];
        }
      });
  }
}

function peakOf(pid: number): number {
  try {
    return Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** What is wrong with how a command failed; undefined when nothing is. */
export function faultOf(name: string, ended: Ended): string | undefined {
  const { status, stdout, stderr, memory } = ended;
  if (typeof status !== 'number') return `it was ended by ${status}: ${stderr}`;
  if (memory > mostMemory) return `it took ${memory >> 10} MiB`;
  if (status === 0) return undefined;
  const text = `${name}: (error|hint|warning): [^\\n]*[^\\n.]\\n`;
  if (!new RegExp(`^(${text})+$`).test(stderr)) return `it says ${JSON.stringify(stderr)}`;
  const kinds = stderr
    .split('\n')
    .slice(0, -1)
    .map((line) => line.slice(name.length + 2).split(':')[0]);
  const at = kinds.indexOf('error');
  const after = kinds.slice(at + 1).join();
  if (at < 0 || (after !== 'hint' && after !== '')) return `it says ${JSON.stringify(stderr)}`;
  if (classOf(stdout) === 'done') return 'what it wrote passes for a whole stream';
  return undefined;
}

/** What a stage that only carries bytes makes of a stream: `done`, or a failure class. */
export function classOf(bytes: Uint8Array): string {
  const parser = new StreamParser({ frame() {}, end() {}, abort() {} }, { unknownCritical: true });
  try {
    parser.write(bytes);
    parser.end();
    return 'done';
  } catch (cause) {
    if (!(cause instanceof PodError)) throw cause;
    return cause.failure;
  }
}

/** Run jobs, so many at once; the first that throws ends it. */
export async function together(jobs: readonly (() => Promise<void>)[], lanes = 2): Promise<void> {
  let next = 0;
  const lane = async () => {
    for (let job = jobs[next++]; job; job = jobs[next++]) await job();
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}

/** `npm run test:bad-input`: every input into every command. `npm test` takes some of each. */
export const thorough = process.env['POD_BAD_INPUT'] === 'all';

/** All of a list, or every n-th of it. */
export function some<Value>(list: readonly Value[], every: number): Value[] {
  return list.filter((_each, index) => thorough || index % every === 0);
}
