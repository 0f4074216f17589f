import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { beginReceipt, expectReceipt, waitForReceipt } from '../../lib/runtime/receipt.ts';
import { type Failure, PodError } from '../../lib/stream/error.ts';

const folder = mkdtempSync('/tmp/pod-receipt-');
process.env.POD_RUNTIME_DIR = folder;
t.teardown(() => rmSync(folder, { recursive: true }));

const imageId = '0123456789abcdef0123456789abcdef';
const info = { drive: '/media/stick/quake', generation: 3, bytes: 1234, stored: '2026-01-01T00:00:00.000Z' };
const failing = (failure: Failure, message = /./) => ({ name: 'PodError', message, failure });
const left = () => readdirSync(join(folder, 'receipts'));

t.test('a commit reaches the waiter and leaves nothing behind', async (t) => {
  expectReceipt(imageId);
  const pending = beginReceipt(imageId);
  const waiting = waitForReceipt(imageId);
  setTimeout(() => pending.commit(info), 60);
  t.same(await waiting, { imageId, ...info });
  t.same(left(), []);
});

t.test('a commit before the wait is found', async (t) => {
  const pending = beginReceipt(imageId);
  pending.commit(info);
  pending.fail(new Error('too late to fail'));
  t.same(await waitForReceipt(imageId), { imageId, ...info });
});

t.test('a failed store gives its reason, class and hint', async (t) => {
  beginReceipt(imageId).fail(new PodError('drive', 'the drive is full', 'free some room'));
  await t.rejects(waitForReceipt(imageId), {
    name: 'PodError',
    failure: 'drive',
    message: 'the image was not stored: the drive is full',
    hint: 'free some room',
  });
  t.same(left(), []);
});

t.test('an old receipt does not count', async (t) => {
  beginReceipt(imageId).commit(info);
  expectReceipt(imageId);
  await t.rejects(waitForReceipt(imageId, { firstSignMs: 50 }), failing('upstream'));
});

t.test('a store that dies is seen, also as a zombie', async (t) => {
  const child = spawn('sleep', ['60']);
  const stat = readFileSync(`/proc/${child.pid}/stat`, 'latin1');
  const startTime = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]!;
  const file = join(folder, 'receipts', `${imageId}.pending`);
  writeFileSync(file, JSON.stringify({ pid: child.pid, startTime }));
  const waiting = waitForReceipt(imageId);
  setTimeout(() => child.kill('SIGKILL'), 60);
  await t.rejects(waiting, failing('drive', /died/));
  // The same pid, started at another time, is somebody else.
  writeFileSync(file, JSON.stringify({ pid: process.pid, startTime: '1' }));
  await t.rejects(waitForReceipt(imageId), failing('drive', /died/));
});

t.test('a store at work on the drive may take its time', async (t) => {
  const pending = beginReceipt(imageId);
  pending.working(false);
  pending.working(true);
  const waiting = waitForReceipt(imageId, { silenceMs: 40, firstSignMs: 10, intervalMs: 5 });
  setTimeout(() => pending.commit(info), 200);
  t.same(await waiting, { imageId, ...info });
  t.same(left(), []);
});

t.test('one that still gets input, too', async (t) => {
  const pending = beginReceipt(imageId);
  pending.working(false);
  const fed = setInterval(() => {
    pending.working(true);
    pending.working(false);
  }, 1);
  const waiting = waitForReceipt(imageId, { silenceMs: 2000, intervalMs: 5 });
  setTimeout(() => {
    clearInterval(fed);
    pending.seal();
    pending.commit(info);
  }, 3000);
  t.same(await waiting, { imageId, ...info });
});

t.test('one that waits in vain is given up, and told', async (t) => {
  const pending = beginReceipt(imageId);
  pending.working(false);
  await t.rejects(
    waitForReceipt(imageId, { silenceMs: 40, intervalMs: 5, explainSilence: () => 'a reason' }),
    {
      name: 'PodError',
      failure: 'upstream',
      message: /^pod-store got nothing for 0 s and still waits/,
      hint: 'a reason',
    },
  );
  t.throws(() => pending.seal(), failing('upstream', /given up/));
  pending.fail(new Error('given up'));
  t.same(left(), [], 'nobody waits for its word');

  // Another store under the same id is not meant.
  const second = beginReceipt(imageId);
  second.seal();
  second.commit(info);
  t.same(await waitForReceipt(imageId), { imageId, ...info });
  t.same(left(), []);
});

t.test('one that had all of the image before it was given up has the last word', async (t) => {
  const pending = beginReceipt(imageId);
  pending.working(false);
  pending.seal();
  const waiting = waitForReceipt(imageId, { silenceMs: 1, intervalMs: 5 });
  setTimeout(() => pending.commit(info), 100);
  t.same(await waiting, { imageId, ...info });
});

t.test('an image id is never a path', async (t) => {
  t.throws(() => beginReceipt('../../../../etc/passwd'), failing('damaged'));
  t.throws(() => expectReceipt('ABCDEF'), failing('damaged'));
});
