/** pod.ko for a kernel of the test machines. */
import { execFile } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { packageRoot } from '../../native/package-root.ts';
import type { Kernel } from '../kernels/kernel.ts';

const run = promisify(execFile);

/** Debian's headers name the compiler of their day; any later one that is here does. */
const compiler = () => ['/usr/bin/gcc-12', '/usr/bin/gcc'].find(existsSync) ?? 'gcc';

/** From 6.12 on the build wants a vmlinux with types for BTF, and pahole. A warning is a failure. */
const settings = [
  'CONFIG_DEBUG_INFO_BTF_MODULES=',
  'PAHOLE_VERSION=0',
  'CONFIG_PAHOLE_VERSION=0',
  'KCFLAGS=-Werror',
];

/** Build it in a folder of its own below build/, what has changed of it; its path, and what the build had to say. */
export async function buildModule(
  { name: kernel }: Pick<Kernel, 'name'>,
  headers: string,
  /** Headers that bring their own compiler: the folder of its programs. */
  programs?: string,
): Promise<{ module: string; said: string }> {
  const folder = join(packageRoot(), 'build/kmod', kernel);
  mkdirSync(folder, { recursive: true });
  const source = join(packageRoot(), 'kmod');
  const isSource = (name: string) => /\.[ch]$|^Makefile$/.test(name) && !name.endsWith('.mod.c');
  const names = readdirSync(source).filter(isSource);
  for (const name of readdirSync(folder).filter(isSource))
    if (!names.includes(name)) rmSync(join(folder, name));
  for (const name of names) {
    const [from, to] = [join(source, name), join(folder, name)];
    if (!existsSync(to) || !readFileSync(from).equals(readFileSync(to))) copyFileSync(from, to);
  }
  const { stderr } = await run(
    'make',
    [
      ...['-C', headers, `M=${folder}`, `-j${availableParallelism()}`],
      ...settings,
      ...(programs ? [] : [`CC=${compiler()}`]),
      'modules',
    ],
    {
      timeout: 900_000,
      maxBuffer: 16 << 20,
      env: { ...process.env, PATH: [programs, process.env['PATH']].filter(Boolean).join(':') },
    },
  );
  return { module: join(folder, 'pod.ko'), said: stderr };
}

/** What reads /dev/pod in the guests (guest/reader.c); its path. */
export async function buildReader(): Promise<string> {
  const target = readerPath();
  mkdirSync(dirname(target), { recursive: true });
  const flags = ['-std=gnu11', '-D_GNU_SOURCE', '-Wall', '-Wextra', '-Werror', '-O2'];
  const source = join(packageRoot(), 'test/kmod/guest/reader.c');
  await run(process.env['CC'] ?? 'gcc', [...flags, '-I', join(packageRoot(), 'kmod'), source, '-o', target]);
  return target;
}

export const readerPath = () => join(packageRoot(), 'build/kmod/reader');
