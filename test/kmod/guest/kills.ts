/**
 * kill -9 of who reads /dev/pod, at random moments: while the session is being stopped, while the stream is read, while
 * the descriptor closes. Whatever the moment: all programs go on.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../../native/package-root.ts';
import { until } from '../../tools/running-program.ts';
import { finishPlain, type PlainSession, startPlain } from './plain-session.ts';

/** Threads with all registers in use, processes with pipes, shared memory, queues of signals. */
const programs = ['registers', 'pipes', 'memory-shared', 'signal-pending'];
/** Each fifth reader is pod-dump, which mostly waits for its own start. */
const everyOther = 5;
/** Longest that the small reader lives, ms; it dumps over and over. */
const longest = 400;

/** What the small reader says it is doing, in a byte of a file (test/kmod/guest/reader.c). */
const phases = ['not begun', 'stopping', 'reading', 'ending', 'letting go'];
const phaseFile = '/tmp/pod-phase';

async function killReader(reader: string, pid: number): Promise<string> {
  writeFileSync(phaseFile, '\0');
  const child = spawn(reader, ['loop', String(pid), phaseFile], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk) => (said += chunk));
  const ended = new Promise<number | string>((resolve) =>
    child.on('close', (code, signal) => resolve(signal ?? code ?? 'gone')),
  );
  // Most while it dumps, and a few before.
  if (Math.random() < 0.9) await until(() => readFileSync(phaseFile)[0] !== 0 || child.exitCode !== null);
  await sleep(Math.random() * longest);
  child.kill('SIGKILL');
  const status = await ended;
  if (status !== 'SIGKILL') throw new Error(`the reader ended with ${status} before its kill: ${said}`);
  return phases[readFileSync(phaseFile)[0]!]!;
}

async function killPodDump(pid: number, longestMs: number): Promise<string> {
  const output = openSync('/dev/null', 'w');
  const child = spawn(join(packageRoot(), 'dist/bin/pod-dump'), ['--engine', 'kmod', String(pid)], {
    // Half of them splice, into a pipe that nobody reads.
    stdio: ['ignore', Math.random() < 0.5 ? 'pipe' : output, 'ignore'],
  });
  closeSync(output);
  const ended = new Promise<number | string>((resolve) =>
    child.on('exit', (code, signal) => resolve(signal ?? code ?? 'gone')),
  );
  await sleep(Math.random() * longestMs);
  child.kill('SIGKILL');
  const status = await ended;
  child.stdout?.destroy();
  if (status !== 'SIGKILL' && status !== 0) throw new Error(`pod-dump ended with ${status} before its kill`);
  return status === 0 ? 'pod-dump, too late' : 'pod-dump';
}

/** Time that pod-dump takes here, ms. */
async function measure(pid: number): Promise<number> {
  const start = performance.now();
  const child = spawn(join(packageRoot(), 'dist/bin/pod-dump'), ['--engine', 'kmod', String(pid)], {
    stdio: 'ignore',
  });
  const status = await new Promise((resolve) => child.on('exit', resolve));
  if (status !== 0) throw new Error(`pod-dump ends with ${status}`);
  return performance.now() - start;
}

/** How many kills came when. Throws when something of a program stands still, or complains. */
export async function runKills(
  rounds: number,
  reader: string,
  say: (sentence: string) => void,
): Promise<string> {
  const sessions: PlainSession[] = [];
  const counts = new Map<string, number>();
  let round = 0;
  try {
    for (const program of programs) sessions.push(await startPlain(program));
    const dumpMs = await measure(sessions[0]!.pid);
    for (; round < rounds; round++) {
      const { pid } = sessions[Math.floor(Math.random() * sessions.length)]!;
      const moment = await (round % everyOther === everyOther - 1
        ? killPodDump(pid, dumpMs)
        : killReader(reader, pid));
      counts.set(moment, (counts.get(moment) ?? 0) + 1);
      for (const { program, running } of sessions) {
        try {
          await running.beatOn(1);
        } catch (cause) {
          throw new Error(`${program} after a kill while ${moment}: ${(cause as Error).message}`, { cause });
        }
      }
      if ((round + 1) % 10 === 0) say(`${round + 1} kills`);
    }
    for (const session of sessions) await finishPlain(session);
  } catch (cause) {
    throw new Error(`kill ${round + 1}: ${(cause as Error).stack}`, { cause });
  } finally {
    for (const { running } of sessions) await running.remove();
  }
  return [...counts].map(([moment, count]) => `${moment}: ${count}`).join(', ');
}
