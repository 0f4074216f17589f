/** Limits of a session: they hold, they travel, and what can't be had is said. */
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { findPlace, joinGroups } from '../../lib/pod/cgroups.ts';
import { readLimits } from '../../lib/pod/limits.ts';
import { makeShell, type Shell } from '../session/session-house.ts';
import { until } from './house.ts';

t.test('as users write them', (t) => {
  t.strictSame(readLimits({}), undefined);
  t.strictSame(readLimits({ memory: '512M', cpus: 1.5, pids: 20 }), {
    memory: 512n << 20n,
    milliCpus: 1500,
    pids: 20,
  });
  t.strictSame(readLimits({ memory: '2GiB' }), { memory: 2n << 30n });
  for (const wrong of [
    { memory: '1.5G' },
    { memory: '0' },
    { memory: 'much' },
    { cpus: 0 },
    { pids: 1.5 },
    { pids: 0 },
  ])
    t.throws(() => readLimits(wrong), { message: /wants|is no amount of memory/ }, JSON.stringify(wrong));
  t.end();
});

/** Folders in place of the kernel's: what is written where is all that version 2 asks of us. */
function pretend(t: Test, own: string) {
  const top = mkdtempSync(join(tmpdir(), 'pod-groups-'));
  t.teardown(() => rmSync(top, { recursive: true }));
  mkdirSync(join(top, 'user/app'), { recursive: true });
  writeFileSync(join(top, 'cgroup.controllers'), 'cpu memory pids');
  writeFileSync(join(top, 'cgroup.subtree_control'), 'cpu memory');
  writeFileSync(join(top, 'user/cgroup.subtree_control'), 'memory');
  const mounts = `30 20 0:26 / ${top} rw - cgroup2 cgroup2 rw\n`;
  return { top, view: { own: `0::${own}\n`, mounts } };
}

t.test('places of version 2', (t) => {
  const { top, view } = pretend(t, '/user/app');
  t.strictSame(findPlace('memory', view), { version: 2, folder: join(top, 'user') }, 'next to our own group');
  t.strictSame(findPlace('pids', view), { version: 2, folder: top });
  t.strictSame(findPlace('memory', { own: '0::/\n', mounts: '' }), undefined);
  const groups = joinGroups({ memory: 1n << 20n, milliCpus: 500, pids: 9 }, 'x', 4_194_304, view);
  groups.set();
  t.strictSame(groups.folders, [join(top, 'user/podstream-x-4194304'), join(top, 'podstream-x-4194304')]);
  const read = (path: string) => readFileSync(join(top, path), 'utf8');
  t.equal(read('user/podstream-x-4194304/memory.max'), '1048576');
  t.equal(read('podstream-x-4194304/cpu.max'), '50000 100000');
  t.equal(read('podstream-x-4194304/pids.max'), '10', 'pid 1 is one more');
  t.equal(read('podstream-x-4194304/cgroup.procs'), '4194304');
  t.equal(read('cgroup.subtree_control'), '+pids', 'what is not passed on yet');
  t.throws(() => joinGroups({ pids: 1 }, 'x', 1, { own: '0::/\n', mounts: '' }), {
    message: /--pids can't be had here/,
  });
  t.end();
});

const groupsOf = (shell: Shell): { groups: string[] } =>
  JSON.parse(readFileSync(join(shell.folder, 'pods/l.json'), 'utf8'));

/** The controllers of this machine, root's to divide. Both versions are tried: version 2 by test/kernels. */
const version =
  process.getuid!() === 0 && findPlace('cpu') && findPlace('pids') && findPlace('memory')?.version;

t.test('limits hold, and go along', { skip: !version && 'needs control groups, and root' }, async (t) => {
  const shell = makeShell(t, 'root');
  const script = 'while :; do test -e $F/go && python3 $F/try.py; sleep 0.1; done';
  writeFileSync(
    join(shell.folder, 'try.py'),
    `import os, time
os.rename(os.environ["F"] + "/go", os.environ["F"] + "/went")
made = []
try:
    while len(made) < 60:
        pid = os.fork()
        if pid == 0: time.sleep(100)
        made.append(pid)
except OSError: pass
for pid in made: os.kill(pid, 9); os.waitpid(pid, 0)
pid = os.fork()
if pid == 0:
    x = bytearray(120 << 20)
    os._exit(0)
status = os.waitpid(pid, 0)[1]
start, used = time.monotonic(), time.process_time()
while time.monotonic() - start < 1: pass
share = (time.process_time() - used)
open(os.environ["F"] + "/result", "w").write(f"{len(made)} {status} {share}")
os.rename(os.environ["F"] + "/result", os.environ["F"] + "/done")
`,
  );
  const tried = async () => {
    rmSync(join(shell.folder, 'done'), { force: true });
    writeFileSync(join(shell.folder, 'go'), '');
    await until(t, 'tried', () => existsSync(join(shell.folder, 'done')));
    const [forks, status, share] = readFileSync(join(shell.folder, 'done'), 'utf8').split(' ').map(Number);
    // The shell and python are two of the twelve.
    t.equal(forks, 10, 'processes');
    t.equal(status, 9, 'memory: killed for want of it');
    t.ok(share! < 0.8, `half a processor: ${share}`);
    const quotas = groupsOf(shell).groups.flatMap((folder) => {
      const file = join(folder, version === 1 ? 'cpu.cfs_quota_us' : 'cpu.max');
      return existsSync(file) ? [readFileSync(file, 'utf8').trim().split(' ')[0]] : [];
    });
    t.strictSame(quotas, ['50000'], 'also where the machine is too busy to tell');
  };
  const started = shell.sh(`pod-run --name l -d --memory 64M --cpus 0.5 --pids 12 -- sh -c '${script}'`);
  t.equal(started.status, 0, started.stderr);
  await tried();
  const { groups } = groupsOf(shell);
  t.equal(groups.length, version === 1 ? 3 : 1);
  const moved = shell.sh('pod-dump --then kill l > $F/image && pod-restart -d < $F/image');
  t.equal(moved.status, 0, moved.stderr);
  t.equal(moved.stderr, '');
  for (const folder of groups) t.notOk(existsSync(folder), 'those of the first pod are gone');
  await tried();
  const next = groupsOf(shell).groups;
  t.equal(shell.sh('pod-kill l').status, 0);
  for (const folder of next) t.notOk(existsSync(folder));
  t.equal(shell.sh('pod-run --name l --pids 5 --no-stdin -- true').status, 0);

  // A machine without control groups: the session runs, and the user is told.
  const bare = shell.sh(`unshare -m sh -c 'umount -R -l /sys/fs/cgroup; pod-restart -d < $F/image'`);
  t.equal(bare.status, 0, bare.stderr);
  t.match(
    bare.stderr,
    "the session's limits don't hold: --memory can't be had here: this machine has no memory controller",
  );
  t.equal(shell.sh('pod-kill l').status, 0);

  const other = makeShell(t, 'nobody');
  const refused = other.sh('pod-run --name l --memory 64M -- true');
  t.equal(refused.status, 1);
  t.match(refused.stderr, /--memory can't be had here: EACCES/);
  t.match(refused.stderr, 'hint: limits need control groups');
  t.strictSame(other.files(), []);
});

t.test(
  'limits of a user whom groups were given to',
  { skip: version !== 2 && 'needs control groups of version 2, and root' },
  (t) => {
    // As systemd does it: the user's folder passes all controllers on, and his login is in one below.
    const top = findPlace('memory')!.folder;
    const folder = join(top, `pod-test-${process.pid}`);
    const all = '+memory +cpu +pids';
    writeFileSync(join(top, 'cgroup.subtree_control'), all);
    mkdirSync(join(folder, 'login'), { recursive: true });
    writeFileSync(join(folder, 'cgroup.subtree_control'), all);
    for (const each of ['', 'cgroup.procs', 'cgroup.subtree_control', 'login', 'login/cgroup.procs'])
      chownSync(join(folder, each), 65534, 65534);
    t.teardown(() => {
      for (const each of ['login', '']) rmdirSync(join(folder, each));
    });
    const shell = makeShell(t, 'nobody');
    const own = readFileSync('/proc/self/cgroup', 'utf8').trim().split('::')[1]!;
    writeFileSync(join(folder, 'login/cgroup.procs'), String(process.pid));
    try {
      const started = shell.sh('pod-run --name l -d --memory 64M --cpus 0.5 --pids 12 -- sleep 1000');
      t.equal(started.status, 0, started.stderr);
      const { groups } = groupsOf(shell);
      t.equal(groups.length, 1);
      t.ok(groups[0]!.startsWith(`${folder}/podstream-l-`), groups[0]!);
      t.equal(readFileSync(join(groups[0]!, 'memory.max'), 'utf8').trim(), String(64 << 20));
      t.equal(readFileSync(join(groups[0]!, 'pids.max'), 'utf8').trim(), '13');
      const moved = shell.sh('pod-dump --then kill l > $F/image && pod-restart -d < $F/image');
      t.equal(moved.status, 0, moved.stderr);
      t.equal(moved.stderr, '');
      t.notOk(existsSync(groups[0]!), 'that of the first pod is gone');
      const next = groupsOf(shell).groups[0]!;
      t.equal(readFileSync(join(next, 'cpu.max'), 'utf8').trim(), '50000 100000');
      t.match(shell.sh('pod-run --check').stdout, /^yes {2}control groups/m);
      t.equal(shell.sh('pod-kill l').status, 0);
      t.notOk(existsSync(next));
    } finally {
      writeFileSync(join(top, own, 'cgroup.procs'), String(process.pid));
    }
    t.end();
  },
);
