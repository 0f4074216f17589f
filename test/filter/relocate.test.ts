import { spawnSync } from 'node:child_process';
import t from 'tap';
import { filter } from '../../filters/relocate.ts';
import { PathRules } from '../../lib/image/relocate/rules.ts';
import { PodError } from '../../lib/stream/error.ts';
import type { Records } from '../../schemas/generated/types.ts';
import * as r from '../tools/records.ts';
import { byteByByte, randomCuts, runFilter } from '../tools/run-filter.ts';

function relocate(entries: readonly r.Entry[], ...rules: string[]): ReturnType<typeof r.readImage> {
  const { output, error } = runFilter(filter, r.writeImage(entries), { rules });
  if (error) throw error;
  return r.readImage(output);
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const socket = (id: number, address: Uint8Array): r.Entry => ({
  kind: 'unix-socket',
  meta: { id, flags: 2, type: 'stream', state: 'listening', address },
});

t.test('rules', async (t) => {
  const apply = (path: string, ...words: string[]) => new PathRules(words).apply(path, 'it');
  t.equal(apply('/home/ann/x', '/home/ann=/home/bob'), '/home/bob/x');
  t.equal(apply('/home/ann', '/home/ann=/home/bob'), '/home/bob', 'the folder itself');
  t.equal(apply('/home/anna/x', '/home/ann=/home/bob'), '/home/anna/x', 'whole components only');
  t.equal(apply('/a/b/c', '/a=/x', '/a/b=/y'), '/y/c', 'the longest wins');
  t.equal(apply('/a/c', '/a/b=/y', '/a=/x'), '/x/c');
  t.equal(apply('/x/c', '/a=/x', '/x=/z'), '/z/c', 'each path is changed once');
  t.equal(apply('/a/c', '/a=/x', '/x=/z'), '/x/c', 'each path is changed once');
  t.equal(apply('/a/c', '/=/mnt'), '/mnt/a/c', 'everything');
  t.equal(apply('/', '/=/mnt'), '/mnt');
  t.equal(apply('/mnt/a', '/mnt=/'), '/a');
  t.equal(apply('/mnt', '/mnt=/'), '/');
  t.equal(apply('/a/c', '/a/=/x//'), '/x/c', 'slashes at the end mean nothing');
  for (const bad of [
    [],
    ['/a'],
    ['a=/b'],
    ['/a=b'],
    ['/a/../b=/c'],
    ['/a=/b/..'],
    ['=/b'],
    ['/a=/b', '/a/=/c'],
  ]) {
    t.throws(() => new PathRules(bad), { name: 'PodError', exitCode: 2 }, JSON.stringify(bad));
  }
  t.throws(() => apply(`/a/${'x'.repeat(4000)}`, `/a=/${'y'.repeat(200)}`), {
    name: 'PodError',
    exitCode: 32,
  });
});

const image = (): r.Entry[] => {
  const list = r.simpleImage('2.6');
  const at = list.findIndex((each) => each.kind === 'fd-table');
  list.splice(
    at,
    0,
    { kind: 'regular', meta: { id: 10, path: '/old/data', flags: 2, position: 0n } },
    { kind: 'regular', meta: { id: 21, path: '/old/gone', unlinked: 1, flags: 2, position: 0n } },
    { kind: 'regular', meta: { id: 22, path: '/memfd:/old', memfd: 2, flags: 2, position: 0n } },
    { kind: 'directory', meta: { id: 11, path: '/old', flags: 0, position: 0n } },
    { kind: 'device', meta: { id: 12, path: '/old/null', flags: 0, rdev: 0x103n, position: 0n } },
    { kind: 'pipe', meta: { id: 13, capacity: 4096, path: '/old/fifo' } },
    { kind: 'pipe', meta: { id: 14, capacity: 4096 } },
    { kind: 'terminal', meta: { id: 15, flags: 2, tty: 1, role: 'controlling', path: '/old/pts/0' } },
    {
      kind: 'inotify',
      meta: {
        id: 16,
        flags: 0,
        watches: [
          { wd: 1, path: '/old/w', mask: 2 },
          { wd: 2, path: '/other', mask: 2 },
        ],
      },
    },
    socket(17, bytes('/old/sock\0')),
    socket(18, bytes('/old/sock')),
    socket(19, bytes('\0/old/abstract')),
    socket(20, bytes('old/relative')),
    { kind: 'content', meta: { file: 13 }, data: bytes('/old/ in a pipe stays') },
  );
  list.splice(
    list.findIndex((each) => each.kind === 'mm'),
    0,
    { kind: 'shm', meta: { id: 1, size: 1n, origin: 'unlinked', path: '/old/gone' } },
    { kind: 'shm', meta: { id: 2, size: 1n, origin: 'memfd', name: '/old' } },
  );
  return list.map((each) => {
    if (each.kind === 'fs') return { ...each, meta: { ...each.meta, cwd: '/old/dir', root: '/old' } };
    if (each.kind === 'mm')
      return { ...each, meta: { ...each.meta, exe: { path: '/old/bin/worker', size: 4096n } } };
    if (each.kind === 'pod') return { ...each, meta: { ...each.meta, root: '/old/root' } };
    if (each.kind === 'areas') {
      const { areas } = each.meta as unknown as Records['areas'];
      return {
        ...each,
        meta: {
          mm: 1,
          areas: areas.map((area) =>
            area.file ? { ...area, file: { path: '/old/lib.so', size: 1n } } : area,
          ),
        },
      };
    }
    return each;
  });
};

t.test('every path of an image', async (t) => {
  const after = relocate(image(), '/old=/new/place');
  t.same(
    r.metasOf(after, 'regular').map((each) => each.path),
    ['/new/place/data', '/new/place/gone', '/memfd:/old'],
  );
  t.same(
    r.metasOf(after, 'shm').map((each) => each.path),
    ['/new/place/gone', undefined],
  );
  t.equal(r.metaOf(after, 'directory').path, '/new/place');
  t.same(
    r.metasOf(after, 'device').map((each) => each.path),
    ['/dev/null', '/new/place/null'],
  );
  t.same(
    r.metasOf(after, 'pipe').map((each) => each.path),
    ['/new/place/fifo', undefined],
  );
  t.equal(r.metaOf(after, 'terminal').path, '/new/place/pts/0');
  t.same(
    r.metaOf(after, 'inotify').watches.map((each) => each.path),
    ['/new/place/w', '/other'],
  );
  t.same(
    r.metasOf(after, 'unix-socket').map((each) => Buffer.from(each.address!).toString()),
    ['/new/place/sock\0', '/new/place/sock', '\0/old/abstract', 'old/relative'],
  );
  t.match(r.metaOf(after, 'fs'), { cwd: '/new/place/dir', root: '/new/place' });
  t.same(r.metaOf(after, 'mm').exe, { path: '/new/place/bin/worker', size: 4096n });
  t.equal(r.metaOf(after, 'pod').root, '/new/place/root');
  t.same(r.metaOf(after, 'areas').areas[0]!.file, { path: '/new/place/lib.so', size: 1n });
  t.equal(
    Buffer.from(after.find((each) => each.kind === 'content')!.data!).toString(),
    '/old/ in a pipe stays',
  );
  t.same(r.metaOf(after, 'hello').history, [
    { filter: 'relocate', version: '1', params: { rules: ['/old=/new/place'] } },
  ]);
});

t.test('what no rule is for leaves byte for byte as it came, however it is cut', async (t) => {
  const input = r.writeImage(image());
  const none = runFilter(filter, input, { rules: ['/nowhere=/x'] });
  t.same(
    r
      .readImage(none.output)
      .slice(1)
      .map((each) => each.raw),
    r
      .readImage(input)
      .slice(1)
      .map((each) => each.raw),
  );
  const whole = runFilter(filter, input, { rules: ['/old=/new'] }).output;
  t.ok(runFilter(filter, input, { rules: ['/old=/new'] }, byteByByte).output.equals(whole));
  for (let seed = 1; seed < 6; seed++)
    t.ok(runFilter(filter, input, { rules: ['/old=/new'] }, randomCuts(seed, 777)).output.equals(whole));
});

t.test('areas that get too long for a frame are divided', async (t) => {
  const list = Array.from({ length: 200 }, (_each, n) =>
    r.anonymous(BigInt(n * 2 + 16) << 12n, 1, {
      kind: 'file',
      offset: 0n,
      file: { path: `/old/${n}${'x'.repeat(200)}` },
    }),
  );
  const entries = r.simpleImage('2.6');
  entries.splice(4, 1, { kind: 'areas', meta: { mm: 1, areas: list } });
  const after = relocate(entries, `/old=/${'n'.repeat(1000)}`);
  const areas = r.metasOf(after, 'areas');
  t.ok(areas.length > 1);
  t.same(
    areas.flatMap((record) => record.areas.map((area) => area.start)),
    list.map((area) => area.start),
  );
  t.ok(areas.every((record) => record.areas.every((area) => area.file!.path.startsWith('/nnn'))));
});

t.test('a path that does not fit is an error that names the object', async (t) => {
  const fails = (entries: r.Entry[], rule: string) => {
    const { error } = runFilter(filter, r.writeImage(entries), { rules: [rule] });
    return PodError.from(error);
  };
  const long = fails(image(), `/old/sock=/${'n'.repeat(120)}`);
  t.equal(long.exitCode, 32);
  t.match(long.message, /unix-socket 17/);
  const odd = r.simpleImage('2.6');
  odd.splice(6, 0, socket(17, Uint8Array.from([...bytes('/old/'), 0xff])));
  t.match(fails(odd, '/old=/new').message, /unix-socket 17: its path is not UTF-8/);
  const watches = Array.from({ length: 60 }, (_each, wd) => ({ wd, path: `/old/${wd}`, mask: 1 }));
  const entries = r.simpleImage('2.6');
  entries.splice(6, 0, { kind: 'inotify', meta: { id: 16, flags: 0, watches } });
  const record = fails(entries, `/old=/${'n'.repeat(2000)}`);
  t.equal(record.exitCode, 32);
  t.match(record.message, /inotify 16/);
});

t.test('as a program: warns when nothing matched, exit 2 without a rule', async (t) => {
  const run = (...words: string[]) =>
    spawnSync('dist/filters/pod-filter-relocate', words, { input: r.writeImage(image()) });
  const done = run('/old=/new', '/never=/ever');
  t.equal(done.status, 0);
  t.equal(done.stderr.toString(), 'pod-filter-relocate: warning: nothing in the image is under "/never"\n');
  t.equal(r.metasOf(r.readImage(done.stdout), 'regular')[0]!.path, '/new/data');
  for (const words of [[], ['/a'], ['a=b']]) {
    const refused = run(...words);
    t.equal(refused.status, 2, words.join(' '));
    t.match(refused.stderr.toString(), /^pod-filter-relocate: error: /);
  }
});
