/** The library on a real session, with a Transform of one's own between, and its failures. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable, Transform } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import t from 'tap';
import { dump, filter, load, PodError, restart, store } from '../../lib/index.ts';
import { packageRoot } from '../../native/package-root.ts';
import { until } from '../pod/house.ts';
import { streamBytes } from '../tools/make-stream.ts';
import { judge } from '../tools/read-vector.ts';

const scratch = mkdtempSync(join(tmpdir(), 'pod-library-'));
process.env.POD_RUNTIME_DIR = join(scratch, 'run');
const key = join(scratch, 'passphrase');
writeFileSync(key, 'a passphrase that is long enough\n');
const drive = join(scratch, 'stick');
mkdirSync(drive);
const command = (name: string, ...args: string[]) =>
  spawnSync(process.execPath, [join(packageRoot(), 'dist/bin', name), ...args], {
    encoding: 'utf8',
    timeout: 60_000,
  });
t.teardown(() => {
  command('pod-kill', 'library');
  rmSync(scratch, { recursive: true, force: true });
});

const rejects = async (promise: Promise<unknown>): Promise<PodError> =>
  promise.then(
    () => {
      throw new Error('it did not fail');
    },
    (cause) => cause as PodError,
  );

t.test('layers on and off again give the same bytes, in any chunks', async (t) => {
  const bytes = streamBytes({ size: 3 << 20, content: 'text' });
  const chunks = function* () {
    for (let at = 0; at < bytes.length; at += 65_537) yield bytes.subarray(at, at + 65_537);
  };
  const sealed = new PassThrough();
  const [, layered] = await Promise.all([
    pipeline(
      Readable.from(chunks(), { objectMode: false }),
      filter('compress', { level: 3 }),
      filter('encrypt', { passphrase: key }),
      sealed,
    ),
    buffer(sealed),
  ]);
  t.equal(judge(layered).class, 'done');
  const open = new PassThrough();
  const [, back] = await Promise.all([
    pipeline(
      Readable.from([layered], { objectMode: false }),
      filter('encrypt', { undo: true, passphrase: key }),
      filter('compress', { undo: true }),
      open,
    ),
    buffer(open),
  ]);
  t.ok(back.equals(bytes));
});

t.test('a session goes from one pipeline through a drive into another', { timeout: 120_000 }, async (t) => {
  const started = command(
    'pod-run',
    '--name',
    'library',
    '-d',
    '--',
    'node',
    join(packageRoot(), 'examples/life.js'),
    '--delay',
    '50',
  );
  t.equal(started.status, 0, started.stderr);
  const picture = () => command('pod-attach', '--snapshot', 'library').stdout;
  const generation = () => Number(/generation (\d+)/.exec(picture())?.[1] ?? 0);
  await until(t, 'the game plays', () => generation() > 0);
  const before = generation();
  const seen = createHash('sha256');
  let bytes = 0;
  const own = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      seen.update(chunk);
      bytes += chunk.length;
      done(null, chunk);
    },
  });
  await pipeline(
    dump('library'),
    own,
    filter('compress'),
    filter('encrypt', { passphrase: key }),
    store(join(drive, 'life')),
  );
  t.ok(bytes > 1 << 20, `${bytes} bytes`);
  t.equal(command('pod-kill', 'library').status, 0);

  // What is on the drive is what went through our own stage.
  const found = createHash('sha256');
  await pipeline(
    load(join(drive, 'life')),
    filter('encrypt', { undo: true, passphrase: key }),
    filter('compress', { undo: true }),
    async (image: AsyncIterable<Buffer>) => {
      for await (const chunk of image) found.update(chunk);
    },
  );
  t.equal(found.digest('hex'), seen.digest('hex'));

  // A restart whose input breaks off leaves no pod.
  const cut = restart({ passphrase: key });
  const broken = await rejects(
    pipeline(
      load(join(drive, 'life')),
      async function* (image: AsyncIterable<Buffer>) {
        for await (const chunk of image) {
          yield chunk.subarray(0, chunk.length >> 1);
          throw new Error('the cable came off');
        }
      },
      cut,
    ),
  );
  t.match(broken.message, /cable/);
  await cut.session.catch(() => undefined);
  t.notMatch(command('pod-ps').stdout, 'library');

  const target = restart({ passphrase: key });
  await pipeline(load(join(drive, 'life')), target);
  const entry = await target.session;
  t.equal(entry.name, 'library');
  await until(t, 'it plays on', () => generation() > before + 5);
  t.notMatch(picture(), /WRONG/);

  // biome-ignore lint/suspicious/noThenProperty: the option's name; nothing awaits it
  const suspended = () => dump('library', { then: 'suspend' });
  // Suspended: it ends when it is stored, and when that fails it goes on.
  const refused = await rejects(pipeline(suspended(), filter('compress'), store('/dev/null/life')));
  t.equal(refused.failure, 'drive', refused.message);
  await until(t, 'let go', () => !command('pod-ps').stdout.includes('frozen'));
  t.match(command('pod-ps').stdout, 'library');
  await pipeline(suspended(), filter('compress'), store(join(drive, 'life'), { warn: () => undefined }));
  t.notMatch(command('pod-ps').stdout, 'library');
  const again = restart();
  await pipeline(load(join(drive, 'life')), again);
  t.equal((await again.session).name, 'library');
});

t.test('failures are PodErrors of their class', async (t) => {
  const nobody = await rejects(pipeline(dump('nobody-by-this-name'), new PassThrough().resume()));
  t.ok(nobody instanceof PodError);
  t.equal(nobody.failure, 'usage');
  t.match(nobody.message, /no pod named/);
  t.throws(() => filter('compress', { level: 400 }), PodError);
  t.throws(() => filter('no-such-filter'), /no-such-filter/);

  const bytes = streamBytes({ size: 100_000 });
  const folder = join(drive, 'cut');
  const truncated = await rejects(pipeline(Readable.from([bytes.subarray(0, -1)]), store(folder)));
  t.equal(truncated.failure, 'truncated');
  t.notOk(existsSync(join(folder, 'HEAD')));

  const wrong = await rejects(
    pipeline(load(join(drive, 'life')), restart({ passphrase: join(scratch, 'none') })),
  );
  t.ok(wrong instanceof PodError, String(wrong));
  t.equal(
    (await rejects(pipeline(load(join(drive, 'nothing')), new PassThrough().resume()))).failure,
    'drive',
  );
});
