/**
 * The newest headers that Debian has, to compile the module against: what the next kernels change shows before anybody
 * runs them. They want the compiler of their own suite, and that its C library, which this computer has not: all of it
 * is unpacked beside them, never installed, and each program started through the loader that came with it.
 */
import { execFile } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Apt } from '../kernels/apt.ts';
import { kernelCache } from '../kernels/kernel.ts';

const run = promisify(execFile);

/** Where a new kernel comes first: which of them has the newest changes. The second suite gives what the first leaves out. */
const sources = [['trixie-backports', 'trixie'], ['sid']] as const;
const metaPackage = 'linux-headers-amd64';
/** Of all that headers depend on: what a module is built with. */
const needed =
  /^(linux-(headers|kbuild|base)-\d|(gcc|cpp)-\d+-x86-64-linux-gnu$|binutils-x86-64-linux-gnu$|lib(c6|elf1t64|zstd1|gmp10|mpfr6|mpc3|isl23|jansson4|binutils|stdc\+\+6)$|lib(gcc-|ctf|sframe)|zlib1g$)/;
/** Days after which the archive is asked again. */
const freshDays = 7;

export interface Newest {
  release: string;
  /** To build against (KDIR). */
  headers: string;
  /** Programs that come before those of $PATH. */
  programs: string;
}

/** What newest.json says. */
interface Kept {
  release: string;
  /** Where it was unpacked: the loaders are named by their whole path. */
  place: string;
  /** ms since 1970. */
  asked: number;
}

const at = (place: string, release: string): Newest => ({
  release,
  headers: join(place, `usr/src/linux-headers-${release}`),
  programs: join(place, 'usr/bin'),
});

/** From the cache or the archive. */
export async function fetchNewest(say: (sentence: string) => void): Promise<Newest> {
  const folder = join(kernelCache(), 'newest');
  const state = join(folder, 'newest.json');
  mkdirSync(folder, { recursive: true });
  const kept = existsSync(state) ? (JSON.parse(readFileSync(state, 'utf8')) as Kept) : undefined;
  const here = kept?.place.startsWith(`${folder}/`) && existsSync(kept.place) ? kept : undefined;
  if (here && Date.now() - here.asked < freshDays * 86_400_000) return at(here.place, here.release);
  let best: { apt: Apt; release: string } | undefined;
  for (const suites of sources) {
    const apt = new Apt(join(kernelCache(), `apt-${suites[0]}`), suites, 'debian');
    await apt.update();
    const name = (await apt.depends(metaPackage)).find((each) => /^linux-headers-\d/.test(each));
    const release = name?.slice('linux-headers-'.length);
    if (release && (!best || (await isNewer(release, best.release)))) best = { apt, release };
  }
  if (!best) throw new Error(`${metaPackage} names no headers`);
  const { apt, release } = best;
  const place = join(folder, release);
  if (here?.release !== release) {
    say(`newest: downloading headers and compiler of ${release}`);
    await unpack(apt, release, folder, place);
    for (const old of readdirSync(folder))
      if (join(folder, old) !== place && old !== 'newest.json')
        rmSync(join(folder, old), { recursive: true, force: true });
  }
  writeFileSync(state, JSON.stringify({ release, place, asked: Date.now() } satisfies Kept));
  return at(place, release);
}

async function isNewer(a: string, b: string): Promise<boolean> {
  return run('dpkg', ['--compare-versions', a, 'gt', b]).then(
    () => true,
    () => false,
  );
}

async function unpack(apt: Apt, release: string, folder: string, place: string): Promise<void> {
  rmSync(place, { recursive: true, force: true });
  const work = mkdtempSync(join(folder, '.partial-'));
  try {
    const tree = join(work, 'tree');
    mkdirSync(tree);
    const packages = (await apt.dependsDeep(`linux-headers-${release}`)).filter((name) => needed.test(name));
    for (const name of packages)
      await run('dpkg-deb', ['-x', await apt.download(name, join(work, 'deb')), tree]);
    for (const part of ['usr/bin', 'usr/libexec', 'usr/lib'])
      for (const path of readdirSync(join(tree, part), { recursive: true, encoding: 'utf8' }))
        startByOwnLoader(join(tree, part, path), place, join(place, part, path));
    const makefile = join(tree, `usr/src/linux-headers-${release}/Makefile`);
    // They think that they are installed.
    writeFileSync(
      makefile,
      readFileSync(makefile, 'utf8').replace(/(^include |=)\/usr\/src\//gm, `$1${place}/usr/src/`),
    );
    renameSync(tree, place);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** `path` will be `later`, in `place`. */
function startByOwnLoader(path: string, place: string, later: string): void {
  const { mode, size } = lstatSync(path);
  const isProgram = (mode & 0o170111) === 0o100111 && size > 64;
  if (!isProgram) return;
  const start = readFileSync(path).subarray(0, 4096);
  if (start.readUInt32BE() !== 0x7f454c46 || !start.includes('/ld-linux-x86-64.so.2')) return;
  renameSync(path, `${path}.elf`);
  const loader = `${place}/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2`;
  writeFileSync(
    path,
    `#!/bin/sh\nexec '${loader}' --library-path '${place}/usr/lib/x86_64-linux-gnu' --argv0 "$0" '${later}.elf' "$@"\n`,
  );
  chmodSync(path, 0o755);
}
