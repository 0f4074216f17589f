/** What can't be dumped is named, nothing is written, and the session goes on unharmed. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { users } from '../pod/house.ts';
import { disturbed, makeShell, podProcesses, type Shell, waitFor } from './session-house.ts';

t.setTimeout(300_000);

const hold =
  'import os,time\nopen(os.environ["F"]+"/ready","w").write(str(os.getpid()))\nn=0\nwhile True:\n n+=1\n time.sleep(0.02)\n open(os.environ["F"]+"/beat","w").write(str(n)+"\\n")\n';

/** Objects that are not handled, and how the message names them. */
const objects: [string, string, RegExp][] = [
  [
    'a request to a listening socket that has not accepted the connection',
    'import socket\ns=socket.socket(); s.bind(("127.0.0.1",0)); s.listen()\nc=socket.create_connection(s.getsockname()); c.send(b"x")\n',
    /descriptor \d+ .*something was sent through it/,
  ],
  [
    'a POSIX message queue that nobody has open',
    'import ctypes\nl=ctypes.CDLL(None)\nassert l.mq_close(l.mq_open(b"/jobs",0o102,0o600,None))==0\n',
    /POSIX message queue \/jobs/,
  ],
  [
    'a netlink socket of a protocol that is not handled',
    'import socket\ns=socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)\n',
    /descriptor \d+ .*netlink/i,
  ],
];

/** Of these an ordinary user can't know enough to save them. */
const rootsObjects: typeof objects = [
  [
    'a seccomp filter',
    // PR_SET_NO_NEW_PRIVS, then one instruction: allow.
    'import ctypes,struct\nl=ctypes.CDLL(None)\nl.prctl(38,1,0,0,0)\ni=ctypes.create_string_buffer(struct.pack("HBBI",6,0,0,0x7fff0000))\np=ctypes.create_string_buffer(struct.pack("HxxxxxxQ",1,ctypes.addressof(i)))\nassert l.prctl(22,2,p,0,0)==0\n',
    /seccomp/,
  ],
];

/** Only root can set these up. */
const setByRoot: typeof objects = [
  [
    'System V shared memory that nobody has attached, where to read it would destroy it',
    'import ctypes\nopen("/proc/sys/kernel/shm_rmid_forced","w").write("1")\nassert ctypes.CDLL(None).shmget(7,4096,0o1600)>=0\n',
    /System V shared memory \d+ \(key 7\), which nobody has attached, can't be read without being lost/,
  ],
];

async function refused(t: Test, shell: Shell, name: string, dump: string, message: RegExp, status: number) {
  const done = shell.sh(`${dump} > $F/image`);
  t.equal(done.status, status, `${name}: ${done.stderr}`);
  t.match(done.stderr, message, name);
  t.match(done.stderr, /^pod-dump: error: [^\n]+[^.\n]\n(pod-dump: hint: [^\n]+\n)?$/, name);
  t.equal(statSync(join(shell.folder, 'image')).size, 0, 'nothing was written');
}

async function beatsOn(shell: Shell): Promise<void> {
  const read = () => {
    try {
      return Number(readFileSync(join(shell.folder, 'beat'), 'utf8').trim());
    } catch {
      return 0;
    }
  };
  const then = read();
  await waitFor('it goes on', () => read() > then + 2);
}

for (const user of users) {
  t.test(`objects, as ${user}`, async (t) => {
    const shell = makeShell(t, user);
    const all = [...objects, ...(user === 'root' ? setByRoot : rootsObjects)];
    for (const [name, setup, message] of all) {
      const started = shell.sh('rm -f $F/ready; pod-run --name r -d -- python3 -c "$SETUP"', {
        SETUP: setup + hold,
      });
      t.equal(started.status, 0, started.stderr);
      await waitFor(name, () => existsSync(join(shell.folder, 'ready')));
      await refused(t, shell, name, 'pod-dump r', message, 11);
      await refused(t, shell, name, 'pod-dump --suspend r', message, 11);
      const explained = shell.sh('pod-dump --explain r');
      t.match(explained, { status: 11, stdout: message, stderr: '' });
      t.match(explained.stdout, /^(cannot go: [^\n]+\n)+(will be lost: [^\n]+\n)*r cannot be dumped\n$/);
      t.same(disturbed(podProcesses(shell.ps()[0]!.init)), [], name);
      await beatsOn(shell);
      t.equal(shell.sh('pod-kill r').status, 0);
    }
  });
}

/** Two processes with what can't go, in different places, and something that would be lost. */
const several =
  'import socket,os,time,tty\na=socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)\nif os.fork()==0:\n b=socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)\n p=os.environ["F"]+"/gone"; os.mkdir(p); os.chdir(p); os.rmdir(p)\n open(os.environ["F"]+"/child","w").write("x")\n time.sleep(1000)\nm,s=os.openpty(); tty.setraw(s)\nos.write(m,b"typed\\n")\nwhile not os.path.exists(os.environ["F"]+"/child"): time.sleep(0.01)\n';

t.test('all that cannot go is named at once', async (t) => {
  const shell = makeShell(t, users.at(-1)!);
  const run = 'rm -f $F/ready; pod-run --name r -d -- python3 -c "$SETUP"';
  t.equal(shell.sh(run, { SETUP: several + hold }).status, 0);
  await waitFor('the session', () => existsSync(join(shell.folder, 'ready')));
  const { status, stdout, stderr } = shell.sh('pod-dump --explain r');
  t.same([status, stderr], [11, '']);
  const lines = stdout.trim().split('\n');
  const sockets = lines.map(
    (line) => /^cannot go: python3 \(pid (\d+)\), descriptor \d+ .*netlink.* \(.+\)$/i.exec(line)?.[1],
  );
  const pids = sockets.filter((pid) => pid !== undefined);
  t.equal(new Set(pids).size, 2, `a socket of each process: ${stdout}`);
  t.match(stdout, /^cannot go: the working directory of python3 \(pid \d+\) was removed/m);
  t.match(stdout, /^will be lost: what was typed at \/dev\/pts\/\d+/m);
  t.equal(lines.at(-1), 'r cannot be dumped');
  const told = JSON.parse(shell.sh('pod-dump --explain --json r').stdout);
  t.equal(told.obstacles.length, lines.filter((line) => line.startsWith('cannot go: ')).length);
  t.equal(told.losses.length, 1);
  t.same(disturbed(podProcesses(shell.ps()[0]!.init)), []);
  await beatsOn(shell);
  t.equal(shell.sh('pod-kill r').status, 0);
});

t.test('a session that can go', async (t) => {
  const shell = makeShell(t, users.at(-1)!);
  t.equal(shell.sh('pod-run --name r -d -- sleep 1000').status, 0);
  t.same(shell.sh('pod-dump --explain r'), { status: 0, stdout: 'r can be dumped\n', stderr: '' });
  t.match(shell.sh('pod-dump --explain --suspend r'), { status: 2, stderr: /--explain leaves the session/ });
  t.match(shell.sh('pod-dump --json r | cat; exit ${PIPESTATUS[0]}'), { status: 2, stdout: '' });
  t.equal(shell.sh('pod-kill r').status, 0);
});

t.test('sessions that are not ours to dump', async (t) => {
  const shell = makeShell(t, users.at(-1)!);
  const start = (command: string, ...args: string[]) => {
    const child = spawn(command, args, { detached: true, stdio: 'ignore' });
    t.teardown(() => child.kill('SIGKILL'));
    return child.pid!;
  };

  t.test("another user's", { skip: users.length < 2 && 'needs root' }, async (t) => {
    const pid = start('sleep', '1000');
    await refused(
      t,
      shell,
      'root to nobody',
      `pod-dump ${pid}`,
      new RegExp(`no permission to stop .*\\(pid ${pid}\\)`),
      11,
    );
    t.same(disturbed([pid]), []);
  });

  t.test('one that is being debugged', async (t) => {
    const root = makeShell(t, users[0]!);
    const pid = start('sleep', '1000');
    const debuggers: [string, string[]][] = [
      ['strace', ['-o', '/dev/null', '-p', String(pid)]],
      ['gdb', ['-q', '-nx', '-p', String(pid), '-ex', 'shell sleep 1000']],
    ];
    for (const [command, args] of debuggers) {
      const child = spawn(command, args, { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
      const gone = new Promise((resolve) => {
        child.once('exit', resolve);
        child.once('error', resolve);
      });
      const there = await Promise.race([
        gone.then(() => false),
        waitFor(command, () => !/^TracerPid:\t0$/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))),
      ]);
      if (!there) {
        t.comment(`${command} is not installed`);
        continue;
      }
      await refused(t, root, command, `pod-dump ${pid}`, new RegExp(`trace|debug|${command}`), 11);
      process.kill(-child.pid!, 'SIGKILL');
      await gone;
    }
  });

  t.test('none, ourselves, pid 1', async (t) => {
    await refused(t, shell, 'none', 'pod-dump 4194303', /there is no process 4194303/, 2);
    await refused(t, shell, 'pid 1', 'pod-dump 1', /process 1 can't be dumped/, 2);
    await refused(t, shell, 'no name', 'pod-dump no-such-pod', /there is no pod named no-such-pod/, 2);
  });
});
