/**
 * Ways out of a pod, tried from inside by escape.c: all must be held in a confined one, also after a restart; and
 * many must lead out of an unconfined one, or the trying proves nothing.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { release } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { packageRoot } from '../../native/package-root.ts';
import { makeShell, type Shell } from '../session/session-house.ts';
import { until, users } from './house.ts';
import { makeRoot } from './make-root.ts';

const isRoot = process.getuid!() === 0;

/** What must not be reached, and a root with the program in it. Returns the root and the program's arguments. */
async function prepare(t: Test, house: Shell): Promise<{ root: string; args: string }> {
  const root = makeRoot(house.folder, house.uid);
  const source = join(packageRoot(), 'test/pod/escape.c');
  const program = join(root, 'bin/escape');
  execFileSync(process.env['CC'] ?? 'gcc', ['-O1', '-static', '-Wall', '-Werror', source, '-o', program]);
  if (isRoot) execFileSync('mknod', ['-m', '666', join(root, 'device'), 'c', '1', '5']);
  const marker = join(house.folder, 'marker');
  writeFileSync(marker, 'out here');
  const abstract = `pod-escape-${process.pid}-${house.user}`;
  const server = createServer().listen(`\0${abstract}`);
  await once(server, 'listening');
  const sleeper = spawn('sleep', ['1000'], { stdio: 'ignore' });
  const id = /\d+/.exec(execFileSync('ipcmk', ['-M', '4096', '-p', '0666'], { encoding: 'utf8' }))![0];
  t.teardown(() => {
    server.close();
    sleeper.kill('SIGKILL');
    execFileSync('ipcrm', ['-m', id]);
  });
  const table = readFileSync('/proc/sysvipc/shm', 'latin1').split('\n');
  const line = table.map((each) => each.trim().split(/\s+/)).find((words) => words[1] === id);
  return { root, args: [marker, abstract, line![0], sleeper.pid].join(' ') };
}

const reached = (output: string) => [...output.matchAll(/^ESCAPED (.*)$/gm)].map((found) => found[1]!);

/** Before Linux 6.12 nothing divides abstract names within a network namespace. */
const [major, minor] = release().split('.').map(Number) as [number, number];
const leaks = major > 6 || (major === 6 && minor >= 12) ? [] : ['abstract socket'];

function checkHeld(t: Test, output: string): void {
  t.match(output, 'tried all', 'it came to its end');
  t.ok((output.match(/^held /gm) ?? []).length > 60, 'it tried many');
  t.strictSame(reached(output), leaks);
  t.strictSame(output.match(/.*, but by: .*/g), null, 'all was refused by what should refuse it');
}

for (const user of users) {
  t.test(`nothing leads out of a confined pod, as ${user}`, async (t) => {
    const house = makeShell(t, user);
    const { root, args } = await prepare(t, house);
    const script = `escape ${args} > /before; until test -e /go; do sleep 0.05; done; escape ${args} > /after; cat /proc/self/status > /status; sleep 1000`;
    const started = house.sh(`pod-run --name e -d --root ${root} -- sh -c '${script}'`);
    t.equal(started.status, 0, started.stderr);
    const wrote = (name: string, last: string) =>
      existsSync(join(root, name)) && readFileSync(join(root, name), 'latin1').includes(last);
    await until(t, 'tried', () => wrote('before', 'tried all'));
    checkHeld(t, readFileSync(join(root, 'before'), 'latin1'));

    const moved = house.sh(`pod-dump --then kill e > $F/image && pod-restart -d --root ${root} < $F/image`);
    t.equal(moved.status, 0, moved.stderr);
    t.equal(moved.stderr, '');
    house.sh(`echo > ${root}/go`);
    await until(t, 'tried again', () => wrote('status', 'nonvoluntary'));
    checkHeld(t, readFileSync(join(root, 'after'), 'latin1'));
    const status = readFileSync(join(root, 'status'), 'latin1');
    const capabilities = user === 'root' ? '00000000b00485fb' : '0000000000000000';
    t.match(status, `CapBnd:\t${capabilities}\n`);
    t.match(status, 'Seccomp_filters:\t1\n');
    t.match(status, `NoNewPrivs:\t${user === 'root' ? 0 : 1}\n`);
  });
}

t.test(
  'an unconfined pod of root is open, and an image of it is confined on demand',
  { skip: !isRoot },
  async (t) => {
    const house = makeShell(t, 'root');
    const { root, args } = await prepare(t, house);
    const open = house.sh(`pod-run --name e --no-confine --root ${root} -- escape ${args} < /dev/null`);
    const ways = reached(open.stdout);
    for (const way of [
      'descriptors of pid 1',
      'mknod',
      'a device file in the root',
      'mount',
      'umount',
      'ptrace of pid 1',
      'unshare',
      'abstract socket',
      'write /proc/sys/kernel/core_pattern',
      'add_key',
    ])
      t.ok(ways.includes(way), `${way} leads somewhere`);
    const script = `until test -e /go; do sleep 0.05; done; escape ${args} > /after; echo done > /done; sleep 1000`;
    t.equal(house.sh(`pod-run --name e -d --no-confine --root ${root} -- sh -c '${script}'`).status, 0);
    const moved = house.sh(
      `pod-dump --then kill e > $F/image && pod-restart -d --confine --root ${root} < $F/image`,
    );
    t.equal(moved.status, 0, moved.stderr);
    t.match(moved.stderr, 'a confined pod takes capabilities from the session');
    writeFileSync(join(root, 'go'), '');
    await until(t, 'tried', () => existsSync(join(root, 'done')));
    checkHeld(t, readFileSync(join(root, 'after'), 'latin1'));

    const wrong = house.sh('pod-run --name e2 --confine -- true');
    t.equal(wrong.status, 2);
    t.match(wrong.stderr, '--confine wants --root');
  },
);

t.test("a pod is nobody else's business", { skip: !isRoot }, async (t) => {
  const house = makeShell(t, 'root');
  t.equal(house.sh('pod-run --name secret -d -- sleep 1000').status, 0);
  const other = makeShell(t, 'nobody', { POD_RUNTIME_DIR: house.folder });
  for (const command of [
    'pod-ps',
    'pod-attach --snapshot secret',
    'pod-kill secret',
    'pod-dump secret > /dev/null',
  ]) {
    const tried = other.sh(command);
    t.not(tried.status, 0, `${command}: ${tried.stderr}`);
    t.notMatch(tried.stdout, 'secret');
  }
  const own = makeShell(t, 'nobody');
  const listed = own.sh('pod-ps');
  t.equal(listed.status, 0);
  t.notMatch(listed.stdout, 'secret');
  const [pod] = house.ps();
  const dumped = own.sh(`pod-dump ${pod!.init} > /dev/null`);
  t.not(dumped.status, 0, dumped.stderr);
  t.equal(house.ps().length, 1, 'it goes on');
});
