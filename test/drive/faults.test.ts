/** Real drives that fail: full, read-only, gone, broken. Each must keep the last good generation current. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, rmSync, statfsSync, truncateSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { listGenerations } from '../../lib/drive/index.ts';
import { expectReceipt, waitForReceipt } from '../../lib/runtime/receipt.ts';
import { environment, makeFolder, type Outcome, runShell } from '../tools/commands.ts';
import {
  type Drive,
  type DriveType,
  kernelHas,
  makeDrive,
  mount,
  remount,
  run,
  unmount,
  whyNoDrive,
} from '../tools/drive.ts';
import { imageIdOf, streamBytes } from '../tools/make-stream.ts';

const lab = makeFolder(t);
const runtime = join(lab, 'run');
mkdirSync(runtime, { mode: 0o700 });
process.env.POD_RUNTIME_DIR = runtime;

const good = streamBytes({ seed: 1, size: 2 << 20, layer: 'encrypt' });

/** A drive with one good generation of the pod `quake`. */
function makeStick(
  test: Test,
  type: DriveType,
  mebibytes = type === 'vfat' ? 48 : 24,
): Drive & { pod: string } {
  const drive = makeDrive(test, type, mebibytes);
  const pod = join(drive.path, 'quake');
  const result = runShell(`pod-store ${pod}`, runtime, good);
  test.equal(result.status, 0, result.stderr);
  return { ...drive, pod };
}

function checkGood(test: Test, pod: string): void {
  const result = runShell(`pod-load ${pod}`, runtime);
  test.equal(result.status, 0, result.stderr);
  test.ok(result.stdout.equals(good), 'the last good generation is current and whole');
}

/**
 * Start pod-store, send it half a stream, do something to the drive, send the rest. The drive is asked for more
 * segments all the time.
 */
async function storeThrough(pod: string, bytes: Buffer, midway: () => void): Promise<Outcome> {
  const child = spawn('pod-store', ['--segment-size', '256k', pod], {
    env: environment(runtime),
    stdio: ['pipe', 'ignore', 'pipe'],
  });
  const stderr: Buffer[] = [];
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  child.stdin.on('error', () => undefined);
  const half = bytes.length >> 1;
  await new Promise<void>((resolve) => child.stdin.write(bytes.subarray(0, half), () => resolve()));
  // All but a pipe's worth is with the store now; give it the time to write that too.
  await new Promise((resolve) => setTimeout(resolve, 300));
  midway();
  child.stdin.end(bytes.subarray(half));
  const [status] = (await once(child, 'close')) as [number | null];
  return { status: status ?? -1, stdout: Buffer.alloc(0), stderr: Buffer.concat(stderr).toString() };
}

const next = streamBytes({ seed: 2, size: 4 << 20, layer: 'encrypt' });

for (const type of ['ext4', 'vfat'] as const) {
  const why = whyNoDrive(type);
  t.test(type, { skip: why ?? false }, async (t) => {
    t.test('a whole round', async (t) => {
      const { pod, by } = makeStick(t, type);
      t.comment(`${type} by ${by}`);
      checkGood(t, pod);
      const result = runShell(
        `pod-store --segment-size 1M ${pod} && pod-load ${pod} && pod-load --verify ${pod} >&2`,
        runtime,
        next,
      );
      t.equal(result.status, 0, result.stderr);
      t.ok(result.stdout.equals(next));
      t.same(
        listGenerations(pod).map(({ generation, state }) => [generation, state]),
        [
          [2, 'complete'],
          [1, 'complete'],
        ],
      );
    });

    t.test('full', { skip: onlyKernel(type) }, async (t) => {
      const { pod } = makeStick(t, type);
      const result = runShell(
        `$MAKE --seed 3 --size 60M --layer encrypt 2>/dev/null | pod-store ${pod}`,
        runtime,
      );
      t.equal(result.status, 13, result.stderr);
      t.match(result.stderr, /error: the drive is full: /);
      checkGood(t, pod);
      await t.rejects(waitForReceipt(imageIdOf(3)), { name: 'PodError', failure: 'drive' });
      const again = runShell(`pod-store ${pod}`, runtime, next);
      t.equal(again.status, 0, 'the room is free again');
    });

    t.test('full of generations that would go anyway', { skip: onlyKernel(type) }, async (t) => {
      const { pod, path } = makeStick(t, type);
      const room = () => {
        const { bavail, bsize } = statfsSync(path);
        return bavail * bsize;
      };
      runShell(`$MAKE --seed 7 --size 6M --layer encrypt | pod-store ${pod}`, runtime);
      t.equal(listGenerations(pod).length, 2);
      fill(join(path, 'ballast'), room() - (5 << 20));
      const result = runShell(
        `$MAKE --seed 8 --size 6M --layer encrypt | pod-store --keep 2 ${pod}`,
        runtime,
      );
      t.equal(result.status, 0, result.stderr);
      t.same(
        listGenerations(pod).map((each) => each.generation),
        [3, 2],
      );
      // HEAD's own is never given up, even when only one is to be kept.
      const more = runShell(
        `$MAKE --seed 9 --size 20M --layer encrypt 2>/dev/null | pod-store --keep 1 ${pod}`,
        runtime,
      );
      t.equal(more.status, 13);
      t.equal(listGenerations(pod).find((each) => each.current)?.generation, 3);
      t.equal(runShell(`pod-load --verify -g 3 ${pod}`, runtime).status, 0);
    });

    t.test('read-only', { skip: onlyKernel(type) }, async (t) => {
      const stick = makeStick(t, type);
      remount(stick, 'ro');
      const result = runShell(`pod-store ${stick.pod}`, runtime, next);
      t.equal(result.status, 13);
      t.match(result.stderr, /error: the drive is mounted read-only: /);
      const fresh = runShell(`pod-store ${stick.path}/new`, runtime, next);
      t.equal(fresh.status, 13);
      t.match(fresh.stderr, /error: the drive is mounted read-only: /);
      checkGood(t, stick.pod);
    });

    t.test('unmounted in the middle', { skip: onlyKernel(type) }, async (t) => {
      const stick = makeStick(t, type);
      expectReceipt(imageIdOf(2));
      const result = await storeThrough(stick.pod, next, () => unmount(stick.path, true));
      t.equal(result.status, 13, result.stderr);
      t.match(result.stderr, /error: the drive is gone: /);
      await t.rejects(waitForReceipt(imageIdOf(2)), { name: 'PodError', failure: 'drive' });
      t.equal(runShell(`pod-load ${stick.pod}`, runtime).status, 13);
      // Plugged in again: what was good still is.
      await mountAgain(stick);
      checkGood(t, stick.pod);
    });

    t.test('the folder is removed in the middle', { skip: onlyKernel(type) }, async (t) => {
      const { pod } = makeStick(t, type);
      const result = await storeThrough(pod, next, () => rmSync(pod, { recursive: true }));
      t.equal(result.status, 13, result.stderr);
      t.match(result.stderr, /error: the drive (is gone|fails)/);
    });
  });
}

t.test('a drive that breaks: EIO', { skip: whyNoDrive('ext4') ?? false }, async (t) => {
  const stick = makeStick(t, 'ext4', 64);
  // Whether EIO comes first or ext4, which then turns read-only, is a matter of luck.
  // The device ends before its file system does: whatever is beyond fails, as on a drive with a dead chip.
  truncateSync(stick.image, 12 << 20);
  const loop = execFileSync('losetup', ['-j', stick.image, '-n', '-O', 'NAME'], { encoding: 'utf8' }).trim();
  t.equal(run('losetup', '-c', loop), undefined);
  const result = runShell(
    `$MAKE --seed 4 --size 40M --layer encrypt 2>/dev/null | pod-store ${stick.pod}`,
    runtime,
  );
  t.equal(result.status, 13, result.stderr);
  t.match(result.stderr, /error: the drive (fails to read or write|is mounted read-only): /);
  checkGood(t, stick.pod);
  await t.rejects(waitForReceipt(imageIdOf(4)), { name: 'PodError', failure: 'drive' });
});

t.test('killed: short form of the campaign', { skip: whyNoDrive('ext4') ?? false }, async (t) => {
  const { runCampaign } = await import('./kill-campaign.ts');
  const result = await runCampaign({ type: 'ext4', rounds: 10, seed: Date.now() % 1_000_000 });
  t.equal(result.rounds, 10);
  t.same(result.failures, []);
});

function fill(file: string, bytes: number): void {
  const fd = openSync(file, 'w');
  const block = Buffer.alloc(1 << 16, 1);
  for (let left = bytes; left > 0; left -= block.length)
    writeSync(fd, block, 0, Math.min(left, block.length));
  closeSync(fd);
}

/** fusefat knows neither free room nor ENOSPC nor remounting, and hangs when open files are unlinked. */
function onlyKernel(type: DriveType): string | false {
  return !kernelHas(type) && 'fusefat does not carry this: it needs a kernel with vfat';
}

/** The lazily unmounted file system lives until its last file is closed. */
async function mountAgain(drive: Drive): Promise<void> {
  for (let tries = 0; ; tries++) {
    const problem = mount(drive);
    if (problem === undefined) return;
    if (tries === 50) throw new Error(problem);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
