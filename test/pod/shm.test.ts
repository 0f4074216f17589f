/** The /dev and /dev/shm of a pod with a root end with it: what was put there goes along, open or not. */
import { spawnSync } from 'node:child_process';
import { chmodSync, readdirSync, readFileSync, readlinkSync, statSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { makeHouse, until, users } from './house.ts';
import { makeRoot } from './make-root.ts';

for (const user of users) {
  t.test(`files of /dev/shm, as ${user}`, async (t) => {
    const house = makeHouse(t, user);
    const root = makeRoot(house.folder, house.uid);
    const script =
      'exec 3<>/dev/shm/held; echo first >&3; echo closed >/dev/shm/closed; echo end >/dev/shm/large; ' +
      ': >/dev/shm/ready; while ! test -e /dev/shm/go; do sleep 0.02; done; echo second >&3; sleep 1000';
    const command = ['--name', 'r', '-d', '--root', root, '--', 'sh', '-c', script];
    t.equal(house.run('pod-run', command).status, 0);
    const shm = () => `/proc/${house.ps()[0]!.init}/root/dev/shm`;
    await until(t, 'it is set up', () => readdirSync(shm()).includes('ready'));
    chmodSync(join(shm(), 'closed'), 0o604);
    utimesSync(join(shm(), 'closed'), 1e9, 1.1e9);
    // Who is not mapped into the pod can make nothing in it.
    const inside = { uid: house.uid, gid: house.uid };
    spawnSync('mkdir', ['-m', '0710', join(shm(), 'folder')], inside);
    spawnSync('ln', [join(shm(), 'large'), join(shm(), 'folder/other')], inside);
    spawnSync('mkfifo', [join(shm(), 'fifo')], inside);
    spawnSync('ln', ['-s', '../shm/large', join(shm(), '../link')], inside);

    const [dump, ...words] = house.line('pod-dump', 'r');
    const dumped = spawnSync(dump, words, { env: house.env, cwd: '/', maxBuffer: 1 << 28 });
    t.equal(dumped.status, 0, dumped.stderr.toString());
    t.equal(dumped.stderr.toString(), '');
    t.equal(house.run('pod-kill', ['r']).status, 0);
    const plan = house.run('pod-restart', ['--plan', '--root', root], dumped.stdout);
    t.equal(plan.status, 0, plan.stderr);
    t.notMatch(plan.stdout, '/dev/shm/held', 'no file that must be here');
    const back = house.run('pod-restart', ['--name', 'r', '-d', '--root', root], dumped.stdout);
    t.equal(back.status, 0, back.stderr);

    t.same(readdirSync(shm()).sort(), ['closed', 'fifo', 'folder', 'held', 'large', 'ready']);
    t.equal(readFileSync(join(shm(), 'closed'), 'utf8'), 'closed\n');
    t.match(statSync(join(shm(), 'closed')), { mode: 0o100604, uid: house.uid, mtimeMs: 1.1e12 });
    t.equal(readFileSync(join(shm(), 'large'), 'utf8'), 'end\n');
    t.match(statSync(join(shm(), 'folder')), { mode: 0o40710, uid: house.uid });
    t.equal(statSync(join(shm(), 'folder/other')).ino, statSync(join(shm(), 'large')).ino);
    t.ok(statSync(join(shm(), 'fifo')).isFIFO());
    t.equal(readlinkSync(join(shm(), '../link')), '../shm/large', 'what was put into /dev');
    t.same(readdirSync(join(shm(), '..')).includes('null'), true);
    spawnSync('touch', [join(shm(), 'go')], inside);
    await until(t, 'it writes on', () => readFileSync(join(shm(), 'held'), 'utf8') === 'first\nsecond\n');
    t.equal(house.run('pod-kill', ['r']).status, 0);
  });
}
