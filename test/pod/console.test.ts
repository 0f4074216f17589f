import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../native/package-root.ts';
import { type House, makeHouse, until, users } from './house.ts';

interface Step {
  expect?: string;
  send?: string;
  resize?: [number, number];
  kill?: number;
}

function drive(house: House, steps: Step[], name: string, ...args: string[]) {
  const script = join(packageRoot(), 'test/pod/drive.py');
  const result = spawnSync('python3', [script, JSON.stringify(steps), ...house.line(name, ...args)], {
    env: { ...house.env, TERM: 'xterm' },
    timeout: 120_000,
    cwd: '/',
  });
  return JSON.parse(
    result.stdout.toString() || `{"missed": ${JSON.stringify(result.stderr.toString())}}`,
  ) as {
    status: number | null;
    output: string;
    missed: string | null;
  };
}

/** bash's own prompt differs for root; the echo of this does not hold the new one. */
const prompt: Step[] = [{ expect: 'bash-' }, { send: "PS1='go''> '\r" }, { expect: 'go> ' }];

/**
 * It says when it is continued: bash shows a command before it gives it the terminal, and what is typed in between goes
 * to bash. One process: a shell that is just in vfork(2) does not stop before its child, which has stopped, goes on.
 */
const job = `perl -e '$|=1; $SIG{CONT}=sub{print "go-on\\n"}; print "up\\n"; sleep 1000 while 1'`;

for (const user of users) {
  t.test(`a shell on a terminal, as ${user}`, async (t) => {
    const house = makeHouse(t, user);
    const first = drive(
      house,
      [
        ...prompt,
        { send: 'stty size; echo size-$?\r' },
        { expect: '30 100' },
        { expect: 'size-0' },
        { send: 'trap "echo winch" WINCH; echo set-$?\r' },
        { expect: 'set-0\r\n' },
        { expect: 'go> ' },
        { resize: [40, 120] },
        { expect: 'winch\r\n' },
        { send: 'stty size\r' },
        { expect: '40 120' },
        // Job control: stop a job in the foreground, look, bring it back, interrupt it.
        { send: `${job}\r` },
        { expect: 'up\r\n' },
        { send: '\u001a' },
        { expect: 'Stopped' },
        { send: 'jobs; echo listed\r' },
        { expect: 'Stopped' },
        { expect: 'listed\r\n' },
        { send: 'fg\r' },
        { expect: 'go-on\r\n' },
        { send: '\u0003' },
        { expect: 'go> ' },
        { send: 'echo status-$?\r' },
        { expect: 'status-130\r\n' },
        { send: 'echo before-detach\r' },
        { expect: 'before-detach\r\n' },
        { send: '\u0010\u0011' },
      ],
      'pod-run',
      '-it',
      '--name',
      'shell',
      '--',
      'bash',
      '--norc',
      '--noprofile',
    );
    t.equal(first.missed, null, first.output);
    t.equal(first.status, 0, 'detached');
    t.match(first.output, 'detached, the session goes on (pod-attach shell)');
    t.equal(house.ps().length, 1);

    const second = drive(
      house,
      [
        { expect: 'before-detach' },
        { send: 'echo $((6 * 7))\r' },
        { expect: '42\r\n' },
        { send: 'printf "typed-\\\\020-"; cat -v\r' },
        { expect: 'cat -v\r\n' },
        { send: '\u0010x\r' },
        { expect: '^Px' },
        { send: '\u0004' },
        { send: 'exit 5\r' },
      ],
      'pod-attach',
      'shell',
    );
    t.equal(second.missed, null, second.output);
    t.equal(second.status, 5, 'the exit status of the session');
    t.strictSame(house.files(), []);
  });

  t.test(`the terminal is put right, and two sit at one console, as ${user}`, async (t) => {
    const house = makeHouse(t, user);
    t.equal(house.run('pod-run', ['--name', 'two', '-d', '--', 'bash', '--norc', '--noprofile']).status, 0);
    const watcher = house.start('pod-attach', ['--no-stdin', 'two'], 'pipe');
    let seen = '';
    watcher.stdout!.on('data', (chunk) => (seen += chunk));
    const [program, ...args] = house.line('pod-attach', 'two');
    const script = join(packageRoot(), 'test/pod/drive.py');
    const inner = `before=$(stty -g); ${[program, ...args].map((word) => `'${word}'`).join(' ')}; test "$before" = "$(stty -g)" && echo the-same`;
    const steps: Step[] = [
      ...prompt,
      { send: 'echo hello-$((1 + 1))\r' },
      { expect: 'hello-2\r\n' },
      { send: '\u0010\u0011' },
      { expect: 'the-same' },
    ];
    const result = spawnSync('python3', [script, JSON.stringify(steps), 'sh', '-c', inner], {
      env: house.env,
      timeout: 60_000,
    });
    t.match(JSON.parse(result.stdout.toString()), { missed: null, status: 0 });
    await until(t, 'the other one saw it', () => seen.includes('hello-2'));
    // pod-attach killed: the session does not care.
    watcher.kill('SIGKILL');
    t.equal(house.ps()[0]?.state, 'running');
    t.equal(house.run('pod-kill', ['two']).status, 0);
  });

  t.test(`whoever reads pod-run's output goes away, as ${user}`, async (t) => {
    const house = makeHouse(t, user);
    const [program, ...args] = house.line('pod-run', '--name', 'yes', '--', 'yes');
    const result = spawnSync(
      'sh',
      ['-c', '{ "$@" < /dev/null; echo "status $?" >&2; } | head -n 1', 'sh', program, ...args],
      {
        env: house.env,
        timeout: 60_000,
      },
    );
    t.equal(result.stdout.toString(), 'y\n');
    t.match(
      result.stderr.toString(),
      /the reader of the output went away\n.*the session goes on: pod-attach yes/,
    );
    t.match(result.stderr.toString(), 'status 1');
    t.equal(house.ps()[0]?.state, 'running');
    t.equal(house.run('pod-kill', ['yes']).status, 0);
  });

  t.test(`pod-run killed: the session goes on, as ${user}`, async (t) => {
    const house = makeHouse(t, user);
    const starter = house.start('pod-run', ['--name', 'left', '--', 'sleep', '1000'], 'pipe');
    await until(t, 'running', () => house.ps()[0]?.state === 'running');
    starter.kill('SIGKILL');
    await new Promise((resolve) => starter.on('exit', resolve));
    t.equal(house.ps()[0]?.state, 'running');

    // SIGTERM to a pod-run without a terminal reaches the session.
    const other = house.start(
      'pod-run',
      ['--name', 'asked', '--', 'sh', '-c', 'trap "exit 4" TERM; echo up; while :; do sleep 0.1; done'],
      'pipe',
    );
    let seen = '';
    other.stdout!.on('data', (chunk) => (seen += chunk));
    await until(t, 'up', () => seen.includes('up'));
    process.kill(other.pid!, 'SIGTERM');
    t.equal(await new Promise((resolve) => other.on('exit', resolve)), 4);

    const killed = house.start('pod-attach', ['--no-stdin', 'left'], 'pipe');
    let said = '';
    killed.stderr!.on('data', (chunk) => (said += chunk));
    const gone = new Promise((resolve) => killed.on('exit', resolve));
    await until(t, 'the viewer', () => house.ps().length === 1);
    t.equal(house.run('pod-kill', ['left']).status, 0);
    t.equal(await gone, said.includes('no pod') ? 1 : 137, said);
  });
}
