/** pod-drive over a real file system on a loop device; the test does what udev's rule does. */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { makeHouse } from '../pod/house.ts';
import { waitFor } from '../session/session-house.ts';
import { makeDrive, mount, run, whyNoDrive } from '../tools/drive.ts';

t.setTimeout(300_000);

const skip = whyNoDrive('ext4') ?? false;
const path = `${process.env['PATH']}:/usr/sbin:/sbin`;

t.test('a session goes on when its drive comes', { skip }, async (t) => {
  const house = makeHouse(t, 'root');
  const drive = makeDrive(t, 'ext4', 64);
  const list = join(house.folder, 'etc/drives.json');
  const folder = join(house.folder, 'plugged');
  const mounts = join(house.folder, 'media');
  const key = join(house.folder, 'key');
  execFileSync('age-keygen', ['-o', key], { stdio: 'ignore' });
  const recipient = /age1\w+/.exec(readFileSync(key, 'utf8'))![0];
  const pod = (name: string, ...args: string[]) => {
    const outcome = house.run(name, args);
    t.equal(outcome.status, 0, `${name} ${args.join(' ')}: ${outcome.stderr}`);
    return outcome;
  };

  const counter = join(house.folder, 'count');
  const beats = () => (existsSync(counter) ? Number(readFileSync(counter, 'utf8')) : 0);
  // Put in place whole: a reader never sees an empty file.
  const script = `n=0; while :; do n=$((n+1)); echo $n > ${counter}.new; mv ${counter}.new ${counter}; sleep 0.1; done`;
  const start = (name: string) => pod('pod-run', '--name', name, '-d', '--', 'bash', '-c', script);
  start('mine');
  await waitFor('it counts', () => beats() > 2);

  await t.test('what may go on', async (t) => {
    for (const wrong of [['allow'], ['allow', '/nowhere'], ['allow', '/proc'], ['dance'], []])
      t.not(house.run('pod-drive', ['--list', list, ...wrong]).status, 0, wrong.join(' '));
    pod('pod', 'suspend', 'mine', join(drive.path, 'mine'), '-r', recipient);
    pod('pod-drive', 'allow', '--list', list, join(drive.path, 'mine'), '-i', key);
    pod('pod-drive', 'allow', '--list', list, join(drive.path, 'mine'), '-i', key);
    const { sessions } = JSON.parse(readFileSync(list, 'utf8')) as { sessions: { folder: string }[] };
    t.match(sessions, [{ folder: 'mine', identity: [key], uuid: /^[0-9a-f-]{36}$/ }]);
    t.equal(sessions.length, 1, 'allowed once');
    t.match(pod('pod-drive', 'list', '--list', list).stdout, /^[0-9a-f-]{36} mine with /);
  });
  const [{ uuid }] = (JSON.parse(readFileSync(list, 'utf8')) as { sessions: [{ uuid: string }] }).sessions;
  t.equal(run('umount', drive.path), undefined);

  // As QEMU's or a desktop's stick: a device with that UUID, and udev's word of it.
  const loop = execFileSync('losetup', ['--find', '--show', drive.image], {
    encoding: 'utf8',
    env: { PATH: path },
  }).trim();
  t.teardown(() => run('losetup', '-d', loop));
  const plug = () => writeFileSync(join(folder, uuid), '');
  const unplug = () => rmSync(join(folder, uuid));
  const [program, ...words] = house.line(
    'pod-drive',
    'watch',
    '--list',
    list,
    '--folder',
    folder,
    '--mounts',
    mounts,
  );
  const daemon = spawn(program, words, { env: house.env, stdio: ['ignore', 'ignore', 'pipe'] });
  t.teardown(() => daemon.kill('SIGKILL'));
  daemon.on('exit', (status, signal) => t.same([status, signal], [0, null], `the daemon ends well: ${said}`));
  let said = '';
  daemon.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  await waitFor('it watches', () => existsSync(folder));

  const stopped = beats();
  plug();
  await waitFor(`the session goes on: ${said}`, () => beats() > stopped + 3);
  t.match(house.ps(), [{ name: 'mine' }]);
  await waitFor('it says so', () => /mine: it goes on/.test(said));
  t.ok(existsSync(join(mounts, uuid, 'mine/HEAD')), 'it was mounted');
  t.match(
    house.run('pod-drive', ['watch', '--list', list, '--folder', folder]).stderr,
    /another pod-drive watches/,
  );

  pod('pod', 'suspend', 'mine', join(mounts, uuid, 'mine'), '-r', recipient);
  unplug();
  await waitFor('it is unmounted', () => !existsSync(join(mounts, uuid)));

  await t.test('an image that was not encrypted is not taken', async (t) => {
    t.equal(mount(drive), undefined);
    const before = beats();
    const dump = execFileSync(
      'bash',
      ['-c', `pod-load ${join(drive.path, 'mine')} | pod-filter --undo -i ${key}`],
      {
        env: house.env,
        maxBuffer: 1 << 28,
      },
    );
    t.equal(house.run('pod-store', [join(drive.path, 'mine')], dump).status, 0);
    t.equal(run('umount', drive.path), undefined);
    plug();
    await waitFor(`it is refused: ${said}`, () => /the image is not inside a layer encrypt/.test(said));
    t.same(house.ps(), []);
    t.equal(beats(), before);
    unplug();
    await waitFor('it is unmounted', () => !existsSync(join(mounts, uuid)));
  });

  await t.test('what nobody allowed is not even mounted', async (t) => {
    t.equal(mount(drive), undefined);
    pod('pod-drive', 'forget', '--list', list, join(drive.path, 'mine'));
    t.equal(run('umount', drive.path), undefined);
    plug();
    // Something that it does say, behind it.
    await sleep(200);
    writeFileSync(list, 'no list');
    writeFileSync(join(folder, 'ffff-ffff'), '');
    await waitFor(`it has looked: ${said}`, () => /ffff-ffff: .* is no list of allowed sessions/.test(said));
    t.notOk(existsSync(join(mounts, uuid)));
  });
  await t.test('a user has nobody who says what is plugged in', async (t) => {
    const { status, stderr } = makeHouse(t, 'nobody').run('pod-drive', [
      ...['watch', '--list', '/tmp/none.json', '--folder', join(house.folder, 'nobodys')],
    ]);
    t.not(status, 0);
    t.match(stderr, /there is no .*nobodys, .*\n.*hint: root must make it/);
  });
  daemon.kill('SIGTERM');
  await waitFor('it ends', () => daemon.exitCode === 0);
});
