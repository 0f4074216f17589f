/**
 * `pod-dump --suspend` ends a session only when its image is durable. Everything that can go wrong on the way
 * leaves it running, and says so.
 */
import { chmodSync, existsSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { users } from '../pod/house.ts';
import { makeDrive, remount, whyNoDrive } from '../tools/drive.ts';
import { disturbed, makeShell, podProcesses, type Shell, waitFor } from './session-house.ts';

t.setTimeout(300_000);

const beat = `
import time, os, threading
data = os.urandom(24 << 20)
check = hash(data)
def count():
    n = 0
    while True:
        n += 1
        open(os.environ["F"] + "/beat", "w").write(str(n) + "\\n")
        assert hash(bytes(bytearray(data))) == check
        time.sleep(0.02)
threading.Thread(target=count).start()
while True: time.sleep(0.01)
`;

/** A session of noise that no filter makes small, with a beat one can watch. */
async function start(t: Test, shell: Shell): Promise<void> {
  const { status, stderr } = shell.sh('pod-run --name s -d -- python3 -c "$BEAT"', { BEAT: beat });
  t.equal(status, 0, stderr);
  await beatsOn(shell);
}

async function beatsOn(shell: Shell, more = 3): Promise<void> {
  const read = () => {
    try {
      return Number(readFileSync(join(shell.folder, 'beat'), 'utf8').trim());
    } catch {
      return 0;
    }
  };
  const then = read();
  await waitFor(`beats after ${then}`, () => read() >= then + more);
}

/** After a suspend that failed: thawed, undisturbed, beating; nothing but old generations on the drive. */
async function goesOn(t: Test, shell: Shell): Promise<void> {
  const [pod, ...others] = shell.ps();
  t.equal(pod?.name, 's', 'the session is there');
  t.equal(others.length, 0);
  t.same(disturbed(podProcesses(pod!.init)), []);
  await beatsOn(shell);
}

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

const saysItGoesOn = /^pod-dump: error: .*the session goes on\n/m;

for (const user of users) {
  t.test(`as ${user}`, async (t) => {
    const shell = makeShell(t, user);
    t.equal(shell.sh('mkdir $F/stick').status, 0);
    await start(t, shell);

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
      for (const victim of ['pod-filter compress', 'pod-store']) {
        // The slow stage holds the stream back until the victim has some of it.
        const slow = '{ head -c 1000000; sleep 2; cat; }';
        const line =
          victim === 'pod-store'
            ? `| ${slow} | { pod-store $F/stick/k & echo $! > $F/victim; wait $!; } `
            : `| ${slow} | { pod-filter compress & echo $! > $F/victim; wait $!; } | pod-store $F/stick/k`;
        // A background job's stdin is /dev/null unless it is told otherwise.
        const running = shell.background(suspendInto(line.replace('& echo', '<&0 & echo')));
        await waitFor('the victim', () => {
          try {
            return Number(readFileSync(join(shell.folder, 'victim'), 'utf8').trim()) || undefined;
          } catch {
            return undefined;
          }
        });
        await sleep(900);
        const pid = Number(readFileSync(join(shell.folder, 'victim'), 'utf8').trim());
        process.kill(pid, 'SIGKILL');
        const { status, stderr } = await running.end;
        t.not(status, 0, `${victim}: ${stderr}`);
        const { dump, message } = dumpOutcome(shell);
        t.not(dump, 0);
        t.match(message, saysItGoesOn, victim);
        await goesOn(t, shell);
        shell.sh('rm -f $F/victim');
      }
    });

    t.test('Ctrl-C for the whole pipeline', async (t) => {
      for (const after of [300, 1500]) {
        // Without a slow reader it would be over before.
        const running = shell.background(
          'trap "echo interrupted" INT; pod-dump --suspend s 2> $F/dump.err | { head -c 500000; sleep 20; cat; } | pod-store $F/stick/c',
        );
        await sleep(after);
        process.kill(-running.pid, 'SIGINT');
        const { status } = await running.end;
        t.not(status, 0);
        await goesOn(t, shell);
      }
    });

    t.test('pod-dump is killed while it waits for the receipt', async (t) => {
      const running = shell.background('pod-dump --suspend s | { cat > /dev/null; sleep 1; }');
      await sleep(1500);
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
  await start(t, shell);
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
