/** Bring a kernel to this computer, or take the one that is there: resolve, download, unpack, never install. */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Apt } from './apt.ts';
import { type Kernel, type KernelSource, kernelCache } from './kernel.ts';
import { extractVmlinux } from './vmlinux.ts';

const run = promisify(execFile);

/** PACKAGE FOLDER PATTERN…; tar fails when a pattern finds nothing. */
const unpackScript =
  'set -o pipefail; tree=$1; shift; dpkg-deb --fsys-tarfile "$0" | tar -x -C "$tree" --wildcards "$@"';

/** Days after which the archive is asked whether there is a newer one. */
const freshDays = 7;

/** Folders of modules that a test machine may need; all of them would be four hundred megabytes a kernel. */
const moduleFolders = [
  'arch/x86/crypto',
  'block',
  'crypto',
  'fs',
  'lib',
  'net/9p',
  'net/ipv4',
  'net/netlink',
  'net/packet',
  'net/unix',
  'drivers/block',
  'drivers/char',
  'drivers/scsi',
  'drivers/usb',
  'drivers/virtio',
];

/** What DIR/current.json says of the kernel that is kept. */
interface Current {
  release: string;
  /** The folders that were unpacked. */
  folders: readonly string[];
  /** When the archive was asked, ms since 1970. */
  asked: number;
}

function readCurrent(folder: string): Current | undefined {
  const path = join(folder, 'current.json');
  if (!existsSync(path)) return undefined;
  const current = JSON.parse(readFileSync(path, 'utf8')) as Current;
  const whole = moduleFolders.every((each) => current.folders?.includes(each));
  return whole && existsSync(join(folder, current.release, 'vmlinux')) ? current : undefined;
}

function writeCurrent(folder: string, current: Current): void {
  const path = join(folder, 'current.json');
  writeFileSync(`${path}.partial`, JSON.stringify(current));
  renameSync(`${path}.partial`, path);
}

/** The kernel, from the cache or the archive. `say` is told of what takes long. */
export async function fetchKernel(source: KernelSource, say: (sentence: string) => void): Promise<Kernel> {
  const folder = join(kernelCache(), source.name);
  mkdirSync(folder, { recursive: true });
  const kept = readCurrent(folder);
  const kernel = (release: string): Kernel => ({
    name: source.name,
    release,
    vmlinux: join(folder, release, 'vmlinux'),
    modules: join(folder, release, 'modules'),
  });
  if (kept && Date.now() - kept.asked < freshDays * 86_400_000) return kernel(kept.release);
  try {
    const apt = new Apt(join(kernelCache(), `apt-${source.suite}`), [source.suite]);
    await apt.update();
    const name = await apt.resolve(source.metaPackage);
    const release = name.slice('linux-image-'.length);
    if (kept?.release !== release) {
      say(`${source.name}: downloading ${name}`);
      await unpack(apt, name, release, folder);
    }
    writeCurrent(folder, { release, folders: moduleFolders, asked: Date.now() });
    if (kept && kept.release !== release) rmSync(join(folder, kept.release), { recursive: true });
    return kernel(release);
  } catch (error) {
    if (!kept) throw error;
    say(`${source.name}: ${(error as Error).message}; ${kept.release} of the cache serves`);
    return kernel(kept.release);
  }
}

async function unpack(apt: Apt, name: string, release: string, folder: string): Promise<void> {
  const work = mkdtempSync(join(folder, '.partial-'));
  try {
    const deb = await apt.download(name, join(work, 'deb'));
    const tree = join(work, 'tree');
    mkdirSync(tree);
    const patterns = [
      './boot/vmlinuz-*',
      './lib/modules/*/modules.builtin',
      ...moduleFolders.map((each) => `./lib/modules/*/kernel/${each}/*`),
    ];
    await run('bash', ['-c', unpackScript, deb, tree, ...patterns], { timeout: 300_000 });
    const done = join(work, 'done');
    mkdirSync(done);
    extractVmlinux(join(tree, 'boot', `vmlinuz-${release}`), join(done, 'vmlinux'));
    renameSync(join(tree, 'lib/modules', release), join(done, 'modules'));
    rmSync(join(folder, release), { recursive: true, force: true });
    renameSync(done, join(folder, release));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
