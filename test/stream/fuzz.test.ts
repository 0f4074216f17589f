/**
 * A short fuzz of the reader in every test run; `npm run test:fuzz` goes on for FUZZ_SECONDS (default 300).
 * A failure names its seed: `SEED=… FUZZ_ROUNDS=1 node scripts/test.mjs test/stream/fuzz.test.ts` has it again.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../native/package-root.ts';
import { fuzzOnce } from '../tools/fuzz-stream.ts';

const folder = join(packageRoot(), 'test/vectors');
const originals = readdirSync(folder)
  .filter((file) => /^good-.*\.pod$/.test(file))
  .map((file) => readFileSync(join(folder, file)))
  .filter((bytes) => bytes.length < 100_000);
const first = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
const rounds = Number(process.env['FUZZ_ROUNDS'] ?? 3000);
const until = Date.now() + 1000 * Number(process.env['FUZZ_SECONDS'] ?? 0);

t.test('mutated streams', { timeout: 0 }, async (t) => {
  console.error(`fuzz: first seed ${first}`);
  const classes = new Map<string, number>();
  let done = 0;
  const memoryBefore = process.memoryUsage().rss;
  for (; done < rounds || Date.now() < until; done += 1) {
    try {
      const found = fuzzOnce(originals, (first + done) % 2 ** 32);
      classes.set(found, (classes.get(found) ?? 0) + 1);
    } catch (cause) {
      t.fail((cause as Error).message);
      break;
    }
  }
  t.comment(`${done} rounds from seed ${first}: ${JSON.stringify(Object.fromEntries(classes))}`);
  if (rounds >= 1000) {
    // The mutations reach all parts of the reader.
    for (const each of ['done', 'damaged', 'truncated', 'foreign']) t.ok(classes.get(each), each);
    if (rounds >= 3000) t.ok(classes.get('unknown-critical'), 'unknown-critical');
  }
  t.ok(process.memoryUsage().rss - memoryBefore < 300 << 20, 'memory stays bounded');
});
