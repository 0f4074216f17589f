/** What a restart keeps of an image is bounded by what it holds in memory, not by its bytes alone. */
import t from 'tap';
import { ImageRecords } from '../../lib/engine/user/image-records.ts';
import { Frame } from '../../lib/stream/frame.ts';
import { kinds } from '../../lib/stream/kind.ts';
import { forgeFrame } from '../tools/forge.ts';

function frameOf(kind: 'eventfd' | 'fd-table', meta: object): Frame {
  const raw = forgeFrame({ kind: kinds[kind], meta }, 0);
  return new Frame(raw, kinds[kind], 1, 0, raw.readUInt16LE(2));
}

t.test('records of many small values that nobody knows are beyond the limit soon', async (t) => {
  const image = new ImageRecords();
  const junk = Array.from({ length: 60_000 }, () => []);
  const meta = { id: 1, flags: 0, count: 0n, semaphore: false, junk };
  const frame = frameOf('eventfd', meta);
  let taken = 0;
  t.throws(
    () => {
      for (; taken < 200; taken += 1) image.add(frame);
    },
    { failure: 'limit', message: /values/ },
  );
  t.ok(taken > 10 && taken < 100, `after ${taken} frames`);
});

t.test('a descriptor table goes on from frame to frame', async (t) => {
  const image = new ImageRecords();
  for (let first = 0; first < 30; first += 10) {
    const entries = Array.from({ length: 10 }, (_none, index) => ({ fd: first + index, file: 1 }));
    image.add(frameOf('fd-table', { id: 7, entries }));
  }
  t.same(
    image.tables.get(7)!.map(({ fd }) => fd),
    Array.from({ length: 30 }, (_none, fd) => fd),
  );
});
