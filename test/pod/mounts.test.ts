/** A session's own mounts are refused by name at a dump; the host's, which come and go in every pod, are none of it. */
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { changedMounts } from '../../lib/engine/user/changed-mounts.ts';
import { makeShell } from '../session/session-house.ts';

t.test('what the session changed, and what the host', (t) => {
  const before = ['8:1 / / rw', '8:2 / /stick rw', '0:9 / /proc rw'];
  const host = ['8:1 / / rw', '8:2 / /stick rw', '0:3 / /proc rw'];
  const changes = (inside: string[], outside = host) => changedMounts(inside, before, outside);
  t.strictSame(changes(before), { made: [], gone: [] });
  t.strictSame(changes([...before, '0:50 / /mnt rw']), { made: ['0:50 / /mnt rw'], gone: [] });
  t.strictSame(changes([...before, '8:3 / /mnt rw'], [...host, '8:3 / /mnt rw']), { made: [], gone: [] });
  t.strictSame(changes(before.slice(0, 2)), { made: [], gone: ['0:9 / /proc rw'] });
  const [root, , proc] = before as [string, string, string];
  t.strictSame(changes([root, proc]), { made: [], gone: ['8:2 / /stick rw'] });
  t.strictSame(changes([root, proc], [host[0]!, host[2]!]), { made: [], gone: [] }, 'unplugged');
  t.strictSame(changes([root, '8:2 / /stick ro', proc]), {
    made: ['8:2 / /stick ro'],
    gone: ['8:2 / /stick rw'],
  });
  t.end();
});

t.test('a session that mounts', { skip: process.getuid!() !== 0 }, async (t) => {
  const shell = makeShell(t, 'root');
  const place = join(shell.folder, 'place');
  mkdirSync(place);
  t.equal(shell.sh('pod-run --name m -d -- sleep 1000').status, 0);
  const init = shell.ps()[0]!.init;
  const inside = (...command: string[]) =>
    execFileSync('nsenter', ['-t', String(init), '-m', '-p', ...command]);
  const dump = () => shell.sh('pod-dump m > $F/image');
  t.equal(dump().status, 0);
  inside('mount', '-t', 'tmpfs', 'none', place);
  const refused = dump();
  t.equal(refused.status, 11);
  t.match(refused.stderr, `the session mounted something on ${place}`);
  inside('umount', place);
  t.equal(dump().status, 0);
  inside('umount', '-l', '/dev/pts');
  t.match(dump().stderr, 'the session unmounted /dev/pts');
  t.equal(shell.sh('pod-kill m && pod-run --name m -d -- unshare -m sleep 1000').status, 0);
  const apart = dump();
  t.equal(apart.status, 11);
  t.match(apart.stderr, 'has a mnt namespace of its own');
});
