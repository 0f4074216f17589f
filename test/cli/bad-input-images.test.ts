/**
 * Images that a stranger changed, whole in every checksum: pod-restart ends with the right class and one line, within
 * bounds, and leaves no task, no pod and no file; or the change does no harm, and there is a session.
 */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Surroundings, some, thorough, together } from '../tools/bad-input.ts';
import { type HostileImage, hostileImages } from '../tools/hostile-images.ts';
import { dumpProgram } from '../tools/live-image.ts';
import { type Entry, readImage, writeImage } from '../tools/records.ts';
import { restartBadImage } from '../tools/restart-bad-image.ts';

async function give(
  t: Test,
  image: Entry[],
  hostile: HostileImage,
  how: readonly string[],
  as: 'self' | 'nobody',
): Promise<void> {
  const { what, exits, says } = hostile;
  const { status, error, faults } = await restartBadImage(t, writeImage(hostile.change(image)), how, as);
  // What only the kernel refuses, a plan cannot know. An ordinary user may be refused what was root's.
  const plan = how.includes('--plan') && exits.includes(12);
  const right =
    exits.includes(status as number) || (plan && status === 0) || (as === 'nobody' && status === 12);
  if (!right) faults.push(`it ends with ${status}, not ${exits.join(' or ')}`);
  if (says && exits.includes(status as number) && status !== 0 && !says.test(error))
    faults.push('the message names something else');
  t.same(faults, [], `${what}, pod-restart ${how.join(' ')} as ${as}: ${error}`);
}

t.setTimeout(3_600_000);
t.test('hostile images', { timeout: 3_600_000 }, async (t) => {
  const home = new Surroundings(t);
  const image = readImage(await dumpProgram(home, 'epolls'));
  const same = await restartBadImage(t, writeImage(image));
  t.same([same.status, same.faults], [0, []], `unchanged, it is a session: ${same.error}`);
  const all = hostileImages(join(home.folder, 'absent-'));
  // Most of what does not fit together is found by one check, which test/image/check-references.test.ts knows.
  const early = some(
    all.filter(({ exits }) => exits.every((exit) => exit === 6 || exit === 9)),
    4,
  );
  const late = all.filter(({ exits }) => !exits.every((exit) => exit === 6 || exit === 9));
  const jobs = [...early, ...late].map((hostile) => () => give(t, image, hostile, ['-d'], 'self'));
  if (thorough) {
    for (const hostile of all) {
      jobs.push(() => give(t, image, hostile, ['--plan'], 'self'));
      if (process.getuid!() === 0) jobs.push(() => give(t, image, hostile, ['-d'], 'nobody'));
    }
  }
  await together(jobs);
});
