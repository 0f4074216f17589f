import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { builtIn } from '../../filters/built-in/index.ts';
import { inspectStream } from '../../lib/filter/inspect-stream.ts';
import { formatInspection, plainInspection } from '../../lib/image/format-inspection.ts';
import { kinds } from '../../lib/stream/kind.ts';
import { packageRoot } from '../../native/package-root.ts';
import { forge } from '../tools/forge.ts';
import { streamBytes } from '../tools/make-stream.ts';

const scratch = mkdtempSync(join(tmpdir(), 'pod-inspect-'));
t.teardown(() => rmSync(scratch, { recursive: true }));
const key = join(scratch, 'passphrase');
writeFileSync(key, 'a passphrase that is long enough\n');
const command = (name: string, args: string[], input: Uint8Array) =>
  spawnSync(process.execPath, [join(packageRoot(), 'dist/bin', name), ...args], {
    input,
    maxBuffer: 1 << 26,
  });

const look = (bytes: Uint8Array, options: Partial<Parameters<typeof inspectStream>[1]> = {}) =>
  inspectStream(
    (sink) => {
      for (let at = 0; at < bytes.length; at += 777) sink.write(bytes.subarray(at, at + 777));
      sink.end();
    },
    { builtIn, ...options },
  );

t.test('a plain image', async (t) => {
  const bytes = streamBytes({ size: 300_000 });
  const found = look(bytes, { verify: true });
  t.equal(found.outer.bytes, bytes.length);
  t.equal(found.verified, true);
  const { image } = found;
  t.equal(image?.processes.length, 1);
  t.equal(image!.processes[0]!.threads, 1);
  const saved = image!.addressSpaces[0]!.areas.reduce((sum, area) => sum + area.saved, 0);
  t.equal(saved, Math.ceil(300_000 / 4096) * 4096);
  t.equal(image!.addressSpaces[0]!.saved, saved);
  t.match(
    image!.kinds.find(({ kind }) => kind === 'pages'),
    { frames: 2 },
  );
  const text = formatInspection(found);
  t.match(text, /of pod synthetic\n/);
  t.match(text, /→ 1 +device \/dev\/null/);
  t.match(text, /\[heap\]/);
  const plain = plainInspection(found) as { image: { addressSpaces: { areas: { start: string }[] }[] } };
  t.match(plain.image.addressSpaces[0]!.areas[0]!.start, /^0x[0-9a-f]+$/);
});

t.test('layers: closed without a key, open with it, an error with a wrong one', async (t) => {
  const bytes = streamBytes({ size: 100_000 });
  const sealed = command('pod-filter', ['compress', 'encrypt', '-p', key], bytes);
  t.equal(sealed.status, 0, sealed.stderr.toString());
  const closed = look(sealed.stdout);
  t.equal(closed.image, undefined);
  t.match(closed.closed, /passphrase/);
  t.equal(closed.outer.layer?.filter, 'encrypt');
  t.match(formatInspection(closed), /closed: /);
  const open = look(sealed.stdout, { secrets: { passphrase: key }, verify: true });
  t.strictSame(open.opened, ['encrypt', 'compress']);
  t.equal(open.image?.processes.length, 1);
  t.equal(open.closed, undefined);
  // Verifying what cannot be seen is a failure, not a success.
  t.throws(() => look(sealed.stdout, { verify: true }), { failure: 'wrong-key' } as unknown as Error);
  const other = join(scratch, 'other');
  writeFileSync(other, 'some other passphrase, long enough\n');
  t.throws(() => look(sealed.stdout, { secrets: { passphrase: other } }), /wrong/);
  // A stream that ends early is truncated, closed or not.
  t.throws(() => look(sealed.stdout.subarray(0, -1)), /ends after/);
});

t.test('text of the image commands no terminal', async (t) => {
  const nasty = 'a\u001b]0;owned\u0007\nb\u202e';
  const hello = {
    producer: nasty,
    engine: 'user',
    kernel: nasty,
    semantics: '2.6',
    arch: 'x',
    pageSize: 4096,
    cpuFeatures: [],
    clocks: { realtimeNs: 2n ** 64n - 1n, monotonicNs: 0n, boottimeNs: 0n },
    pod: nasty,
    imageId: '0'.repeat(32),
    requires: [nasty],
    history: [{ filter: nasty, version: nasty }],
    losses: [nasty],
  };
  const entry = { ppid: 0, pgid: 1, sid: 1, state: 'alive', comm: 'x\u001b[2Jy' };
  const bytes = forge({
    frames: [
      { kind: kinds.hello, meta: hello },
      // A tree whose processes are each other's parents: shown, and the walk ends.
      {
        kind: kinds.tree,
        meta: {
          processes: [
            { ...entry, pid: 1 },
            { ...entry, pid: 5, ppid: 6 },
            { ...entry, pid: 6, ppid: 5 },
          ],
        },
      },
      { kind: kinds.regular, meta: { id: 1, path: `/${nasty}`, flags: 0, position: 0n } },
      {
        kind: kinds['fd-table'],
        meta: {
          id: 1,
          entries: [
            { fd: 0, file: 1 },
            { fd: 1, file: 99 },
          ],
        },
      },
    ],
  });
  const text = formatInspection(look(bytes));
  t.notMatch(text, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
  t.match(text, /99 +missing/);
  t.throws(() => look(bytes, { verify: true }), /./);
});

t.test('the command: file, folder of a drive, exit codes', async (t) => {
  const bytes = streamBytes({ size: 50_000 });
  const file = join(scratch, 'image');
  writeFileSync(file, bytes);
  const folder = join(scratch, 'drive');
  t.equal(command('pod-store', [folder], bytes).status, 0);
  for (const from of [file, folder]) {
    const shown = command('pod-inspect', ['--verify', from], Buffer.alloc(0));
    t.equal(shown.status, 0, shown.stderr.toString());
    t.match(shown.stdout.toString(), /verified: whole/);
  }
  const json = command('pod-inspect', ['--json'], bytes);
  t.equal(JSON.parse(json.stdout.toString()).image.hello.pod, 'synthetic');
  t.equal(command('pod-inspect', [join(scratch, 'nothing')], Buffer.alloc(0)).status, 2);
  t.equal(command('pod-inspect', [], Buffer.alloc(0)).status, 5);
  t.equal(command('pod-inspect', [], Buffer.from('hello')).status, 4);
  const changed = Buffer.from(bytes);
  changed[changed.length >> 1]! ^= 1;
  t.equal(command('pod-inspect', [], changed).status, 6);
});
