/** Who can be cloned from whom, so that threads share descriptors and directories as they did. */
import t from 'tap';
import { planThreads, type ThreadContext } from '../../lib/engine/user/split-threads.ts';

/** Carry a plan out: clones share an object with their maker, or have a new one. */
function carryOut(threads: readonly ThreadContext[]): { files: object; fs: object }[] | undefined {
  const made: { files: object; fs: object }[] = [{ files: {}, fs: {} }];
  const steps = planThreads(threads);
  for (const { thread, maker, files, fs } of steps ?? []) {
    const from = made[maker]!;
    made[thread] = { files: files ? from.files : {}, fs: fs ? from.fs : {} };
  }
  return steps && made;
}

const parse = (text: string): ThreadContext[] =>
  text.split(' ').map((pair) => ({ files: Number(pair[0]), fs: Number(pair[1]) }));

const possible = [
  '00',
  '00 00 00',
  '00 10 10 00',
  '00 01 10 22',
  '00 12 12 13 42 00',
  // The first left what the others still have.
  '01 00 20 00',
  '56 00 20 01 00',
  // Found only in an order that is not that of the ids.
  '00 31 32 12',
];

for (const text of possible) {
  t.test(text, async (t) => {
    const threads = parse(text);
    const made = carryOut(threads) ?? [];
    t.equal(made.filter(Boolean).length, threads.length, 'all are made');
    for (const [a, one] of threads.entries()) {
      for (const [b, other] of threads.entries()) {
        for (const key of ['files', 'fs'] as const) {
          t.equal(made[a]?.[key] === made[b]?.[key], one[key] === other[key], `${key} of ${a} and ${b}`);
        }
      }
    }
  });
}

t.test('a ring has no beginning', async (t) => {
  t.equal(planThreads(parse('00 01 10 11')), undefined);
  t.equal(planThreads(parse('00 12 13 42 43')), undefined);
});

t.test('many threads take no long time', async (t) => {
  const threads = Array.from({ length: 60_000 }, (_none, index) => ({
    files: index >> 1,
    fs: (index + 1) >> 1,
  }));
  t.equal(planThreads(threads)?.length, 59_999);
});
