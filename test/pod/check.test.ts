/** pod-run --check says what is so: as root and as an ordinary user, and where something was taken away. */
import t from 'tap';
import { formatFindings } from '../../lib/pod/check-machine.ts';
import { makeShell } from '../session/session-house.ts';
import { users } from './house.ts';

for (const user of users) {
  t.test(`as ${user}`, async (t) => {
    const shell = makeShell(t, user);
    const done = shell.sh('pod-run --check');
    t.equal(done.status, 0, done.stderr);
    const lines = done.stdout.trim().split('\n');
    t.ok(lines.length > 10);
    for (const line of lines) t.match(line, /^(yes|no ) {2}[^:]+: ./);
    const says = (what: string) => lines.find((line) => line.slice(5).startsWith(what))?.slice(0, 3);
    t.equal(says('pods ('), 'yes');
    t.equal(says('seccomp'), 'yes');
    t.equal(says('files and programs of other users'), user === 'root' ? 'yes' : 'no ');
    t.equal(says('rights over mapped files'), user === 'root' ? 'yes' : 'no ');
    if (user === 'nobody') t.equal(says('control groups'), 'no ');
    t.strictSame(shell.files(), [], 'the pod it tried is gone');
    const both = shell.sh('pod-run --check -- true');
    t.equal(both.status, 2);
    t.equal(shell.sh('pod-run').status, 2, 'a command is still wanted otherwise');
  });
}

t.test('where pods are not to be had', { skip: process.getuid!() !== 0 }, async (t) => {
  const shell = makeShell(t, 'nobody');
  // A user namespace in which no other may be made.
  const done = shell.sh(
    `unshare -U -r sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; setpriv --bounding-set=-all --inh-caps=-all pod-run --check'`,
  );
  t.equal(done.status, 1, done.stdout);
  t.match(done.stdout, /^no {3}pods .*cannot make/m);
});

t.test('the table', (t) => {
  t.equal(
    formatFindings([
      { what: 'a', can: true, meaning: 'b' },
      { what: 'c', can: false, meaning: 'd' },
    ]),
    'yes  a: b\nno   c: d\n',
  );
  t.end();
});
