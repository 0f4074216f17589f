/** A self-checking program as a plain session of the guest: the module dumps no pod that has a console. */
import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildProgram, readProgram } from '../../tools/programs.ts';
import { RunningProgram } from '../../tools/running-program.ts';

export interface PlainSession {
  program: string;
  running: RunningProgram;
  pid: number;
}

/** Start it and wait until it works. `executable`: a copy of it, elsewhere. */
export async function startPlain(program: string, executable?: string): Promise<PlainSession> {
  const folder = mkdtempSync(join(tmpdir(), `pod-plain-${program}-`));
  chmodSync(folder, 0o777);
  const running = new RunningProgram(folder);
  const path = executable ?? (await buildProgram(readProgram(program)));
  // `detached` is setsid: a session of its own.
  spawn(path, [folder], { detached: true, stdio: 'ignore', cwd: '/' }).unref();
  try {
    const pid = await running.ready();
    await running.beatOn(1);
    return { program, running, pid };
  } catch (cause) {
    await running.remove();
    throw new Error(`${program}: ${(cause as Error).message}`, { cause });
  }
}

/** Let it judge itself. Throws what it complains of. */
export async function finishPlain({ program, running }: PlainSession): Promise<void> {
  await running.beatOn();
  const result = await running.finish();
  if (result !== 'ok') throw new Error(`${program} says: ${result}`);
}
