import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { readStat } from '../../lib/pod/proc.ts';
import { Random } from '../tools/random.ts';
import { makeHouse, until, users } from './house.ts';

/** Mounts of the kinds that a pod makes; other tests mount drives meanwhile. */
const mounts = () =>
  readFileSync('/proc/self/mountinfo', 'latin1')
    .split('\n')
    .filter((line) => / - (proc|devpts|tmpfs|mqueue) /.test(line));

for (const user of users) {
  t.test(`a session inside, as ${user}`, async (t) => {
    const house = makeHouse(t, user);
    const before = mounts();
    const script = `
      echo pid=$$ tty=$(tty) host=$(hostname)
      echo ipc=$(readlink /proc/self/ns/ipc) uts=$(readlink /proc/self/ns/uts) mnt=$(readlink /proc/self/ns/mnt)
      echo pids=$(ls /proc | grep -c '^[0-9]') one=$(cat /proc/1/comm)
      echo ids=$(id -u):$(id -g) caps=$(grep CapEff /proc/self/status | cut -f2)
      printf fds=; ls -m /proc/$$/fd
      echo ignored=$(grep SigIgn /proc/$$/status | cut -f2) blocked=$(grep SigBlk /proc/$$/status | cut -f2)
      echo stat=$(cut -d' ' -f5-8 /proc/$$/stat) cwd=$PWD mine=$MINE
      test -w /dev/ptmx && echo ptmx
    `;
    house.env.MINE = 'a value = with signs';
    const [program, ...args] = house.line(
      'pod-run',
      '--name',
      'in',
      '--hostname',
      'elsewhere',
      '--cwd',
      '/usr',
      '--',
      'sh',
      '-c',
      script,
    );
    // Started by a shell that ignores and blocks: nothing of that may come through.
    const result = spawnSync('sh', ['-c', 'trap "" INT QUIT TERM CHLD; exec "$@"', 'sh', program, ...args], {
      env: house.env,
      input: '',
      timeout: 60_000,
    });
    const values = new Map(
      [...result.stdout.toString().matchAll(/(\w+)=(.*?)(?= \w+=|$)/gm)].map((found) => [
        found[1]!,
        found[2]!,
      ]),
    );
    const get = (name: string) => values.get(name);
    t.equal(result.status, 0, result.stderr.toString());
    t.equal(get('pid'), '2');
    t.equal(get('tty'), '/dev/pts/0');
    t.equal(get('host'), 'elsewhere');
    for (const space of ['ipc', 'uts', 'mnt']) {
      t.match(get(space), new RegExp(`^${space}:\\[\\d+\\]$`));
      t.not(get(space), readlinkSync(`/proc/self/ns/${space}`));
    }
    t.ok(Number(get('pids')) <= 6, 'only the pod is in /proc');
    t.equal(get('one'), 'pod-init');
    t.equal(
      get('ids'),
      `${house.uid}:${house.uid === 0 ? 0 : user === 'nobody' ? 65534 : process.getgid!()}`,
    );
    if (house.uid !== 0) t.equal(get('caps'), '0000000000000000');
    t.equal(get('fds'), '0, 1, 2');
    t.equal(get('ignored'), '0000000000000000');
    t.equal(get('blocked'), '0000000000000000');
    t.match(
      get('stat'),
      /^2 2 34816 2$/,
      'leader of its group and session, the console its terminal, in front',
    );
    t.equal(get('cwd'), '/usr');
    t.equal(get('mine'), 'a value = with signs');
    t.match(result.stdout.toString(), 'ptmx');
    t.strictSame(house.files(), []);
    t.strictSame(mounts(), before, 'no mount is left');
  });

  t.test(`how sessions end, as ${user}`, async (t) => {
    const house = makeHouse(t, user);
    const run = (...command: string[]) => house.run('pod-run', ['--name', 'end', '--', ...command]);
    t.equal(run('true').status, 0);
    t.equal(run('sh', '-c', 'exit 7').status, 7);
    t.equal(run('sh', '-c', 'kill -TERM $$').status, 143);
    t.equal(
      run('sh', '-c', 'sleep 1000 & sh -c "trap : HUP TERM; sleep 1000" & exit 3').status,
      3,
      'the rest ends with it',
    );

    const missing = run('no-such-program');
    t.equal(missing.status, 127);
    t.match(missing.stderr, 'pod-run: error: cannot run no-such-program: no such file or directory');
    const denied = run('/etc/passwd');
    t.equal(denied.status, 126);
    t.match(denied.stderr, 'cannot run /etc/passwd: permission denied');
    t.equal(house.run('pod-run', ['--name', 'end', '-d', '--', 'no-such-program']).status, 127);
    t.equal(house.run('pod-run', ['--name', 'end', '--cwd', '/nowhere', '--', 'true']).status, 126);
    t.equal(house.run('pod-run', ['--name', '../end', '--', 'true']).status, 2);
    t.equal(house.run('pod-run', ['--name', 'end', '--root', '/nowhere', '--', 'true']).status, 2);
    t.equal(house.run('pod-run', []).status, 2);
    t.equal(house.run('pod-kill', ['end']).status, 1);
    t.equal(house.run('pod-attach', ['end']).status, 1);
    t.strictSame(house.files(), []);
  });

  t.test(`input and output as they are, as ${user}`, async (t) => {
    const house = makeHouse(t, user);
    const cat = house.run(
      'pod-run',
      ['--name', 'cat', '--', 'cat'],
      'a\r\n\u0003\u001a\u0011\tb\nlast without newline',
    );
    t.equal(cat.stdout, 'a\r\n\u0003\u001a\u0011\tb\nlast without newline');
    t.equal(cat.status, 0);

    const [program, ...args] = house.line('pod-run', '--name', 'seq', '--', 'seq', '300000');
    const slow = spawnSync('sh', ['-c', '"$@" < /dev/null | (sleep 0.5; md5sum)', 'sh', program, ...args], {
      env: house.env,
      timeout: 60_000,
    });
    const whole = createHash('md5');
    for (let number = 1; number <= 300_000; number++) whole.update(`${number}\n`);
    t.match(slow.stdout.toString(), whole.digest('hex'), 'nothing lost to a slow reader');

    const lines = Array.from({ length: 20_000 }, (_, index) => `line ${index}`).join('\n');
    t.equal(
      house
        .run('pod-run', ['--name', 'wc', '--', 'sh', '-c', 'sleep 0.3; wc -lc'], `${lines}\n`)
        .stdout.trim()
        .replace(/ +/g, ' '),
      `20000 ${lines.length + 1}`,
      'nothing lost to a slow session',
    );
  });

  t.test(`a detached session, as ${user}`, async (t) => {
    const house = makeHouse(t, user);
    const started = house.run('pod-run', [
      '--name',
      'bg',
      '-d',
      '--',
      'sh',
      '-c',
      'trap "echo got term; exit 9" TERM; seq 100000; echo ready; while :; do sleep 0.1; done',
    ]);
    t.equal(started.status, 0, started.stderr);
    const snapshot = () => house.run('pod-attach', ['--snapshot', 'bg']).stdout;
    // Far more output than any buffer: a session without a viewer is not held up.
    await until(t, 'the output', () => snapshot().includes('ready'));
    t.ok(snapshot().length <= 65_536);
    t.match(snapshot(), '99999\r\n100000\r\nready\r\n');

    // Between two naps there is one process alone.
    await until(t, 'a nap', () => house.ps()[0]?.processes === 2);
    const [pod] = house.ps();
    t.match(pod, { name: 'bg', main: 2, state: 'running' });
    t.ok(pod!.memory > 100_000);
    t.equal(readStat(pod!.init)!.parent, 1, "nobody's child");
    t.match(house.run('pod-ps', []).stdout, /^NAME +INIT.*\nbg +\d+ +2 +running/);

    const clash = house.run('pod-run', ['--name', 'bg', '-d', '--', 'true']);
    t.equal(clash.status, 1);
    t.match(clash.stderr, /a pod named bg runs already\n.*hint: .*pod-kill bg/);
    t.match(snapshot(), 'ready', 'the clash did it no harm');

    process.kill(pod!.mainHost, 'SIGSTOP');
    await until(t, 'stopped', () => house.ps()[0]!.state === 'stopped');
    process.kill(pod!.mainHost, 'SIGCONT');

    const watcher = house.start('pod-attach', ['--no-stdin', String(pod!.mainHost)], 'pipe');
    let seen = '';
    watcher.stdout!.on('data', (chunk) => (seen += chunk));
    await until(t, 'the watcher', () => seen.includes('ready'));
    t.equal(house.run('pod-kill', ['-s', 'TERM', 'bg']).status, 0);
    t.equal(
      await new Promise((resolve) => watcher.on('exit', resolve)),
      9,
      'a viewer learns the exit status',
    );
    t.match(seen, 'got term');
    await until(t, 'the end', () => house.files().length === 0);
    t.equal(house.run('pod-kill', ['-s', 'NOSUCH', 'bg']).status, 2);
  });

  t.test(`pod-kill and what a kill leaves, as ${user}`, async (t) => {
    const house = makeHouse(t, user);
    const start = (name: string) =>
      t.equal(
        house.run('pod-run', [
          '--name',
          name,
          '-d',
          '--',
          'sh',
          '-c',
          'trap "" TERM HUP INT; sleep 1000 & sleep 1000 & wait',
        ]).status,
        0,
      );
    start('one');
    start('two');
    const [one, two] = house.ps();
    t.equal(
      house.run('pod-kill', ['one', 'nobody-here', 'two']).status,
      1,
      'the others are done all the same',
    );
    for (const pod of [one!, two!]) t.match(readStat(pod.init)?.state ?? 'gone', /^(Z|X|gone)$/);
    t.strictSame(house.files(), []);

    start('three');
    const [three] = house.ps();
    process.kill(three!.init, 'SIGKILL');
    await until(t, 'gone', () => (readStat(three!.init)?.state ?? 'Z') === 'Z');
    t.strictSame(house.files(), ['three.json', 'three.sock'], 'nobody was there to remove them');
    start('three');
    t.equal(house.ps().length, 1, 'a stale name can be taken');
    const path = join(house.folder, 'pods/three.json');
    const entry = JSON.parse(readFileSync(path, 'utf8'));
    writeFileSync(path, JSON.stringify({ ...entry, initStart: entry.initStart + 1 }));
    // No pid is as high as this one: its owner was killed between writing and renaming.
    writeFileSync(`${path}.4194304`, '');
    t.strictSame(house.ps(), [], 'a reused pid is not the pod');
    t.strictSame(house.files(), []);
    process.kill(entry.init, 'SIGKILL');
  });

  t.test(`pod-kill leaves no time for last acts, as ${user}`, async (t) => {
    const house = makeHouse(t, user);
    house.env.F = house.folder;
    // A hundred that write when their console hangs up: were pid 1 just killed, some would see it in most rounds.
    const script = `
      mkfifo $F/never; exec 9<>$F/never
      act() { trap 'echo acted >> $F/acts; exit' HUP; echo >> $F/ready; read line <&9; }
      i=0; while [ $i -lt 100 ]; do i=$((i + 1)); act & done
      act
    `;
    const written = (name: string) => {
      try {
        return readFileSync(join(house.folder, name), 'utf8').length;
      } catch {
        return 0;
      }
    };
    for (let round = 0; round < 4; round++) {
      t.equal(house.run('pod-run', ['--name', 'acts', '-d', '--', 'sh', '-c', script]).status, 0);
      await until(t, 'all are ready', () => written('ready') === 101);
      t.equal(house.run('pod-kill', ['acts']).status, 0);
      for (const name of ['ready', 'never']) rmSync(join(house.folder, name));
    }
    t.equal(written('acts'), 0);
    // To its own pid 1 a session may send what it likes.
    const quit = house.run('pod-run', [
      '--name',
      'quit',
      '--',
      'sh',
      '-c',
      'kill -QUIT 1; sleep 0.2; exit 5',
    ]);
    t.equal(quit.status, 5, quit.stderr);
  });

  t.test(`a viewer that does not read, and foreign words, as ${user}`, async (t) => {
    const house = makeHouse(t, user);
    t.equal(
      house.run('pod-run', [
        '--name',
        'v',
        '-d',
        '--',
        'sh',
        '-c',
        'trap "" HUP INT QUIT TERM TSTP USR1 USR2 ALRM; read a; stty -isig; seq 200000; echo all done; while :; do sleep 1; done',
      ]).status,
      0,
    );
    const path = join(house.folder, 'pods/v.sock');
    const lazy = connect(path);
    lazy.pause();
    lazy.write(Buffer.from([0x41, 0, 6, 0, 1, 0, 0, 0, 0, 0]));
    lazy.write(Buffer.from([0x49, 0, 1, 0, 0x0a]));
    await until(t, 'the session went on', () =>
      house.run('pod-attach', ['--snapshot', 'v']).stdout.includes('all done'),
    );
    lazy.destroy();

    for (const bytes of [
      [0x49, 0, 0xff, 0xff],
      [0x7a, 0, 0, 0],
      [0x41, 0, 1, 0, 0],
      [0x53, 0, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    ]) {
      const socket = connect(path);
      socket.on('error', () => {});
      socket.write(Buffer.from(bytes));
      socket.write(Buffer.alloc(5000));
      await new Promise((resolve) => socket.on('close', resolve));
    }
    // Well-formed frames with chance content, many cut short.
    const random = new Random(7);
    for (let turn = 0; turn < 300; turn++) {
      const frames = Array.from({ length: 1 + random.below(6) }, () => {
        const length = [0, 4, 6, random.below(64)][random.below(4)]!;
        const payload = Array.from({ length }, () => random.below(128));
        return [0x41 + random.below(26), 0, length, 0, ...payload];
      }).flat();
      const socket = connect(path);
      let refused: Error | undefined;
      socket.on('error', (cause) => (refused = cause));
      socket.resume();
      socket.end(Buffer.from(frames.slice(0, frames.length - random.below(3))));
      await new Promise((resolve) => socket.once('close', resolve));
      if (refused && !/EPIPE|ECONNRESET/.test(refused.message)) t.fail(refused.message);
    }
    const crowd = Array.from({ length: 40 }, () => connect(path));
    for (const socket of crowd) socket.on('error', () => {});
    await until(t, 'connected', () => crowd.every((socket) => !socket.connecting));
    for (const socket of crowd) socket.destroy();
    t.equal(house.run('pod-attach', ['--snapshot', 'v']).status, 0, 'it still answers');
    t.equal(house.ps()[0]?.state, 'running');
    t.equal(house.run('pod-kill', ['v']).status, 0);
  });

  t.test(`twenty at once, as ${user}`, async (t) => {
    const house = makeHouse(t, user);
    const before = mounts();
    const names = Array.from({ length: 20 }, (_, index) => `n${String(index).padStart(2, '0')}`);
    const children = names.map((name) =>
      house.start('pod-run', ['--name', name, '-d', '--', 'sleep', '1000']),
    );
    const statuses = await Promise.all(
      children.map((child) => new Promise((resolve) => child.on('exit', resolve))),
    );
    t.strictSame(
      statuses,
      names.map(() => 0),
    );
    t.strictSame(
      house.ps().map((pod) => pod.name),
      names,
    );
    t.equal(house.run('pod-kill', names).status, 0);
    t.strictSame(house.files(), []);
    t.strictSame(mounts(), before);

    const rivals = Array.from({ length: 8 }, () =>
      house.start('pod-run', ['--name', 'same', '-d', '--', 'sleep', '1000']),
    );
    const ends = await Promise.all(
      rivals.map((child) => new Promise((resolve) => child.on('exit', resolve))),
    );
    t.equal(ends.filter((status) => status === 0).length, 1, 'one of eight gets the name');
    t.equal(house.ps().length, 1);
    t.equal(house.run('pod-kill', ['same']).status, 0);
  });
}
