/** What a module is built against: Debian's headers of a kernel that fetchKernel() brought, kept beside it. */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { Apt } from '../kernels/apt.ts';
import { type Kernel, type KernelSource, kernelCache } from '../kernels/kernel.ts';

const run = promisify(execFile);

/** The folder to build against (KDIR). */
export async function fetchHeaders(
  source: KernelSource,
  kernel: Kernel,
  say: (sentence: string) => void,
): Promise<string> {
  const folder = dirname(kernel.vmlinux);
  const done = join(folder, 'headers');
  const top = join(done, `usr/src/linux-headers-${kernel.release}`);
  if (!existsSync(top)) {
    const apt = new Apt(join(kernelCache(), `apt-${source.suite}`), [source.suite]);
    const name = `linux-headers-${kernel.release}`;
    say(`${source.name}: downloading ${name}`);
    await apt.update();
    const more = (await apt.depends(name)).filter((each) => /^linux-(headers|kbuild)-/.test(each));
    const work = mkdtempSync(join(folder, '.partial-'));
    try {
      const tree = join(work, 'tree');
      mkdirSync(tree);
      for (const each of [name, ...more])
        await run('dpkg-deb', ['-x', await apt.download(each, join(work, 'deb')), tree]);
      renameSync(tree, done);
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }
  // The packages think that they are installed; this also holds when the cache was moved.
  const makefile = join(top, 'Makefile');
  const text = readFileSync(makefile, 'utf8');
  const right = text.replace(/^include .*(\/usr\/src\/\S+)$/m, `include ${done}$1`);
  if (text !== right) writeFileSync(makefile, right);
  return top;
}
