/** A self-checking program at work: its folder, its protocol (see test/programs/pod-test.h), and its end. */
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { native } from '../../native/index.ts';
import { removeFolder } from './remove-folder.ts';

/** Most that anything of a test may take, ms: the machine may be busy, and an emulated one is slow besides. */
export const patience = Number(process.env['POD_TEST_PATIENCE'] ?? 60_000);

/** Wait until `probe` gives something; undefined after `limit` ms. */
export async function until<T>(probe: () => T | undefined | false, limit = patience): Promise<T | undefined> {
  for (const end = Date.now() + limit; ; await sleep(10)) {
    const value = probe();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > end) return undefined;
  }
}

/** Descriptors that this process got from its own caller are nobody's business: no program of a test inherits them. */
export function keepDescriptors(): void {
  const fcntl = 72;
  const setFlags = 2;
  const closeOnExec = 1;
  // One by one: Linux 5.10 cannot do it for a range.
  for (const fd of readdirSync('/proc/self/fd')
    .map(Number)
    .filter((each) => each > 2)) {
    try {
      native().syscall(fcntl, fd, setFlags, closeOnExec);
    } catch {
      // The one that the folder was read through.
    }
  }
}

/** A fresh folder for one program, writable for whoever it turns into. */
export function makeProgramFolder(name: string): string {
  const folder = mkdtempSync(join(tmpdir(), `pod-test-${name}-`));
  chmodSync(folder, 0o777);
  return folder;
}

/** The program that works in a folder, however it was started. */
export class RunningProgram {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  #read(name: string): string | undefined {
    try {
      return readFileSync(join(this.folder, name), 'utf8');
    } catch {
      return undefined;
    }
  }

  /** What it wrote so far: `ok`, `fail: …`, or undefined. */
  get result(): string | undefined {
    return this.#read('result')?.trim();
  }

  get beats(): number {
    return Number(this.#read('beat') ?? 0);
  }

  /** Its pid as it sees it, once it is ready. Throws when it failed before, or never got there. */
  async ready(): Promise<number> {
    await until(() => existsSync(join(this.folder, 'ready')) || this.result);
    const pid = Number(this.#read('ready') ?? 0);
    if (pid > 0 && this.result === undefined) return pid;
    throw new Error(`not ready: ${this.result ?? 'no sign of life'}`);
  }

  /** Wait until it has turned `turns` times more. Throws when it stands still or reports a failure. */
  async beatOn(turns = 3): Promise<void> {
    const goal = this.beats + turns;
    await until(() => this.beats >= goal || this.result !== undefined);
    if (this.result !== undefined) throw new Error(`failed while it was turning: ${this.result}`);
    if (this.beats < goal) throw new Error(`stands still at beat ${this.beats}`);
  }

  /** Ask for the last check; its result. */
  async finish(): Promise<string> {
    writeFileSync(join(this.folder, 'go'), '');
    return (await until(() => this.result)) ?? `no result, last beat ${this.beats}`;
  }

  /** Host pids of all processes that were started for this folder (it is in their arguments). */
  pids(): number[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => {
        if (pid === process.pid) return false;
        try {
          return readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0').includes(this.folder);
        } catch {
          return false;
        }
      });
  }

  /** End what is left of it. */
  async end(): Promise<void> {
    await until(() => {
      const left = this.pids();
      // All stand still before the first is gone: nobody shall see another's end and complain of it.
      for (const signal of ['SIGSTOP', 'SIGKILL'] as const) {
        for (const pid of left) {
          try {
            process.kill(pid, signal);
          } catch {
            // It went by itself.
          }
        }
      }
      return left.length === 0;
    }, 5_000);
  }

  /** End what is left of it, and remove its folder. */
  async remove(): Promise<void> {
    await this.end();
    removeFolder(this.folder);
  }
}
