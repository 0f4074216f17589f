/** The stick as its owner has prepared it: ext4, the session's whole root on it, and a place for its images. */
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../native/package-root.ts';
import { makeStick } from '../kernels/disk.ts';
import { addProgram, findTool } from '../pod/make-root.ts';
import { buildProgram, readProgram } from '../tools/programs.ts';
import type { Travel } from './job.ts';

const size = 512 << 20;

/** Makes `image`; `folder` is for what goes onto it. */
export async function prepareStick(
  image: string,
  folder: string,
  travel: Travel,
  secret: string,
): Promise<void> {
  const root = join(folder, 'root');
  for (const name of ['home', 'proc', 'dev', 'tmp']) mkdirSync(join(root, name), { recursive: true });
  addProgram(root, findTool('sh'), 'bin/sh');
  addProgram(root, process.execPath, 'bin/node');
  copyFileSync(join(packageRoot(), 'examples/life.js'), join(root, 'home/life.js'));
  // life.js is a module; there is no package.json above it that says so.
  writeFileSync(join(root, 'home/package.json'), '{"type":"module"}\n');
  copyFileSync(join(packageRoot(), 'test/stick/session.sh'), join(root, 'home/session.sh'));
  writeFileSync(join(root, 'home', travel.diary), `${secret}\n`);
  for (const name of travel.checks) {
    addProgram(root, await buildProgram(readProgram(name)), join('home/checks', name));
    const work = join(root, 'home/work', name);
    mkdirSync(work, { recursive: true });
    chmodSync(work, 0o777);
  }
  mkdirSync(join(folder, travel.name));
  makeStick(image, travel.label, folder, size);
}
