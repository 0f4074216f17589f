import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';

export interface Outcome {
  /** Exit status; undefined when a signal ended it. */
  status: number | undefined;
  signal: string | undefined;
  output: Buffer;
  stderr: string;
  milliseconds: number;
  /** It did not end in time and was killed. */
  hung: boolean;
  /** Its reader left, because it was not done in the time it was given. */
  slow?: boolean;
}

/** No run of the kit should come near this. */
const limit = 60_000;

/** Run a program with these pieces as its input, each a write of its own. */
export function runProgram(
  path: string,
  args: readonly string[],
  pieces: readonly Uint8Array[],
): Promise<Outcome> {
  return new Promise((resolve) => {
    const start = performance.now();
    const child = spawn(path, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    const output: Buffer[] = [];
    let stderr = '';
    let hung = false;
    const timer = setTimeout(() => {
      hung = true;
      child.kill('SIGKILL');
    }, limit);
    child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => (stderr = (stderr + chunk.toString()).slice(-4096)));
    const done = (status: number | undefined, signal: string | undefined): void => {
      clearTimeout(timer);
      const milliseconds = performance.now() - start;
      resolve({ status, signal, output: Buffer.concat(output), stderr, milliseconds, hung });
    };
    child.on('error', (cause) => {
      stderr += cause.message;
      done(undefined, 'not started');
    });
    child.on('close', (status, signal) => done(status ?? undefined, signal ?? undefined));
    // It may leave before it read all: that is its right.
    child.stdin.on('error', () => undefined);
    void (async () => {
      for (const piece of pieces) {
        if (child.stdin.destroyed) return;
        await new Promise((next) => child.stdin.write(piece, next));
      }
      child.stdin.end();
    })();
  });
}

export interface Stall {
  outcome: Outcome;
  /** Most memory it held, in bytes. */
  peak: number;
}

/**
 * Run a program whose output nobody reads: for `pause` ms (then it is read, for `patience` ms at most), or, with
 * `close`, never, the output being closed after its first bytes.
 */
export function runStalled(
  path: string,
  args: readonly string[],
  input: (write: (chunk: Uint8Array) => Promise<boolean>) => Promise<void>,
  how: { pause?: number; patience?: number; close?: boolean },
): Promise<Stall> {
  return new Promise((resolve) => {
    const start = performance.now();
    const child = spawn(path, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    let stderr = '';
    let peak = 0;
    let hung = false;
    let slow = false;
    const output: Buffer[] = [];
    const watch = setInterval(() => (peak = Math.max(peak, treeMemory(child.pid!))), 100);
    const timer = setTimeout(() => {
      hung = true;
      child.kill('SIGKILL');
    }, limit);
    child.stderr.on('data', (chunk: Buffer) => (stderr = (stderr + chunk.toString()).slice(-4096)));
    child.stdin.on('error', () => undefined);
    if (how.close) {
      child.stdout.once('data', () => child.stdout.destroy());
    } else {
      child.stdout.pause();
      const leave = setTimeout(() => {
        slow = true;
        child.stdout.destroy();
      }, how.pause! + how.patience!);
      child.on('close', () => clearTimeout(leave));
      setTimeout(() => {
        peak = Math.max(peak, treeMemory(child.pid!));
        child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
        child.stdout.resume();
      }, how.pause);
    }
    child.on('error', (cause) => (stderr += cause.message));
    child.on('close', (status, signal) => {
      clearInterval(watch);
      clearTimeout(timer);
      const milliseconds = performance.now() - start;
      const outcome = {
        status: status ?? undefined,
        signal: signal ?? undefined,
        output: Buffer.concat(output),
        stderr,
        milliseconds,
        hung,
        slow,
      };
      resolve({ outcome, peak });
    });
    const write = (chunk: Uint8Array): Promise<boolean> =>
      new Promise((next) => {
        if (child.stdin.destroyed || child.exitCode !== null) next(false);
        else child.stdin.write(chunk, (cause) => next(!cause));
      });
    void input(write).then(() => child.stdin.end());
  });
}

/** Resident memory of a process and its children, in bytes: what of it is not files or shared with others. */
function treeMemory(pid: number): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const own = Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
    return (
      own +
      (children === '' ? 0 : children.split(' ').reduce((sum, each) => sum + treeMemory(Number(each)), 0))
    );
  } catch {
    return 0;
  }
}
