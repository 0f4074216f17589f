import { mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { loadInto, storeSink } from '../../lib/drive/index.ts';
import { formatManifest, type Manifest } from '../../lib/drive/manifest.ts';
import { makeFolder, runShell } from '../tools/commands.ts';
import { makeStream, streamBytes } from '../tools/make-stream.ts';

const lab = makeFolder(t);
const runtime = join(lab, 'run');
mkdirSync(runtime, { mode: 0o700 });
process.env.POD_RUNTIME_DIR = runtime;

let count = 0;
/** A folder with generations of seeds 1 and 2, in segments of 16 KiB. */
function makePod(): string {
  const folder = join(lab, `pod-${++count}`);
  for (const seed of [1, 2]) makeStream(storeSink(folder, { segmentSize: 16_384 }), { seed });
  return folder;
}

function flip(file: string, at: number): void {
  const bytes = readFileSync(file);
  bytes[at]! ^= 1;
  writeFileSync(file, bytes);
}

t.test('list and verify', async (t) => {
  const folder = makePod();
  const list = runShell(`pod-load --list ${folder}`, runtime);
  t.equal(list.status, 0);
  t.match(list.stdout.toString(), /^\* {2}2 .*KiB {2}none +synthetic +complete/m);
  const json = JSON.parse(runShell(`pod-load --list --json ${folder}`, runtime).stdout.toString());
  t.match(json, [
    { generation: 2, current: true, state: 'complete', pod: 'synthetic', layers: [], segments: 5 },
    { generation: 1, current: false, state: 'complete' },
  ]);
  const verify = runShell(`pod-load --verify ${folder}`, runtime);
  t.equal(verify.status, 0, verify.stderr);
  t.equal(runShell(`pod-load -g 1 ${folder}`, runtime).stdout.equals(streamBytes({ seed: 1 })), true);
});

t.test(
  'a flipped bit in any segment: exit 6, never a complete stream, and the older generation is named',
  async (t) => {
    const folder = makePod();
    const whole = streamBytes({ seed: 2 });
    for (const index of [0, 2, 4]) {
      const file = join(folder, `00000002.00${index}`);
      flip(file, 100);
      const result = runShell(`pod-load ${folder}`, runtime);
      t.equal(result.status, 6);
      t.match(result.stderr, /generation 2 cannot be loaded: 00000002.00\d is damaged/);
      t.match(result.stderr, /hint: generation 1, stored .* is complete: pod-load --generation 1/);
      t.ok(result.stdout.length < whole.length);
      t.equal(result.stdout.equals(whole.subarray(0, result.stdout.length)), true, 'no damaged byte left');
      const verify = runShell(`pod-load --verify --json ${folder}`, runtime);
      t.equal(verify.status, 6);
      t.match(JSON.parse(verify.stdout.toString()), [
        { generation: 2, state: 'damaged', problem: /checksum/ },
        { generation: 1, state: 'complete' },
      ]);
      flip(file, 100);
    }
    t.equal(runShell(`pod-load --verify ${folder}`, runtime).status, 0);
  },
);

t.test('missing, short and long segments are seen before the first byte', async (t) => {
  const folder = makePod();
  const last = join(folder, '00000002.004');
  const bytes = readFileSync(last);
  const seen = () => {
    const result = runShell(`pod-load ${folder}`, runtime);
    t.equal(result.status, 6);
    t.equal(result.stdout.length, 0);
    return result.stderr;
  };
  truncateSync(last, 10);
  t.match(seen(), /00000002.004 has 10 bytes, not/);
  writeFileSync(last, Buffer.concat([bytes, Buffer.from('x')]));
  t.match(seen(), /00000002.004 has/);
  rmSync(last);
  t.match(seen(), /00000002.004 is missing/);
});

t.test('a manifest that lies is damaged, whatever it claims', async (t) => {
  const folder = makePod();
  const file = join(folder, '00000002.json');
  const good = JSON.parse(readFileSync(file, 'utf8')).manifest as Manifest;
  const lies: [object, number][] = [
    [{ ...good, generation: 1 }, 6],
    [{ ...good, bytes: good.bytes + 1 }, 6],
    [{ ...good, segments: good.segments.slice(1), bytes: good.bytes - 16_384 }, 6],
    [{ ...good, imageId: '../../etc/passwd' }, 6],
    [{ ...good, segments: [{ bytes: 2 ** 53, crc32: 0 }] }, 6],
    [{ ...good, segments: [{ bytes: 2 ** 50, crc32: 0 }], bytes: 2 ** 50 }, 6],
    [{ ...good, format: 2 }, 3],
  ];
  for (const [lie, status] of lies) {
    writeFileSync(file, formatManifest(lie as Manifest));
    const result = runShell(`pod-load ${folder}`, runtime);
    t.equal(result.status, status, `${JSON.stringify(lie).slice(0, 100)}: ${result.stderr}`);
  }
  writeFileSync(file, 'null');
  t.equal(runShell(`pod-load ${folder}`, runtime).status, 6);
  // An image id that is not the stream's own needs the stream to be seen.
  writeFileSync(file, formatManifest({ ...good, imageId: '0'.repeat(32) }));
  t.equal(runShell(`pod-load --verify ${folder}`, runtime).status, 6);
});

t.test('nothing there', async (t) => {
  const empty = join(lab, 'empty');
  mkdirSync(empty);
  for (const folder of [empty, join(lab, 'missing')]) {
    const result = runShell(`pod-load ${folder}`, runtime);
    t.equal(result.status, 13);
    t.match(result.stderr, /^pod-load: error: there is no .*\npod-load: hint: /);
  }
  t.equal(runShell(`pod-load -g 7 ${makePod()}`, runtime).status, 6);
  t.equal(runShell('pod-load', runtime).status, 2);
});

t.test('a terminal gets no stream', async (t) => {
  const folder = makePod();
  const result = runShell(`script -qec 'pod-load ${folder}' /dev/null`, runtime);
  t.equal(result.status, 2, result.stdout.toString());
  t.match(result.stdout.toString(), /refusing to write/);
});

t.test("the sink's failure is the sink's, not the drive's", async (t) => {
  const folder = makePod();
  const failing = {
    write: () => {
      throw Object.assign(new Error('my own'), { code: 'ENOSPC' });
    },
    end: () => undefined,
    abort: () => undefined,
  };
  t.throws(() => loadInto(folder, {}, failing), { message: 'my own' });
});

t.test('a generation that is being read is not removed under the reader', async (t) => {
  const folder = makePod();
  let replaced = false;
  const chunks: Buffer[] = [];
  loadInto(
    folder,
    { generation: 1 },
    {
      write: (chunk) => {
        chunks.push(Buffer.from(chunk));
        if (replaced) return;
        replaced = true;
        const result = runShell(`$MAKE --seed 3 | pod-store --keep 1 ${folder}`, runtime);
        t.equal(result.status, 0, result.stderr);
      },
      end: () => undefined,
      abort: () => undefined,
    },
  );
  t.same(Buffer.concat(chunks), streamBytes({ seed: 1 }));
  t.equal(runShell(`$MAKE --seed 4 | pod-store --keep 1 ${folder}`, runtime).status, 0);
  t.match(JSON.parse(runShell(`pod-load --list --json ${folder}`, runtime).stdout.toString()), [
    { generation: 4 },
  ]);
});

t.test('from one folder into the same folder', async (t) => {
  const folder = makePod();
  t.equal(runShell(`pod-load ${folder} | pod-store --keep 1 ${folder}`, runtime).status, 0);
  t.same(runShell(`pod-load ${folder}`, runtime).stdout, streamBytes({ seed: 2 }));
});
