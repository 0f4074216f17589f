import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { formatBytes, Progress, parseBytes, progressSink } from '../../lib/cli/progress.ts';

t.test('sizes for people, there and back', async (t) => {
  t.equal(formatBytes(0), '0 B');
  t.equal(formatBytes(1023), '1023 B');
  t.equal(formatBytes(1536), '1.5 KiB');
  t.equal(formatBytes(1024 ** 3 - 1), '1.0 GiB');
  t.equal(formatBytes(5e17), '444 PiB');
  t.equal(parseBytes('2G'), 2 ** 31);
  t.equal(parseBytes('1.5MiB'), 1.5 * 2 ** 20);
  t.equal(parseBytes('700'), 700);
  t.equal(parseBytes('many'), undefined);
  t.equal(parseBytes('-1'), undefined);
});

t.test('JSON lines', async (t) => {
  const folder = mkdtempSync('/tmp/pod-progress-');
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'lines');
  const fd = openSync(file, 'w');
  const progress = new Progress('test', { fd, total: 30, terminal: false });
  let got = 0;
  const sink = progressSink(
    { write: (c) => (got += c.length), end: () => undefined, abort: () => undefined },
    progress,
  );
  sink.write(new Uint8Array(10));
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 520);
  sink.write(new Uint8Array(20));
  sink.end();
  closeSync(fd);
  const lines = readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  t.match(lines, [
    { stage: 'test', state: 'running', bytes: 30, total: 30 },
    { stage: 'test', state: 'done', bytes: 30, total: 30 },
  ]);
  t.equal(got, 30);
});

t.test('a failure is told', async (t) => {
  const folder = mkdtempSync('/tmp/pod-progress-');
  t.teardown(() => rmSync(folder, { recursive: true }));
  const fd = openSync(join(folder, 'lines'), 'w');
  const progress = new Progress('test', { fd, terminal: false });
  progressSink({ write: () => undefined, end: () => undefined, abort: () => undefined }, progress).abort(
    new Error('x'),
  );
  closeSync(fd);
  t.match(JSON.parse(readFileSync(join(folder, 'lines'), 'utf8')), { state: 'failed', total: null });
});

t.test('a reader that stalls or is gone does not hold up the work', async (t) => {
  const script = `
    import { Progress } from ${JSON.stringify(new URL('../../lib/cli/progress.js', import.meta.url).href)};
    const progress = new Progress('test', { fd: 3, terminal: false });
    for (let i = 0; i < 200_000; i++) { const other = new Progress('test', { fd: 3, terminal: false }); other.finish(); if (i > 2000) break; }
    progress.finish();
  `;
  const folder = mkdtempSync('/tmp/pod-progress-');
  t.teardown(() => rmSync(folder, { recursive: true }));
  spawnSync('mkfifo', [join(folder, 'fifo')]);
  // Open for both, and never read: 2000 lines are more than a pipe holds.
  const fd = openSync(join(folder, 'fifo'), 'r+');
  const result = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'ignore', 'pipe', fd],
    timeout: 60_000,
    encoding: 'utf8',
  });
  closeSync(fd);
  t.equal(result.status, 0, result.stderr);
});
