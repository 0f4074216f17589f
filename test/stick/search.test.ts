import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { makeFolder } from '../tools/commands.ts';
import { countWords } from './search.ts';

t.test('a search of a disk finds every word, wherever it lies', (t) => {
  const image = join(makeFolder(t, 'pod-search-'), 'image');
  const step = 8 << 20;
  const size = 3 * step + 5;
  // Around the places where one piece that is read ends and the next begins.
  for (const at of [0, 100, step - 9, step - 4, step - 1, step, 2 * step - 3, size - 6]) {
    writeFileSync(image, Buffer.concat([Buffer.alloc(at), Buffer.from('marker')]));
    if (at + 6 < size) truncateSync(image, size);
    t.same(
      [...countWords(image, ['marker', 'absent'])],
      [
        ['marker', 1],
        ['absent', 0],
      ],
      `at ${at}`,
    );
  }
  writeFileSync(image, Buffer.from('markermarker m\0a\0r\0k\0e\0r\0'));
  t.same([...countWords(image, ['marker'])], [['marker', 3]]);
  writeFileSync(image, '');
  t.same([...countWords(image, ['marker'])], [['marker', 0]]);
  t.end();
});
