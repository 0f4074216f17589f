/**
 * Kill pod-dump with SIGKILL at random moments of its work, again and again, and see that the program it was
 * dumping never notices: it beats on, no task of it stays stopped or traced, and in the end its own checks hold.
 *
 * Moments: one half are spread over the whole duration of a dump (measured first, start-up of Node included), one
 * half over the time from the first seized task on, where the injection of system calls happens.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../native/package-root.ts';
import { heldTasks } from './cycle.ts';
import { buildProgram, readProgram } from './programs.ts';
import { keepDescriptors, makeProgramFolder, RunningProgram, until } from './running-program.ts';

export interface Campaign {
  program: string;
  rounds: number;
  /** Told every now and then how far it is. */
  progress?: (sentence: string) => void;
}

/** What a campaign did; `failure` says why it stopped. */
export interface CampaignResult {
  rounds: number;
  /** Kills that found tasks seized, that came while none was, and (not counted as rounds) after the end. */
  seized: number;
  early: number;
  late: number;
  dumpMs: number;
  seizedMs: number;
  failure: string | undefined;
}

const podDump = () => join(packageRoot(), 'dist/bin/pod-dump');

/** Whether any task of the process is traced. Any: the dumper seizes them one after the other. */
function isSeized(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).some((tid) => {
      const status = readFileSync(`/proc/${pid}/task/${tid}/status`, 'latin1');
      return !status.includes('\nTracerPid:\t0\n');
    });
  } catch {
    return false;
  }
}

/** Look without sleeping, as the moments are shorter than a timer's; false when `end` (ms) passed first. */
function spinUntil(condition: () => boolean, end: number): boolean {
  while (!condition()) if (performance.now() > end) return false;
  return true;
}

/** Time of a whole dump, and from the first seized task to the end, ms. Throws when the dump fails. */
async function measure(pid: number): Promise<{ whole: number; seized: number }> {
  const start = performance.now();
  const child = spawn(process.execPath, [podDump(), String(pid)], { stdio: ['ignore', 'ignore', 'pipe'] });
  let errors = '';
  child.stderr.on('data', (data) => (errors += data));
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  spinUntil(() => isSeized(pid), start + 20_000);
  const seizedAt = performance.now();
  spinUntil(() => !isSeized(pid), seizedAt + 20_000);
  const releasedAt = performance.now();
  const status = await ended;
  if (status !== 0) throw new Error(`pod-dump ended with ${status}: ${errors}`);
  return { whole: performance.now() - start, seized: releasedAt - seizedAt };
}

/** Run a campaign against a fresh instance of a program. */
export async function runCampaign({ program: name, rounds, progress }: Campaign): Promise<CampaignResult> {
  keepDescriptors();
  const executable = await buildProgram(readProgram(name));
  const running = new RunningProgram(makeProgramFolder(name));
  const log = openSync(join(running.folder, 'log'), 'a');
  spawn(executable, [running.folder], { detached: true, stdio: ['ignore', log, log], cwd: '/' }).unref();
  closeSync(log);
  const result: CampaignResult = {
    rounds: 0,
    seized: 0,
    early: 0,
    late: 0,
    dumpMs: 0,
    seizedMs: 0,
    failure: undefined,
  };
  try {
    const pid = await running.ready();
    await running.beatOn();
    for (let i = 0; i < 3; i++) {
      const { whole, seized } = await measure(pid);
      // The fastest: on a busy machine the others would send most kills behind the end.
      if (result.dumpMs === 0 || whole < result.dumpMs)
        Object.assign(result, { dumpMs: whole, seizedMs: seized });
    }
    await running.beatOn();
    for (let attempts = 0; result.rounds < rounds; attempts++) {
      if (attempts > rounds * 3)
        throw new Error(`only ${result.rounds} of ${attempts} kills found a dump at work`);
      const child = spawn(process.execPath, [podDump(), String(pid)], {
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      let errors = '';
      child.stderr.on('data', (data) => (errors += data));
      const ended = new Promise<string | number>((resolve) =>
        child.on('exit', (code, signal) => resolve(signal ?? code ?? 'gone')),
      );
      const start = performance.now();
      if (attempts % 2 === 0) {
        await sleep(Math.random() * result.dumpMs * 1.05);
      } else if (spinUntil(() => isSeized(pid), start + result.dumpMs * 3)) {
        // The first milliseconds oftener than the rest: cubed, half of the moments lie in the first eighth.
        const moment = performance.now() + Math.random() ** 3 * result.seizedMs;
        spinUntil(() => performance.now() >= moment, Infinity);
      }
      const seized = isSeized(pid);
      child.kill('SIGKILL');
      const status = await ended;
      // A kill that came after the end was none.
      if (status !== 'SIGKILL') result.late++;
      else if (seized) result.seized++;
      else result.early++;
      result.rounds = result.seized + result.early;
      if (status !== 'SIGKILL' && status !== 0)
        throw new Error(`pod-dump ended with ${status} before its kill: ${errors}`);

      const held = () => heldTasks(pid);
      if (!(await until(() => held().length === 0, 5_000))) {
        throw new Error(`after the kill these tasks are held: ${held().join(', ')}`);
      }
      if (stoppedTasks(pid).length > 0 && !(await until(() => stoppedTasks(pid).length === 0, 2_000))) {
        throw new Error(`after the kill these tasks are stopped: ${stoppedTasks(pid).join(', ')}`);
      }
      await running.beatOn(1);
      if (status === 'SIGKILL' && result.rounds % 25 === 0) progress?.(`${name}: ${result.rounds} kills`);
    }
    const last = await running.finish();
    if (last !== 'ok') throw new Error(`the program says: ${last}`);
  } catch (error) {
    const tasks = running.pids().flatMap((pid) => heldTasks(pid));
    result.failure = `round ${result.rounds}: ${(error as Error).message} ${running.result ?? ''} ${tasks.join(', ')}`;
  } finally {
    await running.remove();
  }
  return result;
}

/** Tasks stopped by a signal: none of these programs stops by itself. */
function stoppedTasks(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`).filter((tid) =>
      readFileSync(`/proc/${pid}/task/${tid}/status`, 'latin1').includes('\nState:\tT'),
    );
  } catch {
    return [];
  }
}

/** The programs of a campaign: much is going on in each, in many threads. */
export const campaignPrograms = ['syscall-storm', 'registers', 'blocked-calls'] as const;
