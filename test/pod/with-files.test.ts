/** Folders of the disk that travel with a session: of one moment with its memory, laid where nothing is in the way. */
import { spawnSync } from 'node:child_process';
import {
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { makeShell, waitFor } from '../session/session-house.ts';
import { users } from './house.ts';
import { makeRoot } from './make-root.ts';

/** Counts into a file that it keeps open; a line is whole or not there. */
const count =
  'n=0; exec 3>>log; while :; do n=$((n+1)); echo $n >&3; echo $n >next; mv next now; sleep 0.05; done';

/** The log holds 1, 2, 3… without a gap: what was written and what the program remembers are of one moment. */
const whole = (text: string) =>
  text ===
  text
    .trim()
    .split('\n')
    .map((_, index) => `${index + 1}\n`)
    .join('');

for (const user of users) {
  t.test(`a job and its folder, as ${user}`, async (t) => {
    const shell = makeShell(t, user);
    const job = join(shell.folder, 'jobs/job');
    mkdirSync(join(job, 'deep/er'), { recursive: true });
    writeFileSync(join(job, 'deep/er/data'), 'x'.repeat(10_000), { mode: 0o640 });
    linkSync(join(job, 'deep/er/data'), join(job, 'same'));
    symlinkSync('../../anywhere', join(job, 'link'));
    writeFileSync(join(job, 'sparse'), 'start');
    truncateSync(join(job, 'sparse'), 1 << 30);
    writeFileSync(join(job, 'closed'), 'closed', { mode: 0o400 });
    utimesSync(join(job, 'closed'), 1e9, 1.1e9);
    spawnSync('chown', ['-hR', `${shell.uid}:${shell.uid}`, join(shell.folder, 'jobs')]);
    t.equal(shell.sh(`pod-run --name j -d --cwd ${job} -- sh -c '${count}'`).status, 0);
    const lines = () => readFileSync(join(job, 'log'), 'utf8').split('\n').length;
    await waitFor('it counts', () => existsSync(join(job, 'log')) && lines() > 5);

    const missing = shell.sh(`pod-dump j --with-files ${job}/nothing > $F/image`);
    t.match(missing, { status: 2, stderr: /nothing of --with-files can't be found/ });
    t.match(shell.sh('pod-dump j --with-files /proc/sys > $F/image').stderr, "can't go along");
    const dumped = shell.sh(`pod-dump j --then kill --with-files ${job} --with-files ${job}/deep > $F/image`);
    t.match(dumped, { status: 0, stderr: '' });
    t.ok(statSync(join(shell.folder, 'image')).size < 4 << 20, 'without holes');
    const names = readdirSync(job).length;
    t.match(shell.sh('pod-inspect --verify < $F/image').stdout, `${job}, ${names + 3} files`);

    // Where the files still are, they stay.
    const inode = statSync(join(job, 'closed')).ino;
    const again = shell.sh('pod-restart -d < $F/image');
    t.match(again, { status: 0, stderr: '' });
    t.equal(statSync(join(job, 'closed')).ino, inode);
    const was = lines();
    await waitFor('it counts on', () => lines() > was + 2);
    t.ok(whole(readFileSync(join(job, 'log'), 'utf8')));
    t.equal(shell.sh('pod-kill j').status, 0);

    // What went on is not overwritten.
    const other = shell.sh('pod-restart -d < $F/image');
    t.equal(other.status, 12, other.stderr);
    t.match(other.stderr, /\/(log|now|next) is here already and is another file/);
    t.same(shell.ps(), []);

    // Elsewhere they are laid down, with the folders that lead there.
    renameSync(join(shell.folder, 'jobs'), join(shell.folder, 'before'));
    const plan = shell.sh('pod-restart --plan < $F/image');
    t.match(plan, { status: 0, stdout: new RegExp(`${job}, ${names + 3} files`) });
    t.notOk(existsSync(job));
    t.match(shell.sh('pod-restart -d < $F/image'), { status: 0, stderr: '' });
    t.equal(readFileSync(join(job, 'deep/er/data'), 'utf8'), 'x'.repeat(10_000));
    t.equal(statSync(join(job, 'same')).ino, statSync(join(job, 'deep/er/data')).ino);
    t.equal(statSync(join(job, 'same')).mode, 0o100640);
    t.equal(readlinkSync(join(job, 'link')), '../../anywhere');
    t.match(statSync(join(job, 'sparse')), { size: 1 << 30 });
    t.ok(statSync(join(job, 'sparse')).blocks < 100);
    t.match(statSync(join(job, 'closed')), { mode: 0o100400, mtimeMs: 1.1e12, uid: shell.uid });
    const then = lines();
    await waitFor('it counts on', () => lines() > then + 2);
    t.ok(whole(readFileSync(join(job, 'log'), 'utf8')));
    t.equal(shell.sh('pod-kill j').status, 0);

    // A restart that fails takes away what it has laid, and no more.
    rmSync(join(shell.folder, 'jobs'), { recursive: true });
    const cut = shell.sh('head -c -5000 $F/image | pod-restart -d');
    t.not(cut.status, 0);
    t.notOk(existsSync(join(shell.folder, 'jobs')));

    // No link is followed.
    const elsewhere = join(shell.folder, 'elsewhere');
    mkdirSync(elsewhere);
    if (shell.uid !== process.getuid!()) chownSync(elsewhere, shell.uid, shell.uid);
    symlinkSync('elsewhere', join(shell.folder, 'jobs'));
    const linked = shell.sh('pod-restart -d < $F/image');
    t.match(linked, {
      status: 12,
      stderr: /jobs is no folder here .*ELOOP|jobs is no folder here .*ENOTDIR/,
    });
    t.same(readdirSync(elsewhere), []);
    rmSync(join(shell.folder, 'jobs'));
    mkdirSync(job, { recursive: true });
    symlinkSync(elsewhere, join(job, 'deep'));
    for (const name of ['jobs', 'jobs/job']) chownSync(join(shell.folder, name), shell.uid, shell.uid);
    const inner = shell.sh('pod-restart -d < $F/image');
    t.match(inner, { status: 12, stderr: /deep is here already and is another file/ });
    t.same(readdirSync(elsewhere), []);
    t.ok(lstatSync(join(job, 'deep')).isSymbolicLink());
    t.same(readdirSync(job), ['deep']);
  });

  t.test(`a whole root, as ${user}`, async (t) => {
    const shell = makeShell(t, user);
    const root = makeRoot(shell.folder, shell.uid);
    spawnSync('chown', ['-hR', `${shell.uid}:${shell.uid}`, root]);
    t.match(
      shell.sh(`pod-run --name r -d --root ${root} -- sh -c 'echo here >file; cat file; exec sleep 1000'`),
      {
        status: 0,
      },
    );
    await waitFor('it is there', () => existsSync(join(root, 'file')));
    t.match(shell.sh('pod-dump r --then kill --with-files / > $F/image'), { status: 0, stderr: '' });
    const next = join(shell.folder, 'next');
    mkdirSync(next);
    chownSync(next, shell.uid, shell.uid);
    t.match(shell.sh(`pod-restart -d --root ${next} < $F/image`), { status: 0, stderr: '' });
    t.equal(readFileSync(join(next, 'file'), 'utf8'), 'here\n');
    t.ok(existsSync(join(next, 'bin/sh')));
    t.equal(shell.ps()[0]?.state, 'running');
    t.equal(shell.sh('pod-kill r').status, 0);
  });
}
