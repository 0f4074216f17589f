/** What /dev/pod says to wrong requests, and that a session goes on whatever becomes of its reader. */
import { spawn } from 'node:child_process';
import { chmodSync, closeSync, mkdirSync, mkdtempSync, openSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Device } from '../../../lib/engine/kmod/device.ts';
import { native } from '../../../native/index.ts';
import { packageRoot } from '../../../native/package-root.ts';
import { buildProgram, readProgram } from '../../tools/programs.ts';
import { RunningProgram, until } from '../../tools/running-program.ts';

const ioctl = 16;
/** A guest without hardware help on a busy machine may need a minute to start node, ms. */
const slowly = 300_000;

export function errorOf(body: () => unknown): string {
  try {
    body();
    return 'none';
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code ?? String(cause);
  }
}

export function expect(what: string, found: string, wanted: string): void {
  if (found !== wanted) throw new Error(`${what}: ${found}, should be ${wanted}`);
}

const requestFor = (pid: number) => ({
  target: { name: 'check', roots: [pid], rooted: false },
  producer: 'check',
  imageId: '0'.repeat(32),
  cpuFeatures: [],
});

function readAll(device: Device): Buffer {
  const chunks: Buffer[] = [];
  // An odd size, so that every piece of the stream is cut somewhere.
  const buffer = new Uint8Array(3001);
  for (let length = device.read(buffer); length > 0; length = device.read(buffer))
    chunks.push(Buffer.from(buffer.subarray(0, length)));
  return Buffer.concat(chunks);
}

function checkErrors(pid: number): void {
  const raw = openSync('/dev/pod', 'r');
  expect(
    'an unknown request',
    errorOf(() => native().syscall(ioctl, raw, 0x50ff, 0)),
    'ENOTTY',
  );
  expect(
    'a request of zeros',
    errorOf(() => native().syscall(ioctl, raw, 0xe25850d0, new Uint8Array(8792))),
    'EINVAL',
  );
  expect(
    'a request at no address',
    errorOf(() => native().syscall(ioctl, raw, 0xe25850d0, 1)),
    'EFAULT',
  );
  closeSync(raw);
  const none = new Device();
  expect(
    'read before the dump',
    errorOf(() => none.read(new Uint8Array(10))),
    'EINVAL',
  );
  expect(
    'check before the dump',
    errorOf(() => none.check()),
    'EINVAL',
  );
  expect(
    'kill before the dump',
    errorOf(() => none.kill()),
    'EINVAL',
  );
  expect(
    'no such process',
    errorOf(() => none.dump(requestFor(4_000_000))),
    'ESRCH',
  );
  const said = readAll(none);
  if (!said.includes('there is no process 4000000')) throw new Error('the ERROR does not name the process');
  expect(
    'check of an ERROR',
    errorOf(() => none.check()),
    'EIO',
  );
  none.close();
  const self = new Device();
  expect(
    'who dumps himself',
    errorOf(() => self.dump(requestFor(process.pid))),
    'EDEADLK',
  );
  self.close();
  const twice = new Device();
  twice.dump(requestFor(pid));
  expect(
    'a second dump',
    errorOf(() => twice.dump(requestFor(pid))),
    'EBUSY',
  );
  expect(
    'kill before the stream was read',
    errorOf(() => twice.kill()),
    'EAGAIN',
  );
  expect(
    'check before the stream was read',
    errorOf(() => twice.check()),
    'EAGAIN',
  );
  twice.close();
}

/** A reader that is killed, or stops reading, in the middle of the stream. */
async function checkReaders(running: RunningProgram, pid: number): Promise<void> {
  const early = new Device();
  early.dump(requestFor(pid));
  early.read(new Uint8Array(1000));
  early.close();
  await running.beatOn();
  for (let turn = 0; turn < 3; turn++) {
    // Nobody reads: it fills the pipe and waits there.
    const dumper = spawn(join(packageRoot(), 'dist/bin/pod-dump'), ['--engine', 'kmod', String(pid)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let said = '';
    dumper.stderr.on('data', (chunk) => {
      said += chunk;
    });
    let before = -1;
    let still = 0;
    const stands = await until(() => {
      still = before === running.beats ? still + 1 : 0;
      before = running.beats;
      if (dumper.exitCode !== null) throw new Error(`pod-dump ended with ${dumper.exitCode}: ${said}`);
      // Probes are some ten milliseconds apart.
      return still > 100 + 20 * turn;
    }, slowly);
    if (!stands) throw new Error(`the session was not stopped ${said}`);
    dumper.kill('SIGKILL');
    await running.beatOn();
    dumper.stdout.destroy();
  }
}

export async function checkDevice(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'pod-device-'));
  chmodSync(folder, 0o755);
  const running = new RunningProgram(join(folder, 'work'));
  mkdirSync(running.folder);
  chmodSync(running.folder, 0o777);
  const executable = await buildProgram(readProgram('memory-private'));
  spawn(executable, [running.folder], { detached: true, stdio: 'ignore', cwd: '/' }).unref();
  try {
    const pid = await running.ready();
    await running.beatOn(1);
    checkErrors(pid);
    await running.beatOn();
    await checkReaders(running, pid);
    const result = await running.finish();
    return result === 'ok' ? 'ok' : result;
  } finally {
    await running.remove();
  }
}
