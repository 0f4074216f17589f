/** Every stream of test/vectors, fed whole, one byte at a time and in random cuts, is what its sidecar says. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../native/package-root.ts';
import { Random } from '../tools/random.ts';
import { byteByByte, type Cuts, judge, whole } from '../tools/read-vector.ts';

const folder = join(packageRoot(), 'test/vectors');
const names = readdirSync(folder)
  .filter((file) => file.endsWith('.pod'))
  .map((file) => file.slice(0, -4));
const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);

t.test('there are vectors, and every class of the parser has one', async (t) => {
  t.ok(names.length >= 60);
  const classes = [
    'done',
    'version',
    'foreign',
    'truncated',
    'damaged',
    'unknown-critical',
    'limit',
    'upstream',
  ];
  for (const each of classes) {
    t.ok(
      names.some((name) => readSidecar(name).class === each),
      each,
    );
  }
});

for (const name of names) {
  t.test(name, async (t) => {
    const bytes = readFileSync(join(folder, `${name}.pod`));
    const { class: expected, frames, released } = readSidecar(name);
    const random = new Random(seed);
    const feeds: [string, Cuts][] = [
      ['whole', whole],
      ['byte by byte', byteByByte],
      ['random cuts', () => 1 + random.below(40)],
      ['random large cuts', () => 1 + random.below(100_000)],
    ];
    for (const [feed, cuts] of feeds) {
      const { message: _message, ...verdict } = judge(bytes, cuts);
      t.strictSame(verdict, { class: expected, frames, released }, `${feed} (SEED=${seed})`);
    }
  });
}

function readSidecar(name: string): { class: string; frames: number; released: string } {
  return JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8'));
}
