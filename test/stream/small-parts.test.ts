/** crc.ts, kind.ts, printable.ts, tally.ts, error.ts: each a few lines. */
import { crc32 as zlibCrc32 } from 'node:zlib';
import t from 'tap';
import { crc32 } from '../../lib/stream/crc.ts';
import { exitCodes, PodError } from '../../lib/stream/error.ts';
import { greaseKinds, kindName, kinds } from '../../lib/stream/kind.ts';
import { printable } from '../../lib/stream/printable.ts';
import { Tally } from '../../lib/stream/tally.ts';

t.test('crc32 is the one of zlib and PNG, and goes on', async (t) => {
  const bytes = Buffer.from('123456789');
  t.equal(crc32(bytes), 0xcbf43926);
  t.equal(crc32(bytes.subarray(4), crc32(bytes.subarray(0, 4))), 0xcbf43926);
  t.equal(crc32(new Uint8Array(0)), 0);
  t.equal(crc32(new Uint8Array(0), 7), 7);
  if (zlibCrc32) t.equal(crc32(Buffer.alloc(100_000, 'pod')), zlibCrc32(Buffer.alloc(100_000, 'pod')));
});

t.test('kinds have names, stay in a byte and out of the grease', async (t) => {
  const numbers = Object.values(kinds);
  t.equal(new Set(numbers).size, numbers.length);
  for (const [name, kind] of Object.entries(kinds)) {
    t.equal(kindName(kind), name);
    t.ok(kind > 0 && kind < 256 && (kind < greaseKinds.first || kind > greaseKinds.last));
  }
  t.equal(kindName(250), undefined);
});

t.test('numbers of kinds are for ever', async (t) => {
  // Changing one of these breaks every stored image: add, never change.
  t.match(kinds, {
    hello: 1,
    layer: 2,
    data: 3,
    end: 4,
    error: 5,
    pod: 16,
    tree: 17,
    shm: 18,
    mm: 19,
    areas: 20,
  });
  t.match(kinds, {
    pages: 21,
    content: 22,
    regular: 32,
    directory: 33,
    device: 34,
    pipe: 35,
    'pipe-end': 36,
  });
  t.match(kinds, { eventfd: 37, epoll: 38, timerfd: 39, signalfd: 40, 'unix-socket': 41, terminal: 42 });
  t.match(kinds, { inotify: 43, 'fd-table': 48, fs: 49, handlers: 50, process: 51, thread: 52 });
});

t.test('exit codes are those of DESIGN 8', async (t) => {
  t.strictSame(Object.values(exitCodes), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
  t.equal(new PodError('damaged', 'x').exitCode, 6);
  t.equal(new PodError('other', 'x', undefined, { exitCode: 40 }).exitCode, 40);
  t.equal(PodError.from(new Error('one\ntwo')).message, 'one');
  t.equal(PodError.from('text').message, 'text');
});

t.test('printable text commands no terminal and breaks no line', async (t) => {
  t.equal(printable('a\u001b[31mb\r\nc\u0007\u009b\u2028\u202e\ud800'), 'a?[31mb??c?????');
  t.equal(printable('größe 漢字 🎮'), 'größe 漢字 🎮');
  t.equal(printable(7), '');
  t.equal(printable('x'.repeat(600)).length, 513);
});

t.test('a tally counts in bigints', async (t) => {
  const tally = new Tally();
  tally.bytes = 2 ** 40;
  tally.add(1, 2, 100);
  t.strictSame(tally.meta, {
    frames: 1n,
    bytes: 2n ** 40n + 100n,
    crc: crc32(Uint8Array.of(1, 0, 0, 0, 2, 0, 0, 0)),
  });
});
