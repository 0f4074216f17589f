/**
 * `pod-dump --suspend` ends a session only when its image is durable. Everything that can go wrong on the way
 * leaves it running, and says so.
 */
import { chmodSync, existsSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { makeDrive, remount, whyNoDrive } from '../tools/drive.ts';
import { goesOn, startBeating } from './beating.ts';
import { campaignUsers, makeShell, type Shell, waitFor } from './session-house.ts';

t.setTimeout(900_000);

/** The line that begins with pod-dump, with its statuses in a file. No shell may hold the pipe's end beside it. */
const suspendInto = (line: string, options = '') =>
  `pod-dump --suspend ${options} s 2> $F/dump.err ${line}; all=("\${PIPESTATUS[@]}"); echo \${all[0]} > $F/dump.status; exit \${all[-1]}`;

/** Suspend into the rest of a pipeline: its own status and messages, and pod-dump's. */
function dumpIn(shell: Shell, line: string, options = '') {
  return { ...shell.sh(suspendInto(line, options)), ...dumpOutcome(shell) };
}

function dumpOutcome(shell: Shell) {
  return {
    dump: Number(readFileSync(join(shell.folder, 'dump.status'), 'utf8')),
    message: readFileSync(join(shell.folder, 'dump.err'), 'utf8'),
  };
}

/** A file of the house; empty when there is none. */
function readIn(shell: Shell, name: string): string {
  try {
    return readFileSync(join(shell.folder, name), 'utf8').trim();
  } catch {
    return '';
  }
}

const saysItGoesOn = /^pod-dump: error: .*the session goes on\n/m;

for (const user of campaignUsers) {
  t.test(`as ${user}`, async (t) => {
    const shell = makeShell(t, user);
    t.equal(shell.sh('mkdir $F/stick').status, 0);
    await startBeating(t, shell, 8);

    t.test('no store shows up', async (t) => {
      const began = Date.now();
      const { dump, message } = dumpIn(shell, '| cat > /dev/null', '--receipt-timeout 1');
      t.equal(dump, 10);
      t.match(message, saysItGoesOn);
      t.match(message, /hint: .*pod-store/);
      t.ok(Date.now() - began < 30_000);
      await goesOn(t, shell);
    });

    t.test('the reader is gone', async (t) => {
      for (const reader of ['true', 'head -c 100 > /dev/null', 'head -c 2000000 > /dev/null']) {
        const { dump, message } = dumpIn(shell, `| ${reader}`);
        t.not(dump, 0, reader);
        t.match(message, saysItGoesOn, reader);
        await goesOn(t, shell);
      }
    });

    t.test('somebody else keeps a pipe open', async (t) => {
      // The shell holds the end that pod-dump writes to, and would close it when pod-dump ends.
      const lines: [string, RegExp][] = [
        [
          '{ pod-dump --suspend --receipt-timeout 2 s 2> $F/dump.err; echo $? > $F/dump.status; echo; }',
          /hint: process \d+ \(bash\) keeps the pipe open/,
        ],
        [
          'pod-dump --suspend --receipt-timeout 2 s 2> $F/dump.err | { cat; pod-ps > /dev/null; until [ -s $F/dump.err ]; do sleep 0.1; done; }',
          /hint: .*--receipt-timeout/,
        ],
      ];
      for (const [dump, hint] of lines) {
        shell.sh('rm -f $F/dump.err $F/dump.status');
        const { status, stderr } = shell.sh(
          `${dump} | pod-store $F/stick/held; all=("\${PIPESTATUS[@]}"); [ -s $F/dump.status ] || echo \${all[0]} > $F/dump.status; exit \${all[-1]}`,
        );
        const { dump: ended, message } = dumpOutcome(shell);
        t.equal(ended, 10, message);
        t.match(
          message,
          /pod-store got nothing for 2 s and still waits for the end.*; the session goes on\n/,
        );
        t.match(message, hint);
        t.not(status, 0, 'what pod-dump gave up never becomes current');
        t.match(stderr, /pod-store: error: (there are bytes after END|the image came too late)/);
        await goesOn(t, shell);
        t.notOk(existsSync(join(shell.folder, 'stick/held/HEAD')));
      }
    });

    t.test('the way is cut', async (t) => {
      const { status, stderr, dump, message } = dumpIn(shell, '| head -c 3000000 | pod-store $F/stick/cut');
      t.equal(status, 5, stderr);
      t.not(dump, 0);
      t.match(message, saysItGoesOn);
      await goesOn(t, shell);
      const left = readdirSync(join(shell.folder, 'stick'), { recursive: true, encoding: 'utf8' });
      t.notOk(
        left.some((path) => path.endsWith('HEAD')),
        left.join(),
      );
    });

    t.test('a filter, or the store, is killed in the middle', async (t) => {
      for (const victim of ['pod-filter compress', 'pod-store $F/stick/k']) {
        shell.sh('rm -f $F/victim $F/go');
        // A gate holds the stream back until the victim has some of it.
        const gate = '{ head -c 1500000; until [ -e $F/go ]; do sleep 0.02; done; cat; }';
        // A background job's stdin is /dev/null unless it is told otherwise.
        const stage = `{ ${victim} <&0 & echo $! > $F/victim; wait $!; }`;
        const store = victim.startsWith('pod-filter') ? '| pod-store $F/stick/k' : '';
        const running = shell.background(suspendInto(`| ${gate} | ${stage} ${store}`));
        const pid = await waitFor('the victim', () => Number(readIn(shell, 'victim')) || undefined);
        await waitFor('it has read some', () => {
          const read = /^rchar: (\d+)/m.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))?.[1];
          return Number(read) > 1_500_000;
        });
        process.kill(pid, 'SIGKILL');
        shell.sh('touch $F/go');
        const { status, stderr } = await running.end;
        t.not(status, 0, `${victim}: ${stderr}`);
        const { dump, message } = dumpOutcome(shell);
        t.not(dump, 0);
        t.match(message, saysItGoesOn, victim);
        await goesOn(t, shell);
      }
    });

    t.test('Ctrl-C for the whole pipeline', async (t) => {
      for (const moment of ['early', 'frozen']) {
        // Without a slow reader it would be over before.
        const running = shell.background(
          'trap "echo interrupted" INT; pod-dump --suspend s 2> $F/dump.err | { head -c 500000; sleep 20; cat; } | pod-store $F/stick/c',
        );
        if (moment === 'early') await sleep(100);
        else await waitFor('it is frozen', () => shell.ps()[0]?.state === 'frozen');
        process.kill(-running.pid, 'SIGINT');
        const { status } = await running.end;
        t.not(status, 0);
        await goesOn(t, shell);
      }
    });

    t.test('pod-dump is killed while it waits for the receipt', async (t) => {
      const running = shell.background(
        'pod-dump --suspend s | { cat > /dev/null; touch $F/drained; sleep 20; }',
      );
      await waitFor('it has written all', () => existsSync(join(shell.folder, 'drained')));
      process.kill(-running.pid, 'SIGKILL');
      await running.end;
      await goesOn(t, shell);
    });

    t.test('and when it is stored, the session has ended', async (t) => {
      const { status, stderr, dump, message } = dumpIn(
        shell,
        '| pod-filter compress --level 1 | pod-store $F/stick/s',
      );
      t.equal(status, 0, stderr);
      t.equal(dump, 0, message);
      t.same(shell.ps(), []);
      t.equal(shell.sh('pod-load $F/stick/s | pod-restart -d').status, 0);
      await goesOn(t, shell);
      t.equal(shell.sh('pod-kill s').status, 0);
    });
  });
}

t.test('drives that fail', { skip: whyNoDrive('ext4') ?? false }, async (t) => {
  const shell = makeShell(t, 'root');
  const drive = makeDrive(t, 'ext4', 16);
  chmodSync(drive.path, 0o777);
  await startBeating(t, shell, 24);
  symlinkSync(drive.path, join(shell.folder, 'stick'));
  // A first generation that is whole: a small session's.
  t.equal(shell.sh('pod-run --name small -d -- sleep 1000').status, 0);
  const first = shell.sh('pod-dump small | pod-filter compress | pod-store $F/stick/s');
  t.equal(first.status, 0, first.stderr);
  t.equal(shell.sh('pod-kill small').status, 0);
  const head = readFileSync(join(drive.path, 's/HEAD'), 'utf8');

  t.test('full', async (t) => {
    for (const filters of ['', '| pod-filter compress']) {
      const { status, stderr, dump, message } = dumpIn(shell, `${filters} | pod-store $F/stick/s`);
      t.equal(status, 13, stderr);
      t.match(stderr, /pod-store: error: .*\n.*hint: /);
      t.not(dump, 0);
      t.match(message, saysItGoesOn);
      await goesOn(t, shell);
      t.equal(readFileSync(join(drive.path, 's/HEAD'), 'utf8'), head);
    }
  });

  t.test('read-only', async (t) => {
    remount(drive, 'ro');
    const { status, stderr, dump, message } = dumpIn(shell, '| pod-store $F/stick/s');
    t.equal(status, 13, stderr);
    t.not(dump, 0);
    t.match(message, saysItGoesOn);
    await goesOn(t, shell);
    t.equal(readFileSync(join(drive.path, 's/HEAD'), 'utf8'), head);
    remount(drive, 'rw');
  });

  const verified = shell.sh('pod-load --verify $F/stick/s');
  t.equal(verified.status, 0, verified.stderr);
});
