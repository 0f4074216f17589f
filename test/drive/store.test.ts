import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import {
  listGenerations,
  loadInto,
  type Manifest,
  type StoreOptions,
  storeSink,
} from '../../lib/drive/index.ts';
import { waitForReceipt } from '../../lib/runtime/receipt.ts';
import { PodError } from '../../lib/stream/error.ts';
import { headerLength, trailerLength } from '../../lib/stream/frame.ts';
import { kinds } from '../../lib/stream/kind.ts';
import { StreamWriter } from '../../lib/stream/stream-writer.ts';
import { makeFolder, runShell } from '../tools/commands.ts';
import { imageIdOf, streamBytes } from '../tools/make-stream.ts';

const lab = makeFolder(t);
const runtime = join(lab, 'run');
mkdirSync(runtime, { mode: 0o700 });
process.env.POD_RUNTIME_DIR = runtime;

/** Push bytes as pump() would; the error, when there is one. */
function store(
  folder: string,
  bytes: Uint8Array,
  options: StoreOptions = {},
  chunk = bytes.length,
): PodError | undefined {
  const sink = storeSink(folder, options);
  try {
    for (let at = 0; at < bytes.length; at += chunk) sink.write(bytes.subarray(at, at + chunk));
    sink.end();
    return undefined;
  } catch (cause) {
    sink.abort(cause);
    return PodError.from(cause);
  }
}

function load(folder: string, generation?: number): Buffer {
  const chunks: Buffer[] = [];
  loadInto(
    folder,
    { generation },
    { write: (c) => void chunks.push(Buffer.from(c)), end: () => undefined, abort: () => undefined },
  );
  return Buffer.concat(chunks);
}

const current = (folder: string) => listGenerations(folder).find((each) => each.current)?.generation;
const frames = (bytes: Uint8Array): number[] => {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const ends = [16];
  while (ends.at(-1)! < bytes.length) {
    const at = ends.at(-1)!;
    ends.push(
      at + headerLength + view.getUint16(at + 2, true) + view.getUint32(at + 4, true) + trailerLength,
    );
  }
  return ends;
};

t.test('what goes in comes out, in any chunks and segments', async (t) => {
  const bytes = streamBytes({ size: 50_000, frameSize: 4096 });
  for (const [segmentSize, chunk] of [
    [2 ** 31, bytes.length],
    [4096, 1],
    [512, 65_536],
    [bytes.length, 7],
    [bytes.length - 1, 4096],
  ] as const) {
    const folder = join(lab, `io-${segmentSize}-${chunk}`);
    let manifest: Manifest | undefined;
    t.equal(store(folder, bytes, { segmentSize, stored: (m) => (manifest = m) }, chunk), undefined);
    t.equal(manifest?.segments.length, Math.ceil(bytes.length / segmentSize));
    t.same(load(folder), bytes);
  }
});

t.test('generations: the newest is current, --keep of them stay', async (t) => {
  const folder = join(lab, 'generations');
  for (let seed = 1; seed <= 5; seed++) {
    t.equal(store(folder, streamBytes({ seed }), { keep: 3 }), undefined);
    t.equal(current(folder), seed);
  }
  t.same(
    listGenerations(folder).map((each) => each.generation),
    [5, 4, 3],
  );
  t.same(load(folder, 4), streamBytes({ seed: 4 }));
  t.equal(store(folder, streamBytes({ seed: 6 }), { keep: 1 }), undefined);
  t.same(readdirSync(folder).sort(), ['00000006.000', '00000006.json', 'HEAD', 'lock']);
  t.throws(() => load(folder, 4), { name: 'PodError', failure: 'damaged' });
});

t.test('a cut anywhere never makes a generation current', async (t) => {
  const good = streamBytes({ seed: 1 });
  const folder = join(lab, 'cuts');
  t.equal(store(folder, good), undefined);
  const before = readdirSync(folder);
  const other = streamBytes({ seed: 2, size: 4096 });
  const cuts = new Set<number>();
  for (const end of frames(other)) for (let cut = end - 2; cut <= end + 2; cut++) cuts.add(cut);
  for (let cut = 0; cut < other.length; cut += 41) cuts.add(cut);
  for (const cut of cuts) {
    if (cut < 0 || cut >= other.length) continue;
    const error = store(folder, other.subarray(0, cut));
    if (error?.failure !== 'truncated') t.fail(`cut after ${cut}: ${error?.message}`);
  }
  t.ok(cuts.size > 150);
  t.equal(current(folder), 1);
  t.same(readdirSync(folder), before, 'nothing is left of the cut ones');
  t.same(load(folder), good);
});

t.test('a flipped bit never makes a generation current', async (t) => {
  const folder = join(lab, 'flips');
  t.equal(store(folder, streamBytes({ seed: 1 })), undefined);
  const bytes = streamBytes({ seed: 2, size: 4096 });
  for (let at = 0; at < bytes.length; at += 53) {
    const bad = Buffer.from(bytes);
    bad[at]! ^= 1 << (at % 8);
    // The minor version may be any.
    if (at === 10 || at === 11) continue;
    if (store(folder, bad) === undefined) t.fail(`bit flip at ${at} was stored`);
  }
  t.equal(current(folder), 1);
});

t.test('bytes after END, an ERROR at the end, a foreign or empty input', async (t) => {
  const folder = join(lab, 'foreign');
  t.equal(store(folder, Buffer.concat([streamBytes(), Buffer.from('x')]))?.failure, 'damaged');
  t.equal(store(folder, Buffer.from('hello, world'))?.failure, 'foreign');
  t.equal(store(folder, Buffer.alloc(0))?.failure, 'truncated');
  t.equal(store(folder, streamBytes().subarray(0, 200))?.failure, 'truncated');
  t.notOk(existsSync(folder), 'no folder was made');
});

t.test('an upstream that failed says so, and nothing becomes current', async (t) => {
  const folder = join(lab, 'upstream');
  for (const [records, made] of [
    [0, false],
    [1, true],
  ] as const) {
    const chunks: Buffer[] = [];
    const writer = new StreamWriter({
      write: (c) => void chunks.push(Buffer.from(c)),
      end: () => undefined,
      abort: () => undefined,
    });
    if (records)
      writer.record(kinds.layer, { filter: 'encrypt', version: '1', params: {}, imageId: imageIdOf(5) });
    writer.error('pod-dump', new PodError('cannot-checkpoint', 'pid 7 holds a tape drive', 'close it'));
    const error = store(folder, Buffer.concat(chunks));
    t.match(error, {
      failure: 'upstream',
      message: 'upstream failed: pod-dump: pid 7 holds a tape drive',
      hint: 'close it',
    });
    t.notOk(existsSync(folder), made ? 'the folder it had made is removed' : 'no folder is made');
  }
});

t.test('a plain image is stored with a warning, an encrypted one without', async (t) => {
  for (const [layer, warned] of [
    [undefined, true],
    ['compress', true],
    ['encrypt', false],
  ] as const) {
    const warnings: string[] = [];
    const bytes = streamBytes(layer === undefined ? {} : { layer });
    t.equal(
      store(join(lab, `plain-${layer}`), bytes, { warn: (message) => warnings.push(message) }),
      undefined,
    );
    t.equal(
      warnings.some((text) => text.includes('without encryption')),
      warned,
      `${layer}`,
    );
  }
});

t.test('a receipt says where the image is, or why not', async (t) => {
  const folder = join(lab, 'receipts');
  const bytes = streamBytes({ seed: 9 });
  t.equal(store(folder, bytes), undefined);
  t.match(await waitForReceipt(imageIdOf(9)), { drive: folder, generation: 1, bytes: bytes.length });
  store(folder, bytes.subarray(0, -3));
  await t.rejects(waitForReceipt(imageIdOf(9)), {
    name: 'PodError',
    failure: 'truncated',
    message: /was not stored/,
  });
});

t.test('two stores at once: the second is refused, the first is not disturbed', async (t) => {
  const folder = join(lab, 'twice');
  const bytes = streamBytes({ seed: 1 });
  const first = storeSink(folder);
  first.write(bytes.subarray(0, 5000));
  const refused = runShell(`$MAKE --seed 2 2>&- | pod-store ${folder}`, runtime);
  t.equal(refused.status, 13);
  t.match(refused.stderr, /another pod-store is writing .*pid/);
  first.write(bytes.subarray(5000));
  first.end();
  t.same(load(folder), bytes);
  t.equal(store(folder, streamBytes({ seed: 3 })), undefined, 'the lock is free again');
});

t.test('what a dead store left is removed by the next, the numbers go on', async (t) => {
  const folder = join(lab, 'leftovers');
  t.equal(store(folder, streamBytes({ seed: 1 })), undefined);
  writeFileSync(join(folder, '00000002.000'), 'half');
  writeFileSync(join(folder, '00000003.000'), 'half');
  writeFileSync(join(folder, '00000003.json'), '{"crc32": 1, "mani');
  writeFileSync(join(folder, 'notes.txt'), "the user's own");
  t.equal(current(folder), 1);
  t.equal(store(folder, streamBytes({ seed: 2 })), undefined);
  t.same(readdirSync(folder).sort(), [
    '00000001.000',
    '00000001.json',
    '00000004.000',
    '00000004.json',
    'HEAD',
    'lock',
    'notes.txt',
  ]);
});

t.test('HEAD lost or damaged: the newest complete generation is taken', async (t) => {
  const folder = join(lab, 'head');
  t.equal(store(folder, streamBytes({ seed: 1 })), undefined);
  t.equal(store(folder, streamBytes({ seed: 2 })), undefined);
  for (const text of ['', 'podstream 00000009 00000000\n', '\0'.repeat(28)]) {
    writeFileSync(join(folder, 'HEAD'), text);
    const result = runShell(`pod-load ${folder}`, runtime);
    t.equal(result.status, 0);
    t.match(result.stderr, /warning: HEAD is missing or damaged/);
    t.same(result.stdout, streamBytes({ seed: 2 }));
  }
  t.equal(store(folder, streamBytes({ seed: 3 })), undefined);
  t.equal(current(folder), 3);
});

t.test("somebody else's files are not touched and not followed", async (t) => {
  const repository = join(lab, 'repository');
  mkdirSync(repository);
  writeFileSync(join(repository, 'HEAD'), 'ref: refs/heads/main\n');
  t.match(store(repository, streamBytes()), { failure: 'drive', message: /not podstream's/ });
  t.equal(readFileSync(join(repository, 'HEAD'), 'utf8'), 'ref: refs/heads/main\n');

  const trap = join(lab, 'trap');
  const victim = join(lab, 'victim');
  writeFileSync(victim, 'precious');
  for (const name of ['HEAD', 'lock', '00000001.000', '00000001.json']) {
    mkdirSync(trap, { recursive: true });
    symlinkSync(victim, join(trap, name));
    const error = store(trap, streamBytes());
    if (error) t.equal(error.failure, 'drive', `${name}: ${error.message}`);
    t.equal(readFileSync(victim, 'utf8'), 'precious');
    runShell(`rm -r ${trap}`, runtime);
  }
});

t.test('what cannot be a drive is named', async (t) => {
  const bytes = streamBytes();
  t.match(store(join(lab, 'no', 'such'), bytes), {
    failure: 'drive',
    message: /there is no folder/,
    hint: /mounted/,
  });
  const file = join(lab, 'file');
  writeFileSync(file, '');
  t.match(store(file, bytes), { failure: 'drive', message: /not a folder/ });
  t.throws(() => storeSink(lab, { keep: 0 }), { failure: 'usage', name: 'PodError' } as never);
  t.throws(() => storeSink(lab, { segmentSize: 1 }), { failure: 'usage', name: 'PodError' } as never);
});

t.test('head -c N in a shell without pipefail', async (t) => {
  const folder = join(lab, 'shell');
  t.equal(runShell(`$MAKE --size 1M --layer encrypt | pod-store ${folder}`, runtime).status, 0);
  for (const bytes of [0, 1, 16, 17, 4096, 1_000_000, 1_049_000]) {
    const result = runShell(
      `$MAKE --size 1M --seed 2 2>/dev/null | head -c ${bytes} | pod-store ${folder}`,
      runtime,
    );
    t.equal(result.status, 5, `${bytes}: ${result.stderr}`);
    t.match(result.stderr, /^pod-store: error: /m);
  }
  t.equal(current(folder), 1);
});
