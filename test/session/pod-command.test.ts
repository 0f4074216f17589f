/** `pod suspend` and `pod resume`: whole sessions in one process, and everything that can go wrong with them. */
import { spawnSync } from 'node:child_process';
import { appendFileSync, chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { users } from '../pod/house.ts';
import { makeDrive, remount, whyNoDrive } from '../tools/drive.ts';
import { Random } from '../tools/random.ts';
import { beatsOn, goesOn, lastBeat, startBeating } from './beating.ts';
import {
  campaignUsers,
  filesBelow,
  makeShell,
  type Shell,
  waitFor,
  writePassphrase,
} from './session-house.ts';

t.setTimeout(900_000);

const saysItGoesOn = /^pod: error: [^\n]*; the session goes on$/m;
const says = /^pod: error: [^\n]+[^.\n]\n(pod: hint: [^\n]+\n)?$/m;

/** An age key pair in the house, as `key` and `key.pub`, and a stranger's key. */
function writeKeys(shell: Shell): void {
  for (const name of ['key', 'stranger']) {
    const made = spawnSync('age-keygen', { encoding: 'utf8' });
    if (made.status !== 0) throw new Error('age-keygen is needed (package age)');
    writeFileSync(join(shell.folder, name), made.stdout);
    writeFileSync(join(shell.folder, `${name}.pub`), /age1[0-9a-z]+/.exec(made.stdout)![0]);
  }
}

/** After a resume that failed: no pod, no process, and the image can still be loaded. */
function nothingMade(t: Test, shell: Shell, why: string): void {
  t.same(shell.ps(), [], why);
  t.same(shell.files(), [], why);
}

/** /proc/PID/status; empty when there is no such process. */
function statusOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'latin1');
  } catch {
    return '';
  }
}

for (const user of campaignUsers) {
  t.test(`as ${user}`, async (t) => {
    const shell = makeShell(t, user);
    writeKeys(shell);
    writePassphrase(shell);
    t.equal(shell.sh('mkdir $F/stick').status, 0);
    const fails = (t: Test, line: string, status: number, why: RegExp) => {
      const done = shell.sh(line);
      t.equal(done.status, status, `${line}\n${done.stderr}`);
      t.match(done.stderr, why, line);
      t.match(done.stderr, says, line);
      return done;
    };
    await startBeating(t, shell, 8);

    t.test('what is wrong before anything is stopped', async (t) => {
      fails(t, 'pod suspend no-such $F/stick/s', 2, /there is no pod named no-such/);
      fails(t, 'pod suspend s', 2, /suspend wants POD DIR/);
      fails(t, 'pod suspend s $F/stick/s -R $F/none.pub', 2, /none\.pub/);
      fails(t, 'pod suspend s $F/stick/s -r age1nonsense', 2, /age1nonsense|recipient/);
      fails(t, 'pod suspend s $F/stick/s -- no-such-filter', 2, /no-such-filter/);
      fails(t, 'pod suspend s $F/stick/s --keep 0', 2, /generation/);
      t.same(readdirSync(join(shell.folder, 'stick')), []);
      await goesOn(t, shell);
    });

    t.test('onto a folder and back, for a key', async (t) => {
      const suspended = shell.sh('pod suspend s $F/stick/s -R $F/key.pub');
      t.equal(suspended.status, 0, suspended.stderr);
      t.equal(suspended.stderr, '');
      t.same(shell.ps(), [], 'the session is gone');
      t.same(shell.files(), []);
      t.same(readdirSync(join(shell.folder, 'receipts')), [], 'nobody waits for a receipt');
      const beat = lastBeat(shell);
      const stored = filesBelow(join(shell.folder, 'stick/s'));
      t.match(shell.sh('pod-load --list $F/stick/s').stdout, /encrypt/);
      await sleep(100);
      t.equal(lastBeat(shell), beat);

      fails(t, 'pod resume $F/stick/s', 7, /key|identity|passphrase/);
      fails(t, 'pod resume $F/stick/s -i $F/stranger', 7, /key|identity/);
      fails(t, 'pod resume $F/stick/s -i $F/none', 2, /none/);
      fails(t, 'pod resume $F/stick/none -i $F/key', 13, /none/);
      fails(t, 'pod resume $F/stick/s -i $F/key -g 7', 6, /generation 7/);
      fails(t, 'pod resume', 2, /DIR/);
      nothingMade(t, shell, 'after failed resumes');
      t.same(filesBelow(join(shell.folder, 'stick/s')), stored, 'the image is untouched');

      const resumed = shell.sh('pod resume $F/stick/s -i $F/key');
      t.equal(resumed.status, 0, resumed.stderr);
      await beatsOn(shell, 1);
      t.ok(lastBeat(shell) > beat, 'it goes on where it stopped');
      await goesOn(t, shell);
      fails(t, 'pod resume $F/stick/s -i $F/key', 1, /a pod named s runs already/);
      await goesOn(t, shell, 'beside a refused second one');
    });

    t.test('with filters of one’s choice, under another name', async (t) => {
      const chain = 'upgrade-2.6 compress --level 1 encrypt --passphrase $F/passphrase';
      const suspended = shell.sh(`pod suspend s $F/stick/s -- ${chain}`);
      t.equal(suspended.status, 0, suspended.stderr);
      t.same(shell.ps(), []);
      const beat = lastBeat(shell);
      const resumed = shell.sh('pod resume $F/stick/s -p $F/passphrase -d --name again');
      t.equal(resumed.status, 0, resumed.stderr);
      t.same(
        shell.ps().map(({ name }) => name),
        ['again'],
      );
      await beatsOn(shell);
      t.ok(lastBeat(shell) > beat);
      // Back to its name, in the clear, which is told.
      const plain = shell.sh('pod suspend again $F/stick/s --keep 1 && pod resume $F/stick/s --name s');
      t.equal(plain.status, 0, plain.stderr);
      t.match(plain.stderr, /^pod: warning: .*without encryption/);
      await goesOn(t, shell);
    });

    t.test('a damaged image, and the one before it', async (t) => {
      t.equal(shell.sh('pod-dump s | pod-store $F/stick/s 2> /dev/null').status, 0);
      const [newest] = readdirSync(join(shell.folder, 'stick/s'))
        .filter((name) => name.endsWith('.000'))
        .sort()
        .reverse();
      const segment = join(shell.folder, 'stick/s', newest!);
      const bytes = readFileSync(segment);
      bytes[bytes.length >> 1]! ^= 1;
      writeFileSync(segment, bytes);
      fails(t, 'pod resume $F/stick/s --name t', 6, /damaged/);
      appendFileSync(segment, 'x');
      const { stderr } = fails(t, 'pod resume $F/stick/s --name t', 6, /hint: .*--generation \d+/);
      t.equal(shell.ps().length, 1);
      const older = /--generation (\d+)/.exec(stderr)![1];
      const resumed = shell.sh(`pod resume $F/stick/s --generation ${older} --name t && pod-kill t`);
      t.equal(resumed.status, 0, resumed.stderr);
    });

    t.test('the folder cannot be made or written', async (t) => {
      t.equal(shell.sh('touch $F/file; mkdir $F/locked').status, 0);
      const { stderr } = fails(t, 'pod suspend s $F/file/s -R $F/key.pub', 13, /file/);
      t.match(stderr, saysItGoesOn);
      if (user !== 'root') {
        chmodSync(join(shell.folder, 'locked'), 0o555);
        t.match(
          fails(t, 'pod suspend s $F/locked/s -R $F/key.pub', 13, /no permission/).stderr,
          saysItGoesOn,
        );
      }
      await goesOn(t, shell);
    });

    t.test('a signal in the middle', async (t) => {
      const random = new Random(Number(process.env['POD_TEST_SEED'] ?? 5));
      const head = join(shell.folder, 'stick/signal/HEAD');
      const suspend = 'pod suspend s $F/stick/signal -R $F/key.pub';
      const resume = () => t.equal(shell.sh('pod resume $F/stick/signal -i $F/key').status, 0);
      t.equal(shell.sh(suspend).status, 0);
      resume();
      for (const signal of ['SIGINT', 'SIGTERM', 'SIGKILL', 'SIGHUP', 'SIGINT'] as const) {
        const main = shell.ps()[0]!.mainHost!;
        const before = readFileSync(head, 'utf8');
        const running = shell.background(`exec ${suspend}`);
        // It has a hand on the session: from here on a signal meets a dump, a store or a wait.
        await waitFor('it is frozen', () => !/^State:\t[RSD]/m.test(statusOf(main)), undefined, 2);
        await sleep(random.below(80));
        try {
          process.kill(running.pid, signal);
        } catch {
          // It was done before.
        }
        const { status, stderr } = await running.end;
        if (shell.ps().length > 0) {
          t.ok(status > 128, `${signal}: ${status} ${stderr}`);
          await goesOn(t, shell, signal);
          continue;
        }
        // Only a stored one ends.
        t.not(readFileSync(head, 'utf8'), before, signal);
        resume();
      }
      const verified = shell.sh('pod-load --verify $F/stick/signal');
      t.equal(verified.status, 0, verified.stdout);
      t.equal(shell.sh('pod suspend s $F/stick/signal -R $F/key.pub').status, 0);
      nothingMade(t, shell, 'at the end');
    });
  });
}

t.test('drives that fail', { skip: whyNoDrive('ext4') ?? false }, async (t) => {
  const shell = makeShell(t, users[0]!);
  const drive = makeDrive(t, 'ext4', 16);
  await startBeating(t, shell, 24);
  t.equal(shell.sh(`ln -s ${drive.path} $F/stick; pod-run --name small -d -- sleep 1000`).status, 0);
  t.equal(shell.sh('pod-dump small | pod-filter compress | pod-store $F/stick/s; pod-kill small').status, 0);
  const head = readFileSync(join(drive.path, 's/HEAD'), 'utf8');
  const full = shell.sh('pod suspend s $F/stick/s');
  t.equal(full.status, 13, full.stderr);
  t.match(full.stderr, saysItGoesOn);
  t.match(full.stderr, /full.*\npod: hint: /);
  await goesOn(t, shell, 'after a full drive');
  remount(drive, 'ro');
  const readOnly = shell.sh('pod suspend s $F/stick/s');
  t.equal(readOnly.status, 13, readOnly.stderr);
  t.match(readOnly.stderr, saysItGoesOn);
  t.equal(readOnly.stderr.match(/without encryption/g)?.length, 1, 'a warning is given once');
  await goesOn(t, shell, 'after a read-only drive');
  t.equal(readFileSync(join(drive.path, 's/HEAD'), 'utf8'), head);
  t.ok(existsSync(join(drive.path, 's/lock')));
  const back = shell.sh('pod resume $F/stick/s && pod-kill small');
  t.equal(back.status, 0, `from a read-only drive: ${back.stderr}`);
  t.equal(shell.sh('pod-kill s').status, 0);
});
