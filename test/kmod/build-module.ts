/** pod.ko for a kernel of the test machines. */
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packageRoot } from '../../native/package-root.ts';
import type { Kernel } from '../kernels/kernel.ts';

const run = promisify(execFile);

/** Of the 6.12 build wants a vmlinux with types for BTF, and 5.10's names a compiler of its day. */
const settings = ['CONFIG_DEBUG_INFO_BTF_MODULES=', 'CC=gcc-12'];

/** Build it in a folder of its own below build/; its path, and what compiler and checks had to say. */
export async function buildModule(
  kernel: Kernel,
  headers: string,
  more: readonly string[] = [],
): Promise<{ module: string; said: string }> {
  const folder = join(packageRoot(), 'build/kmod', kernel.name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const source = join(packageRoot(), 'kmod');
  for (const name of readdirSync(source).filter((each) => /\.[ch]$|^Makefile$/.test(each)))
    copyFileSync(join(source, name), join(folder, name));
  const jobs = '-j2';
  const { stderr } = await run(
    'make',
    ['-C', headers, `M=${folder}`, jobs, ...settings, ...more, 'modules'],
    {
      timeout: 600_000,
      maxBuffer: 16 << 20,
    },
  );
  return { module: join(folder, 'pod.ko'), said: stderr };
}
