/**
 * The main job on four real programs, as root and as an ordinary user: session, three filters, drive, and back.
 * Each program numbers its lines, so that what a restart lost, doubled or changed is seen from outside as well.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { packageRoot } from '../../native/package-root.ts';
import { users } from '../pod/house.ts';
import {
  disturbed,
  makeShell,
  podProcesses,
  podTree,
  type Shell,
  short,
  waitFor,
  writePassphrase,
} from './session-house.ts';

const megabytes = Number(process.env['POD_TEST_MEGABYTES'] ?? (short ? 64 : 200));

interface Job {
  name: string;
  command: string;
  /** The number of a line. */
  number: RegExp;
  /** Numbers grow by one from line to line, and a line depends on its number alone (but for its clock). */
  counts: boolean;
  /** Other processes come and go. */
  churns?: boolean;
}

const jobs: Job[] = [
  {
    name: 'life',
    command: 'node $EXAMPLES/life.js --delay 40',
    number: /^generation (\d+) · \d+ cells · chain [0-9a-f]{12}/,
    counts: true,
  },
  {
    name: 'threads',
    command: 'python3 -u $EXAMPLES/threads.py',
    number: /^messages (\d+) counted \d+/,
    counts: false,
  },
  {
    name: 'pipeline',
    command: 'bash $EXAMPLES/pipeline.sh',
    number: /^round (\d+) sum \d+/,
    counts: true,
    churns: true,
  },
  { name: 'rehash', command: `$F/rehash ${megabytes}`, number: /^round (\d+) of/, counts: true },
];

/** What a program wrote. */
class Log {
  readonly #path: string;
  readonly #job: Job;

  constructor(shell: Shell, job: Job, name = job.name) {
    this.#path = join(shell.folder, `${name}.log`);
    this.#job = job;
  }

  get lines(): string[] {
    if (!existsSync(this.#path)) return [];
    return readFileSync(this.#path, 'utf8').split('\n').slice(0, -1);
  }

  numberOf(line: string): number {
    const found = this.#job.number.exec(line)?.[1];
    if (found === undefined) throw new Error(`${this.#job.name} says: ${line}`);
    return Number(found);
  }

  get last(): number {
    const line = this.lines.at(-1);
    return line === undefined ? 0 : this.numberOf(line);
  }

  /** Until `more` lines came after the first `from`. */
  async grown(from: number, more: number): Promise<void> {
    await waitFor(`${this.#job.name} writes`, () => this.lines.length >= from + more);
  }
}

function buildRehash(shell: Shell): void {
  const program = join(shell.folder, 'rehash');
  execFileSync('cc', ['-O2', '-o', program, join(packageRoot(), 'examples/rehash.c')]);
  chmodSync(program, 0o755);
}

const toDrive = (dump: string, name: string) =>
  `${dump} | pod-filter upgrade-2.6 | pod-filter compress | pod-filter encrypt -p $F/passphrase | pod-store $F/stick/${name}`;

function processOf(shell: Shell, name: string): number {
  const pod = shell.ps().find((each) => each.name === name);
  if (!pod) throw new Error(`there is no pod ${name}`);
  return pod.init;
}

t.setTimeout(1_700_000);

/** The processes of a pod that are not as they should be; of a job whose processes come and go some end meanwhile. */
function held(shell: Shell, job: Job, name: string): string[] {
  return disturbed(podProcesses(processOf(shell, name))).filter(
    (each) => !job.churns || !/ is (Z|gone)$/.test(each),
  );
}

function sameTree(t: Test, shell: Shell, job: Job, name: string, tree: string[]): void {
  const now = podTree(processOf(shell, name));
  if (!job.churns) t.same(now, tree, 'the same processes under the same pids');
  // The main process of a pod is its pid 2; the others are new ones every moment.
  else
    t.same(
      now.filter((each) => each.startsWith('2 ')),
      tree.filter((each) => each.startsWith('2 ')),
      now.join(),
    );
}

const doer = (t: Test, shell: Shell) => (line: string) => {
  const { status, stdout, stderr } = shell.sh(line);
  t.equal(status, 0, `${line}\n${stdout}${stderr}`);
};

/** The stored image once more, beside the living original whose pids it has; what it writes goes elsewhere. */
async function restartBeside(t: Test, shell: Shell, job: Job, tree: string[]): Promise<void> {
  const copy = `${job.name}-copy`;
  const must = doer(t, shell);
  must(`cp $F/${job.name}.log $F/${copy}.log`);
  const log = new Log(shell, job, copy);
  const old = log.lines.length;
  must(
    `pod-load $F/stick/${job.name} | pod-filter --undo encrypt -p $F/passphrase | pod-filter --undo compress |
     pod-filter relocate $F/${job.name}.log=$F/${copy}.log | pod-restart -d --name ${copy}`,
  );
  await log.grown(old, 2);
  sameTree(t, shell, job, copy, tree);
  t.same(held(shell, job, copy), []);
  t.same(held(shell, job, job.name), [], 'the original is not disturbed');
  must(`pod-kill ${copy}`);
  t.notMatch(log.lines.join('\n'), /WRONG/);
}

async function passThrough(t: Test, shell: Shell, job: Job): Promise<void> {
  const { name } = job;
  const log = new Log(shell, job);
  const must = doer(t, shell);
  must(`pod-run --name ${name} -d -- bash -c "exec ${job.command} >> $F/${name}.log 2>&1"`);
  await log.grown(0, job.counts ? 4 : 2);
  const tree = podTree(processOf(shell, name));
  const tail = (line: string) => line.replace(/ · \d+ s · /, ' · ');
  const pids = () => new Set(log.lines.map((line) => /pid \d+(?: child \d+)?$/.exec(line)?.[0]));

  for (const way of ['dump and kill', 'suspend']) {
    const before = log.last;
    must(toDrive(`pod-dump ${way === 'suspend' ? '--suspend ' : ''}${name}`, name));
    const after = log.last;
    if (way !== 'suspend') {
      t.same(held(shell, job, name), [], 'the session runs on, undisturbed');
      await restartBeside(t, shell, job, tree);
      must(`pod-kill ${name}`);
    }
    t.notOk(
      shell.ps().some((pod) => pod.name === name),
      `${way}: the session is gone`,
    );
    const old = log.lines;
    must(`pod-load $F/stick/${name} | pod-restart -p $F/passphrase -d`);
    await log.grown(old.length, job.counts ? 5 : 2);
    const fresh = log.lines.slice(old.length);
    const [first] = fresh.map((line) => log.numberOf(line));
    if (way === 'suspend') {
      if (job.counts) t.equal(first, after + 1, 'it goes on at the very line where it stopped');
      else t.ok(first! > after);
    } else
      t.ok(first! > before && (!job.counts || first! <= after + 1), `${before} < ${first} <= ${after} + 1`);
    if (job.counts) {
      fresh.forEach((line, index) => {
        if (log.numberOf(line) !== first! + index) t.fail(`line ${first! + index} is missing: ${line}`);
        const lived = old.find((each) => log.numberOf(each) === first! + index);
        if (lived !== undefined && tail(lived) !== tail(line)) t.fail(`lived twice: ${lived}\n${line}`);
      });
    }
    t.equal(pids().size, 1, 'pids inside are the same');
    sameTree(t, shell, job, name, tree);
    t.same(held(shell, job, name), []);
  }
  must(`pod-kill ${name}`);
  t.notMatch(log.lines.join('\n'), /WRONG/);
}

for (const [index, user] of users.entries()) {
  // In the short form users take turns at what each would do.
  const isMine = (turn: number) => !short || turn % users.length === index;
  const otherwise = 'another user does it';
  t.test(`as ${user}`, { timeout: 800_000 }, async (t) => {
    const shell = makeShell(t, user);
    writePassphrase(shell);
    buildRehash(shell);
    t.equal(shell.sh('mkdir $F/stick').status, 0);
    for (const [turn, job] of jobs.entries()) {
      await t.test(job.name, { skip: !isMine(turn) && otherwise }, async (t) => passThrough(t, shell, job));
    }

    await t.test('a second pod beside the first', { skip: !isMine(0) && otherwise }, async (t) => {
      t.equal(shell.sh('pod-run --name one -d -- node $EXAMPLES/life.js --delay 40').status, 0);
      const generationOf = (name: string) => {
        const picture = shell.sh(`pod-attach --snapshot ${name}`).stdout;
        return Math.max(0, ...[...picture.matchAll(/generation (\d+)/g)].map(([, n]) => Number(n)));
      };
      await waitFor('it lives', () => generationOf('one') > 5);
      const stored = shell.sh(toDrive('pod-dump one', 'one'));
      t.equal(stored.status, 0, stored.stderr);
      const taken = shell.sh('pod-load $F/stick/one | pod-restart -p $F/passphrase -d');
      t.not(taken.status, 0, 'its name is taken');
      t.match(taken.stderr, /pod-restart: error: .*one.*\npod-restart: hint: /);
      const second = shell.sh('pod-load $F/stick/one | pod-restart -p $F/passphrase -d --name two');
      t.equal(second.status, 0, second.stderr);
      t.same(podTree(processOf(shell, 'two')), podTree(processOf(shell, 'one')), 'both have the same pids');
      for (const name of ['one', 'two']) {
        const then = generationOf(name);
        t.ok(then > 5, `${name} is in generation ${then}`);
        await waitFor(`${name} goes on`, () => generationOf(name) > then + 5);
        t.notMatch(shell.sh(`pod-attach --snapshot ${name}`).stdout, /WRONG/);
      }
      t.equal(shell.sh('pod-kill one two').status, 0);
    });

    const outside = 'a session outside of a pod, whose pids are taken';
    await t.test(outside, { skip: !isMine(1) && otherwise }, async (t) => {
      // nohup-like: a session of its own, output to a file.
      const started = shell.sh(
        'setsid python3 -u $EXAMPLES/threads.py > $F/plain.log 2>&1 < /dev/null & echo $!',
      );
      const log = join(shell.folder, 'plain.log');
      const lines = () => readFileSync(log, 'utf8').split('\n').slice(0, -1);
      await waitFor('it writes', () => existsSync(log) && lines().length >= 2);
      const pid = Number(/pid (\d+)/.exec(lines()[0]!)![1]);
      const childPid = Number(/child (\d+)/.exec(lines()[0]!)![1]);
      t.equal(started.status, 0);
      t.teardown(() => {
        for (const each of [pid, childPid]) {
          try {
            process.kill(each, 'SIGKILL');
          } catch {
            // It ended.
          }
        }
      });
      const stored = shell.sh(toDrive(`pod-dump ${pid}`, 'plain'));
      t.equal(stored.status, 0, stored.stderr);
      t.same(disturbed([pid, childPid]), [], 'the original runs on');
      process.kill(pid, 'SIGSTOP');
      const before = lines().length;
      const back = shell.sh('pod-load $F/stick/plain | pod-restart -p $F/passphrase -d --name copy');
      t.equal(back.status, 0, back.stderr);
      t.same(
        podTree(processOf(shell, 'copy')),
        [`${pid} python3`, `${childPid} python3`].sort(),
        'the pids it had outside',
      );
      await waitFor('the copy writes', () => lines().length >= before + 2);
      t.notMatch(lines().join('\n'), /WRONG/);
      t.same(disturbed(podProcesses(processOf(shell, 'copy'))), []);
      t.equal(shell.sh('pod-kill copy').status, 0);
    });
  });
}

t.test('filters in Python and in shell take part', { timeout: 120_000 }, async (t) => {
  const shell = makeShell(t, users.at(-1)!, { POD_FILTER_PATH: join(packageRoot(), 'examples/filters') });
  writePassphrase(shell);
  mkdirSync(join(shell.folder, 'stick'), { mode: 0o777 });
  chmodSync(join(shell.folder, 'stick'), 0o777);
  const secret = 'xyzzy-plugh-4711';
  // The program knows its secret only by what it is made of, so that its own text is no second copy.
  const program = `
import time, sys
secret = bytearray(b"-".join([b"xyzzy", b"plugh", b"4711"]))
n = 0
while True:
    n += 1
    print("turn", n, secret.decode(), flush=True)
    time.sleep(0.05)
`;
  t.equal(shell.sh(`pod-run --name f -d -- python3 -c "$PROGRAM" `, { PROGRAM: program }).status, 0);
  const picture = () => shell.sh('pod-attach --snapshot f').stdout;
  await waitFor('it turns', () => /turn 10 /.test(picture()));
  t.match(picture(), secret);
  const stored = shell.sh(
    `pod-dump f | pod-filter redact --text ${secret} | pod-filter xz | pod-filter encrypt -p $F/passphrase | pod-store $F/stick/f`,
  );
  t.equal(stored.status, 0, stored.stderr);
  t.equal(shell.sh('pod-kill f').status, 0);
  const refused = shell.sh('pod-load $F/stick/f | pod-restart -p $F/passphrase -d');
  t.equal(refused.status, 12, 'an image does not choose what runs');
  t.match(refused.stderr, /xz.*\n.*hint: .*--allow/);
  const back = shell.sh('pod-load $F/stick/f | pod-restart -p $F/passphrase --allow xz -d');
  t.equal(back.status, 0, back.stderr);
  await waitFor('it goes on, redacted', () => /turn \d+ \*{16}/.test(picture()));
  t.equal(shell.sh('pod-kill f').status, 0);
});
