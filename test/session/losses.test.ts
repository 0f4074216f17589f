/** What goes, but not whole: each loss is named at the dump and again at the restart, and the session goes on. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { users } from '../pod/house.ts';
import { makeShell, waitFor } from './session-house.ts';

t.setTimeout(300_000);

const hold =
  'import os,time\nopen(os.environ["F"]+"/ready","w").write(str(os.getpid()))\nwhile True: time.sleep(1)\n';

interface Loss {
  name: string;
  setup: string;
  said: RegExp;
  rootOnly?: boolean;
}

const losses: Loss[] = [
  {
    name: 'a notice that waits in a connection',
    // SO_TIMESTAMPING: tell when it was acknowledged (SOF_TIMESTAMPING_TX_ACK, _SOFTWARE).
    setup:
      'import select,socket\nl=socket.socket(); l.bind(("127.0.0.1",0)); l.listen()\nc=socket.create_connection(l.getsockname()); s,_=l.accept()\nc.setsockopt(1,37,(1<<9)|(1<<4)); c.send(b"x")\np=select.poll(); p.register(c,0); assert p.poll(60000)\n',
    said: /an error or a notice \(MSG_ERRQUEUE\) that waits in a TCP connection/,
  },
  {
    name: 'locks on the settings of a terminal',
    setup: 'import fcntl,os,struct\nm,s=os.openpty()\nfcntl.ioctl(s,0x5457,struct.pack("4I20x",0,0,0,8))\n',
    said: /the locks on settings of a terminal \(TIOCSLCKTRMIOS, \/dev\/ptmx\)/,
    rootOnly: true,
  },
  {
    name: 'a setting of its IPC',
    setup: 'open("/proc/sys/kernel/msgmnb","w").write("12345")\n',
    said: /the setting kernel\.msgmnb = 12345 of the pod's IPC/,
    rootOnly: true,
  },
];

for (const user of users) {
  t.test(`as ${user}`, async (t) => {
    const shell = makeShell(t, user);
    const start = async (setup: string) => {
      const run = 'rm -f $F/ready; pod-run --name r -d -- python3 -c "$SETUP"';
      const { status, stderr } = shell.sh(run, { SETUP: setup + hold });
      t.equal(status, 0, stderr);
      await waitFor('the session', () => existsSync(join(shell.folder, 'ready')));
    };
    /** Dumped and ended; made again and ended. */
    const move = (name: string, said: RegExp) => {
      t.match(shell.sh('pod-dump --explain r'), { status: 0, stdout: said, stderr: '' }, name);
      for (const line of ['pod-dump --then kill r > $F/image', 'pod-restart -d < $F/image']) {
        const { status, stderr } = shell.sh(line);
        t.equal(status, 0, stderr);
        t.match(stderr, said, `${name}: ${line}`);
      }
      t.equal(shell.sh('pod-kill r').status, 0);
    };
    for (const { name, setup, said, rootOnly } of losses) {
      if (rootOnly && user !== 'root') continue;
      await start(setup);
      move(name, said);
    }

    await start('');
    const { init } = shell.ps()[0]!;
    const spaces = `-t ${init} -p -m ${user === 'root' ? '' : '-U --preserve-credentials'}`;
    const guest = shell.background(`exec nsenter ${spaces} sleep 1000`);
    await waitFor(
      'the guest',
      () => shell.sh(`grep -lx sleep /proc/${init}/root/proc/[0-9]*/comm`).status === 0,
    );
    move(
      'a process that was sent into it',
      /the process sleep \(\d+ in the pod\), which was started from outside \(nsenter\)/,
    );
    await guest.end;
  });
}

t.test('memory that a process outside has too is no loss: it is refused', async (t) => {
  const shell = makeShell(t, users.at(-1)!);
  const setup = [
    'import mmap,os,time',
    'm=mmap.mmap(-1,4096)',
    'if os.fork()==0:',
    ' os.setsid(); open(os.environ["F"]+"/child","w").write(str(os.getpid())+" ")',
    ' while True: time.sleep(1)',
    'os.wait()',
  ].join('\n');
  const parent = shell.background(`exec python3 -c '${setup}'`);
  const child = await waitFor('the child', () => Number(shell.sh('grep " " $F/child').stdout) || undefined);
  t.match(shell.sh(`pod-dump ${child} > $F/image`), {
    status: 11,
    stderr: new RegExp(
      `memory at [0-9a-f]+ .*: python3 \\(pid ${parent.pid}\\) outside the session has this memory mapped too`,
    ),
  });
  process.kill(child, 'SIGKILL');
  t.equal((await parent.end).status, 0);
});
