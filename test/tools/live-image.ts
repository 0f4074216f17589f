/** The image of a live session of one of test/programs, for tests that change it before they restart it. */
import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Surroundings } from './bad-input.ts';
import { buildProgram, readProgram } from './programs.ts';
import { RunningProgram } from './running-program.ts';

/** Run the program in a pod named as it is, dump it, end it. */
export async function dumpProgram(home: Surroundings, name: string): Promise<Buffer> {
  const executable = await buildProgram(readProgram(name));
  const folder = join(home.work, name);
  mkdirSync(folder);
  chmodSync(folder, 0o777);
  const must = async (command: [string, ...string[]]) => {
    const ended = await home.run({ command });
    if (ended.status !== 0)
      throw new Error(`${command.join(' ')} ended with ${ended.status}: ${ended.stderr}`);
    return ended.stdout;
  };
  await must(['pod-run', '-d', '--name', name, '--', executable, folder]);
  await new RunningProgram(folder).ready();
  const image = await must(['pod-dump', name]);
  await must(['pod-kill', name]);
  return image;
}
