/**
 * Seeded random changes of a live session's image, with all checksums mended: flipped bits of the bytes of records and
 * of what they say. POD_TEST_SEED and POD_TEST_FLIPS choose which and how many.
 */
import t from 'tap';
import { Surroundings, thorough, together } from '../tools/bad-input.ts';
import { flipImage } from '../tools/flip-image.ts';
import { dumpProgram } from '../tools/live-image.ts';
import { Random } from '../tools/random.ts';
import { readImage } from '../tools/records.ts';
import { restartBadImage } from '../tools/restart-bad-image.ts';

const seed = Number(process.env['POD_TEST_SEED'] ?? 1);
const count = Number(process.env['POD_TEST_FLIPS'] ?? (thorough ? 500 : 24));
const programs = thorough
  ? ['epolls', 'memory-shared', 'timers-posix', 'unix-pairs', 'sessions']
  : ['epolls'];
/** Version, foreign and truncated are about the stream's frame, which is right. */
const right = new Set<number | string>([0, 6, 8, 9, 12]);

t.setTimeout(3_600_000);
for (const program of programs) {
  t.test(program, { timeout: 3_600_000 }, async (t) => {
    const home = new Surroundings(t);
    const image = readImage(await dumpProgram(home, program));
    const jobs = Array.from({ length: count }, (_none, index) => async () => {
      const number = seed * 1_000_003 + index;
      const { bytes, what } = flipImage(image, new Random(number));
      const { status, error, faults } = await restartBadImage(t, bytes);
      if (!right.has(status)) faults.push(`it ends with ${status}`);
      t.same(faults, [], `seed ${number}, ${what}: ${status} ${error}`);
    });
    await together(jobs);
  });
}
