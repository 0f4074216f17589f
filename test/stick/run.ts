/**
 * `npm run demo:stick`, `npm run test:stick`: a session travels on a USB stick between two computers, and goes on by
 * itself where the stick is plugged in. See docs/pod-drive.md. Exit 0 when everything held, 1 when something did not.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fetchKernel } from '../kernels/fetch-kernel.ts';
import { type Kernel, kernelSources } from '../kernels/kernel.ts';
import { findUdevd } from './find-udevd.ts';
import { playScene } from './scene.ts';

const start = performance.now();
const color = process.stdout.isTTY
  ? (code: string, text: string) => `\x1b[${code}m${text}\x1b[0m`
  : (_: string, text: string) => text;

const elapsed = () => `${((performance.now() - start) / 1000).toFixed(0).padStart(4)} s`;
/** A log takes no colours. */
const plain = process.stdout.isTTY
  ? (text: string) => text
  : (text: string) => text.replace(/\x1b\[[0-9;]*m/g, '');

function fail(message: string, hint?: string): never {
  console.error(`stick: error: ${message}`);
  if (hint) console.error(`stick: hint: ${hint}`);
  process.exit(1);
}

const path = `${process.env['PATH']}:/usr/sbin:/sbin`;
const isHere = (command: string) =>
  spawnSync('sh', ['-c', `command -v ${command}`], { env: { ...process.env, PATH: path } }).status === 0;
const packages = new Map([
  ['qemu-system-x86', isHere('qemu-system-x86_64')],
  ['busybox-static', isHere('busybox')],
  ['e2fsprogs', isHere('mkfs.ext4')],
  ['udev', isHere('udevadm') && findUdevd() !== undefined],
  ['age', isHere('age-keygen')],
  ['xz-utils', isHere('xz')],
  ['zstd', isHere('zstd')],
]);
const missing = [...packages].filter(([, here]) => !here).map(([name]) => name);
if (missing.length > 0)
  fail(`${missing.join(', ')} not found`, `on Debian: apt-get install ${missing.join(' ')}`);

/** Told by the kernel's name; who it is when there is none. */
async function kernelOf(name: string): Promise<Kernel> {
  const source = kernelSources.find((each) => each.name === name)!;
  try {
    return await fetchKernel(source, (sentence) => console.log(sentence));
  } catch (error) {
    const { message, cause } = error as Error;
    return fail(
      `Linux ${name} cannot be had: ${message} ${cause instanceof Error ? cause.message.split('\n')[0] : ''}`.trim(),
      'it comes from Debian, through apt: is its archive reachable?',
    );
  }
}

const kernels = { office: await kernelOf('6.1'), home: await kernelOf('6.12') };
const folder = mkdtempSync(join(tmpdir(), 'pod-stick-'));
process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
// Nothing is left of a run that was broken off: neither computers nor disks.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));

let passed = 0;
const failed: string[] = [];
try {
  await playScene({
    kernels,
    folder,
    title: (text) => console.log(`\n${color('1', `# ${text}`)}`),
    show: (who, text) => {
      for (const line of text.split('\n'))
        console.log(
          `${elapsed()} ${who.padEnd(6)} │ ${line.startsWith('$ ') ? color('36', line) : plain(line)}`,
        );
    },
    check: (what, problem) => {
      if (problem === undefined) passed += 1;
      else failed.push(what);
      console.log(
        problem === undefined
          ? `${color('32', 'ok')}     ${what}`
          : `${color('31', 'NOT OK')} ${what}: ${problem}`,
      );
    },
  });
} catch (error) {
  failed.push((error as Error).message.split('\n')[0]!);
  console.error(`stick: error: ${(error as Error).message}`);
}
const seconds = ((performance.now() - start) / 1000).toFixed(0);
console.log(`\n${passed} checks passed, ${failed.length} failed (${seconds} s)`);
process.exit(failed.length > 0 || passed === 0 ? 1 : 0);
