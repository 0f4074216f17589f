/**
 * The self-checking programs by themselves: each passes when nobody touches it, and each damage that it can do to
 * its own object makes it fail. Without this, a program that checks nothing would prove the engine right.
 */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { buildProgram, listPrograms, type Program } from '../tools/programs.ts';
import { makeProgramFolder, RunningProgram } from '../tools/running-program.ts';

async function runAlone(program: Program, executable: string, damage?: string): Promise<string> {
  const running = new RunningProgram(makeProgramFolder(program.name));
  const log = openSync(join(running.folder, 'log'), 'a');
  const options = damage === undefined ? [] : ['--break', damage];
  const child = spawn(executable, [running.folder, ...options], {
    detached: true,
    stdio: ['ignore', log, log],
  });
  closeSync(log);
  const ended = new Promise<string>((resolve) => {
    child.on('exit', (code, signal) => resolve(`${code ?? signal}`));
    child.on('error', (error) => resolve(error.message));
  });
  try {
    await running.ready();
    if (damage === undefined) await running.beatOn();
    const result = await running.finish();
    if (result !== 'ok') return result;
    const status = await ended;
    return status === '0' ? result : `${result} with exit status ${status}`;
  } catch (error) {
    // Some damage is seen at once, before anybody asks.
    if (damage !== undefined && running.result) return running.result;
    return `${(error as Error).message}\n${readFileSync(join(running.folder, 'log'), 'utf8')}`;
  } finally {
    await running.remove();
  }
}

const wanted = process.env['POD_TEST_PROGRAMS']?.split(',');
const programs = listPrograms().filter(
  (program) => !program.podOnly && (wanted === undefined || wanted.includes(program.name)),
);

t.jobs = 4;
t.setTimeout(600_000);
for (const program of programs) {
  if (program.rootOnly && process.getuid!() !== 0) continue;
  t.test(program.name, { buffered: true, timeout: 120_000, skip: program.lacking ?? false }, async (t) => {
    const executable = await buildProgram(program);
    t.ok(existsSync(executable));
    t.equal(await runAlone(program, executable), 'ok', 'passes when nobody touches it');
    t.ok(program.breaks.length > 0, 'can damage its object');
    for (const damage of program.breaks) {
      t.match(await runAlone(program, executable, damage), /^fail: /, `sees ${damage}`);
    }
  });
}
