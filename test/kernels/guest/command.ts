/** Run a command of ours in the guest, as root or as an ordinary user, and keep what it said. */
import { type StdioOptions, spawn } from 'node:child_process';
import { chownSync, closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../../native/package-root.ts';
import type { ProgramJob } from '../job.ts';

export const nobody = 65534;
/** Against a hang only, ms: what takes a second may take a minute where many such machines share a processor. */
const limit = 600_000;

export interface Ended {
  status: number | string;
  story: string;
}

/** `input` and `output` are paths. */
export async function command(
  words: readonly string[],
  as: ProgramJob['as'],
  input?: string,
  output?: string,
): Promise<Ended> {
  const runtime = `/run/pod-${as}`;
  const errors = `/tmp/stderr-${as}`;
  mkdirSync(runtime, { recursive: true, mode: 0o700 });
  if (as === 'nobody') chownSync(runtime, nobody, nobody);
  const user = as === 'nobody' ? { uid: nobody, gid: nobody } : {};
  const files = [
    input ? openSync(input, 'r') : 'ignore',
    output ? openSync(output, 'w') : 'ignore',
    // A file: a pod that outlives the command may keep it.
    openSync(errors, 'w', 0o666),
  ] as const;
  const [program, ...args] = words as [string, ...string[]];
  const start = performance.now();
  try {
    const child = spawn(program, args, {
      stdio: [...files] as StdioOptions,
      cwd: '/',
      env: {
        PATH: `${join(packageRoot(), 'dist/bin')}:${process.env['PATH']}`,
        POD_RUNTIME_DIR: runtime,
        POD_DEBUG: '1',
      },
      ...user,
    });
    const watch = setTimeout(() => child.kill('SIGKILL'), limit);
    const status = await new Promise<number | string>((resolve) => {
      child.on('exit', (code, signal) => resolve(code ?? signal ?? 'gone'));
      child.on('error', (error) => resolve(error.message));
    });
    clearTimeout(watch);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    return {
      status,
      story: `${words.join(' ')}: ${status} after ${seconds} s\n${readFileSync(errors, 'utf8')}`,
    };
  } finally {
    for (const file of files) if (typeof file === 'number') closeSync(file);
  }
}
