/** What of a pod's mounts is the session's own; the host's, which come and go in every pod, are none of it. */
import { execFileSync } from 'node:child_process';
import { chownSync, mkdirSync, readdirSync, rmdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { changedMounts } from '../../lib/engine/user/places/changed-mounts.ts';
import { type Mount, mountKey } from '../../lib/runtime/mount-list.ts';
import { makeShell } from '../session/session-house.ts';
import { users } from './house.ts';

t.test('what the session changed, and what the host', (t) => {
  const mount = (text: string): Mount => {
    const [device, root, where, flags] = text.split(' ') as [string, string, string, string];
    return {
      id: 1,
      parent: 0,
      device,
      root,
      where,
      flags: flags === 'rw' ? [] : [flags],
      propagation: 'slave',
      type: 'tmpfs',
      source: 'none',
      options: 'rw',
    };
  };
  const before = ['8:1 / / rw', '8:2 / /stick rw', '0:9 / /proc rw'];
  const host = ['8:1 / / rw', '8:2 / /stick rw', '0:3 / /proc rw'];
  const changes = (inside: string[], outside = host) => {
    const keys = before.map((text) => mountKey(mount(text)));
    const { made, changed, gone } = changedMounts(inside.map(mount), keys, outside.map(mount));
    return { made: made.map(({ where }) => where), changed: changed.map(({ where }) => where), gone };
  };
  const none = { made: [], changed: [], gone: [] };
  const [root, , proc] = before as [string, string, string];
  t.strictSame(changes(before), none);
  t.strictSame(changes([...before, '0:50 / /mnt rw']), { ...none, made: ['/mnt'] });
  t.strictSame(changes([...before, '8:3 / /mnt rw'], [...host, '8:3 / /mnt rw']), none);
  t.strictSame(changes(before.slice(0, 2)), { ...none, gone: ['/proc'] });
  t.strictSame(changes([root, proc]), { ...none, gone: ['/stick'] });
  t.strictSame(changes([root, proc], [host[0]!, host[2]!]), none, 'unplugged');
  t.strictSame(changes([root, '8:2 / /stick ro', proc]), { ...none, changed: ['/stick'] });
  t.strictSame(changes([...before, '8:2 / /stick rw']), { ...none, made: ['/stick'] }, 'twice');
  t.end();
});

/**
 * An ordinary user has all rights over his pod from outside, and none inside; an exec would lose them, so this does it
 * itself.
 */
const enter = `import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
    if result != 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
spaces = [os.open("/proc/%s/ns/%s" % (sys.argv[1], name), os.O_RDONLY) for name in sys.argv[2].split()]
for space in spaces: must(libc.setns(space, 0))
def mount(source, place, kind=None, flags=0, data=None):
    text = [None if each is None else each.encode() for each in (source, place, kind, data)]
    must(libc.mount(text[0], text[1], text[2], flags, text[3]))
def umount(place): must(libc.umount2(place.encode(), 2))
def put(path, text): open(path, "x").write(text)
def get(path): return open(path).read()
def refused(path):
    try: put(path, "")
    except OSError as error: return error.errno == 30
exec(sys.argv[3])
`;

for (const user of users) {
  t.test(`what somebody mounts in a pod of ${user}`, async (t) => {
    const shell = makeShell(t, user);
    const place = join(shell.folder, 'place');
    for (const name of ['', 'bound', 'other']) {
      mkdirSync(join(place, name), { recursive: true });
      if (shell.uid !== process.getuid!()) chownSync(join(place, name), shell.uid, shell.uid);
    }
    t.equal(shell.sh('pod-run --name m -d -- sleep 1000').status, 0);
    const spaces = user === 'root' ? 'mnt' : 'user mnt';
    const must = (code: string) => {
      const TEXT = { ENTER: enter, SPACES: spaces, CODE: `os.chdir("${place}")\n${code}` };
      const init = shell.ps()[0]!.init;
      const done = shell.sh(`exec 2>&1; python3 -c "$ENTER" ${init} "$SPACES" "$CODE"`, TEXT);
      t.match(done, { status: 0, stdout: '' }, code);
    };
    const dump = () => shell.sh('pod-dump m > $F/image');
    t.equal(dump().status, 0);
    must(`mount("mine", "other", "tmpfs", 2, "size=1m")
os.chdir("other")
put("file", "one")
os.link("file", "two")
os.mkdir("deep", 0o700)
put("deep/file", "secret")
os.chmod("deep/file", 0o400)
os.mkfifo("fifo")
os.symlink("nowhere", "link")
mount("deep", "../bound", None, 4096)
mount("over", "deep", "tmpfs")
put("deep/file", "over")`);
    t.match(dump(), { status: 0, stderr: '' });
    const shown = shell.sh('pod-inspect < $F/image').stdout;
    t.match(shown, `tmpfs on ${place}/other (nosuid, relatime), 7 files`);
    t.match(shown, `${place}/other/deep on ${place}/bound`, 'before it was covered');
    t.equal(shell.sh('pod-kill m').status, 0);
    t.same(readdirSync(join(place, 'other')), [], 'nothing of it outside');
    const plan = shell.sh('pod-restart --plan < $F/image');
    t.match(plan, { status: 0, stderr: '' });
    t.match(plan.stdout, `tmpfs on ${place}/other`);
    t.match(shell.sh('pod-restart -d < $F/image'), { status: 0, stderr: '' });
    must(`os.chdir("other")
assert [get(path) for path in ("two", "deep/file", "../bound/file")] == ["one", "over", "secret"]
assert os.path.samefile("file", "two") and os.readlink("link") == "nowhere"
umount("deep")
assert (os.stat("deep").st_mode, os.stat("deep/file").st_mode) == (0o40700, 0o100400)
assert os.statvfs(".").f_blocks * os.statvfs(".").f_frsize == 1 << 20
mount(None, "../bound", None, 32 | 4096 | 2 | 1)
mount("mine", ".", "tmpfs", 32 | 2 | 1)`);
    t.match(dump(), { status: 0, stderr: '' }, 'once more');
    t.equal(shell.sh('pod-kill m').status, 0);
    t.match(shell.sh('pod-restart -d < $F/image'), { status: 0, stderr: '' });
    must(`assert refused("bound/new") and refused("other/new")
assert get("bound/file") == "secret" and not os.path.exists("other/new")
umount("bound")
umount("other")
assert os.listdir("other") == []`);
    t.equal(shell.sh('pod-kill m').status, 0);
    const confined = shell.sh('pod-restart -d --confine < $F/image');
    t.equal(confined.status, 12, confined.stderr);
    t.match(confined.stderr, 'which a confined pod may not');
    t.same(shell.ps(), []);
  });
}

t.test('what is refused', { skip: process.getuid!() !== 0 }, async (t) => {
  const shell = makeShell(t, 'root');
  const place = join(shell.folder, 'place');
  mkdirSync(place);
  const start = () => t.equal(shell.sh('pod-run --name m -d -- sleep 1000').status, 0);
  start();
  const inside = (line: string) =>
    execFileSync('nsenter', ['-t', String(shell.ps()[0]!.init), '-m', '-p', 'sh', '-ec', line]);
  const refused = (what: string) => {
    const done = shell.sh('pod-dump m > $F/image');
    t.equal(done.status, 11, done.stderr);
    t.match(done.stderr, what);
    t.equal(statSync(join(shell.folder, 'image')).size, 0);
  };
  inside(`mkdir ${place}/was; mount -t tmpfs none ${place}`);
  inside(`mkdir ${place}/a ${place}/b; mount --bind ${place}/a ${place}/b; rmdir ${place}/a`);
  refused(`mounted tmpfs (none) on ${place}/b, which can't be mounted again elsewhere`);
  inside(
    `umount ${place}/b; mount --make-shared ${place}; mkdir ${place}/c; mount --bind ${place} ${place}/c`,
  );
  refused(`mount --make-private ${place}`);
  inside(`umount ${place}/c; umount ${place}`);
  t.equal(shell.sh('pod-dump m > $F/image').status, 0);
  inside('umount -l /dev/pts');
  refused("the session unmounted /dev/pts, without which it can't be made again");
  t.equal(shell.sh('pod-kill m && pod-run --name m -d -- unshare -m sleep 1000').status, 0);
  refused('has a mnt namespace of its own');
  t.equal(shell.sh('pod-kill m').status, 0);

  start();
  inside(`mount -t tmpfs none ${place}; mount --bind ${place}/ /mnt`);
  t.equal(shell.sh('pod-dump m > $F/image').status, 0);
  t.equal(shell.sh('pod-kill m').status, 0);
  rmdirSync(join(place, 'was'));
  rmdirSync(place);
  const missing = shell.sh('pod-restart -d < $F/image');
  t.equal(missing.status, 12);
  t.match(missing.stderr, `${place} can't be mounted (tmpfs) here (ENOENT)`);
  t.same(shell.ps(), []);
});
