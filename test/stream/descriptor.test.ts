import { spawn, spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { DescriptorSink, pump, readDescriptor } from '../../lib/stream/descriptor.ts';
import type { PodError } from '../../lib/stream/error.ts';

const folder = mkdtempSync(join(tmpdir(), 'pod-descriptor-'));
t.teardown(() => rmSync(folder, { recursive: true }));

t.test('gathers small chunks, keeps their order among large ones', async (t) => {
  const path = join(folder, 'out');
  const sink = new DescriptorSink(openSync(path, 'w'));
  const expected: Buffer[] = [];
  const chunk = new Uint8Array(200_000);
  for (let i = 0; i < 500; i += 1) {
    const piece = chunk.subarray(0, i % 50 === 0 ? 150_000 + i : i * 13);
    piece.fill(i);
    expected.push(Buffer.from(piece));
    sink.write(piece);
    // The chunk is the caller's again.
    piece.fill(0xee);
  }
  sink.end();
  const bytes = Buffer.concat(expected);
  t.equal(sink.bytes, bytes.length);
  t.ok(readFileSync(path).equals(bytes));
});

t.test('end closes, unless told otherwise', async (t) => {
  const fd = openSync(join(folder, 'kept'), 'w');
  new DescriptorSink(fd, { close: false }).end();
  closeSync(fd);
  const closed = openSync(join(folder, 'closed'), 'w');
  new DescriptorSink(closed).end();
  t.throws(() => closeSync(closed), { code: 'EBADF' });
});

t.test('a reader that went away is named as such', async (t) => {
  const fifo = join(folder, 'fifo');
  spawnSync('mkfifo', [fifo]);
  const reader = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
  const sink = new DescriptorSink(openSync(fifo, 'w'));
  closeSync(reader);
  const error = (() => {
    try {
      for (let i = 0; i < 100; i += 1) sink.write(new Uint8Array(100_000));
    } catch (cause) {
      return cause as PodError;
    }
    throw new Error('nothing was thrown');
  })();
  t.match(error.message, /reader of the output went away/);
  t.doesNotThrow(() => sink.abort(error));
});

t.test('non-blocking descriptors of others are waited for, both ways', async (t) => {
  const fifo = join(folder, 'slow');
  spawnSync('mkfifo', [fifo]);
  const bytes = Buffer.alloc(3 << 20, 'slow reader');
  // The reader sleeps first, so that the pipe is full; its input is read by `cat` from a non-blocking descriptor.
  const reader = spawn('sh', ['-c', `sleep 0.3; cat ${fifo} > ${folder}/slow.out`]);
  const fd = await new Promise<number>((resolve) => {
    const tryOpen = () => {
      try {
        resolve(openSync(fifo, constants.O_WRONLY | constants.O_NONBLOCK));
      } catch {
        setTimeout(tryOpen, 20);
      }
    };
    tryOpen();
  });
  const sink = new DescriptorSink(fd);
  for (let at = 0; at < bytes.length; at += 300_000) sink.write(bytes.subarray(at, at + 300_000));
  sink.end();
  await new Promise((resolve) => reader.on('close', resolve));
  t.ok(readFileSync(join(folder, 'slow.out')).equals(bytes));

  const writer = spawn('sh', ['-c', `sleep 0.3; printf late > ${fifo}`]);
  const keepOpen = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
  const target = new Uint8Array(10);
  const readFd = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
  t.equal(readDescriptor(readFd, target), 4);
  closeSync(keepOpen);
  closeSync(readFd);
  await new Promise((resolve) => writer.on('close', resolve));
});

t.test('pump aborts the sink with the first cause and throws it', async (t) => {
  const path = join(folder, 'input');
  writeFileSync(path, 'abc');
  const calls: unknown[] = [];
  const cause = new Error('no');
  const sink = {
    write: (chunk: Uint8Array) => void calls.push(Buffer.from(chunk).toString()),
    end: () => {
      throw cause;
    },
    abort: (why: unknown) => void calls.push(why),
  };
  t.throws(() => pump(openSync(path, 'r'), sink), cause);
  t.strictSame(calls, ['abc', cause]);
});

t.test('a standard descriptor ends for its reader, and nobody gets its number', (t) => {
  const module = new URL('../../lib/stream/descriptor.js', import.meta.url).href;
  const program = `
    import { openSync } from 'node:fs';
    import { DescriptorSink } from ${JSON.stringify(module)};
    const sink = new DescriptorSink(1);
    sink.write(Buffer.from('all'));
    sink.end();
    process.exitCode = openSync('/dev/null', 'r');
  `;
  const { status, stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', program]);
  t.equal(stdout.toString(), 'all');
  t.ok((status ?? 0) > 2, `the next is ${status}`);
  t.end();
});
