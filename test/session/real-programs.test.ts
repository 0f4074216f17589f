/**
 * Programs as Debian has them, each working hard on what it is made for: dumped while they work (and not disturbed),
 * killed, restarted in a fresh namespace, and worked on. Each checks itself (test/session/real/), and counts its
 * rounds: from outside one sees that none is missing and none comes twice.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { packageRoot } from '../../native/package-root.ts';
import { users } from '../pod/house.ts';
import {
  disturbed,
  lacking,
  makeShell,
  noVeth,
  podProcesses,
  podTree,
  type Shell,
  short,
  waitFor,
} from './session-house.ts';

interface RealProgram {
  name: string;
  /** Commands that must be there. */
  needs: string[];
  /** How it is run; `$REAL` is the folder with the scripts. */
  command: string;
  /** What must be done before, outside the pod. */
  prepare?: string;
  /** It refuses to run as root. */
  ordinary?: boolean;
  /** Options of pod-run. */
  network?: string;
  /** It must run as root. */
  root?: boolean;
  /** What must hold when the session is gone: a shell line that prints the number of the last round, or a later one. */
  left?: string;
}

const postgres = 'PATH=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1):$PATH';

// What was answered is on the disk: what redis itself makes of its files.
const redisLeft = `redis-check-aof $F/appendonlydir/*.manifest >&2; redis-server --port 0 --unixsocket $F/again.sock \
      --dir $F --appendonly yes --daemonize yes --logfile $F/again.log >&2
      until redis-cli -s $F/again.sock ping | grep -q PONG; do sleep 0.1; done
      redis-cli -s $F/again.sock get count; redis-cli -s $F/again.sock shutdown`;

/** Of a pod whose connections lead through its own address. */
const ownAddress = '10.213.99.1';

const programs: RealProgram[] = [
  { name: 'java', needs: ['rhino'], command: 'exec rhino $REAL/churn.rhino' },
  { name: 'go', needs: ['age', 'perl'], command: 'exec bash $REAL/age.sh' },
  { name: 'ruby', needs: ['ruby'], command: 'exec ruby $REAL/queue.rb' },
  { name: 'perl', needs: ['perl'], command: 'exec perl $REAL/fork.pl' },
  {
    name: 'python-sqlite',
    needs: ['python3', 'sqlite3'],
    command: 'exec python3 $REAL/transactions.py',
    left: `sqlite3 $F/database 'select max(n) / 5 from numbers where "ok" = (select integrity_check from pragma_integrity_check)'`,
  },
  {
    name: 'redis',
    needs: ['redis-server', 'redis-check-aof', 'python3'],
    command: 'exec python3 $REAL/redis_client.py',
    left: redisLeft,
  },
  {
    name: 'redis-tcp',
    needs: ['redis-server', 'redis-check-aof', 'python3'],
    command: 'exec python3 $REAL/redis_client.py 127.0.0.1',
    network: '--net none',
    left: redisLeft,
  },
  {
    name: 'node-tcp',
    needs: ['node'],
    command: `exec node $REAL/http.mjs ${ownAddress}`,
    network: `--net own --address ${ownAddress}`,
    root: true,
  },
  { name: 'nginx', needs: ['nginx', 'python3'], command: 'exec python3 $REAL/nginx_client.py' },
  { name: 'node', needs: ['node'], command: 'exec node $REAL/http.mjs' },
  {
    name: 'postgres',
    needs: ['/usr/lib/postgresql'],
    prepare: `${postgres}; initdb -A trust -U somebody -N -D $F/data`,
    command: 'exec bash $REAL/postgres.sh',
    ordinary: true,
  },
];

t.setTimeout(1_700_000);

/** The numbers of the rounds so far; throws when the program found something wrong. */
function roundsOf(shell: Shell, name: string): number[] {
  const lines = readFileSync(join(shell.folder, `${name}.rounds`), 'utf8')
    .split('\n')
    .slice(0, -1);
  return lines.map((line) => {
    const number = /^round (\d+)$/.exec(line)?.[1];
    if (number === undefined) throw new Error(`${name} says: ${line}`);
    return Number(number);
  });
}

async function goesOn(t: Test, shell: Shell, name: string, when: string): Promise<void> {
  const then = roundsOf(shell, name).length;
  await waitFor(`${name} works ${when}`, () => roundsOf(shell, name).length >= then + 6);
  roundsOf(shell, name).forEach((round, index) => {
    if (round !== index + 1) t.fail(`${when}: round ${round} comes in place of ${index + 1}`);
  });
}

async function passOn(t: Test, shell: Shell, program: RealProgram): Promise<void> {
  const { name } = program;
  const must = (line: string) => {
    const { status, stdout, stderr } = shell.sh(line);
    t.equal(status, 0, `${line}\n${stdout}${stderr}`);
    return { stdout, stderr };
  };
  const pod = () => shell.ps().find((each) => each.name === name)!.init;
  if (program.prepare !== undefined) must(program.prepare);
  must(
    `pod-run --name ${name} ${program.network ?? ''} -d -- bash -c '${program.command} > $F/${name}.rounds 2> $F/${name}.errors'`,
  );
  await goesOn(t, shell, name, 'at first');

  const beside = must(`pod-dump ${name} > $F/${name}.image`);
  t.equal(beside.stderr, '', 'dumped without a loss');
  t.same(
    disturbed(podProcesses(pod())).filter((each) => !/ is (Z|gone)$/.test(each)),
    [],
    'nobody is held',
  );
  await goesOn(t, shell, name, 'undisturbed after a dump');

  for (let move = 1; move <= (short ? 1 : 2); move++) {
    const before = podTree(pod());
    t.equal(must(`pod-dump --then kill ${name} > $F/${name}.image`).stderr, '', 'dumped without a loss');
    const { stderr } = must(`pod-restart -d < $F/${name}.image`);
    t.equal(stderr.replace(/^.*does not forward packets.*\n/, ''), '', 'restarted without a warning');
    await goesOn(t, shell, name, `after move ${move}`);
    // Children that live for a moment only are other ones.
    const main = (tree: string[]) => tree.filter((each) => each.startsWith('2 '));
    t.same(main(podTree(pod())), main(before));
  }
  must(`pod-kill ${name}`);
  const last = roundsOf(shell, name).length;
  if (program.left === undefined) return;
  const left = Number(must(program.left).stdout.trim());
  t.ok(left === last || left === last + 1, `it left ${left} after round ${last}`);
}

for (const [turn, program] of programs.entries()) {
  const able = program.ordinary
    ? users.slice(-1)
    : program.root
      ? users.filter((user) => user === 'root')
      : users;
  // In the short form users take turns.
  for (const user of short ? able.slice(turn % able.length).slice(0, 1) : able) {
    const { skip: lacks, fail } = lacking(program.needs);
    const skip = lacks || (program.root ? noVeth : false);
    t.test(`${program.name} as ${user}`, { skip }, async (t) => {
      if (fail) return t.fail(fail);
      const shell = makeShell(t, user, { REAL: join(packageRoot(), 'test/session/real'), HOME: '/tmp' });
      await passOn(t, shell, program);
    });
  }
}

const debugger_ = lacking(['gdb']);
t.test('a program under gdb is refused by name', { skip: debugger_.skip }, async (t) => {
  if (debugger_.fail) return t.fail(debugger_.fail);
  const shell = makeShell(t, users[0]!);
  const run = shell.sh(`pod-run --name d -d -- gdb -q -nx -ex 'break nanosleep' -ex run --args sleep 1000`);
  t.equal(run.status, 0, run.stderr);
  const picture = () => shell.sh('pod-attach --snapshot d').stdout;
  await waitFor('a debugged program', () =>
    podTree(shell.ps()[0]!.init).some((each) => / sleep$/.test(each)),
  );
  const { status, stdout, stderr } = shell.sh('pod-dump d');
  t.equal(status, 11);
  t.equal(stdout, '', 'nothing was written');
  t.match(
    stderr,
    /^pod-dump: error: sleep \(pid \d+\) is being traced by gdb \(pid \d+\)[^\n]*\npod-dump: hint: /,
  );
  await waitFor('its breakpoint', () => /Breakpoint 1, /.test(picture()));
  t.equal(shell.sh('pod-kill d').status, 0);
});
