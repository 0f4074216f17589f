import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { makeHouse, users } from './house.ts';
import { makeRoot } from './make-root.ts';

for (const user of users) {
  t.test(`a session with a root of its own, as ${user}`, (t) => {
    const house = makeHouse(t, user);
    const root = makeRoot(house.folder, house.uid);
    const script = `
      echo cwd=$PWD tty=$(tty) pid=$$ id=$(id -u)
      echo top=$(ls -m /)
      for device in null zero full random urandom tty; do test -c /dev/$device && test -w /dev/$device && echo has-$device; done
      echo void > /dev/null && echo written; echo kept > /dev/shm/file && cat /dev/shm/file
      echo direct > /dev/tty
      : > /dev/full || echo opened
      test -e /dev/pts/0 && test -e /dev/ptmx && test -e /dev/fd/0 && echo terminals
      while read -r device where rest; do echo mount:$where; done < /proc/mounts
    `;
    const result = house.run('pod-run', ['--name', 'r', '--root', root, '--', 'sh', '-c', script]);
    t.equal(result.status, 0, result.stderr);
    const out = result.stdout;
    t.match(out, `cwd=/ tty=/dev/pts/0 pid=2 id=${house.uid}\n`);
    t.match(out, /^top=bin, dev, .*proc/m);
    t.notMatch(out, /^top=.*(home|root|etc)/m);
    for (const device of ['null', 'zero', 'full', 'random', 'urandom', 'tty'])
      t.match(out, `has-${device}\n`);
    for (const word of ['written', 'kept', 'direct', 'terminals']) t.match(out, `${word}\n`);
    // What covers a part of /proc: see escape.test.ts.
    const mounts = [...out.matchAll(/^mount:(.*)$/gm)]
      .map((found) => found[1]!)
      .filter((where) => !where.startsWith('/proc/'))
      .sort();
    t.strictSame(
      mounts,
      [
        '/',
        '/dev',
        '/dev/full',
        '/dev/null',
        '/dev/ptmx',
        '/dev/pts',
        '/dev/random',
        '/dev/shm',
        '/dev/tty',
        '/dev/urandom',
        '/dev/zero',
        '/proc',
      ],
      'nothing of the host is left',
    );
    t.strictSame(readdirSync(join(root, 'dev')), [], 'nothing is made in the folder itself');
    t.notMatch(readFileSync('/proc/self/mountinfo', 'latin1'), root);

    t.equal(house.run('pod-run', ['--name', 'r', '-d', '--root', root, '--', 'sleep', '1000']).status, 0);
    const [pod] = house.ps();
    t.match(pod, { root, processes: 1, state: 'running' });
    t.equal(house.run('pod-kill', ['r']).status, 0, 'its socket lies outside its root, and still is gone');
    t.strictSame(house.files(), []);
    const missing = house.run('pod-run', ['--name', 'r', '--root', root, '--', 'python3']);
    t.equal(missing.status, 127);
    t.match(missing.stderr, 'is it on the PATH, inside the root');
    t.end();
  });
}
