import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { filter } from '../../filters/compress.ts';
import { readStream } from '../../lib/filter/check/sample.ts';
import { parseOptions } from '../../lib/filter/options.ts';
import { undoStage } from '../../lib/filter/undo.ts';
import { kinds } from '../../lib/stream/kind.ts';
import type { Sink } from '../../lib/stream/sink.ts';
import { StreamWriter } from '../../lib/stream/stream-writer.ts';
import { streamBytes } from '../tools/make-stream.ts';
import { bytewise, type Cut, feed, randomCut, run, scratchFolder, whole } from './feed.ts';

const options = (...tokens: string[]) => parseOptions('compress', filter.options, 'forward', tokens).values;
const forward =
  (...tokens: string[]) =>
  (output: Sink) =>
    filter.forward(options(...tokens), output);
const raw = (output: Sink) => filter.forward(options(), output, { raw: true });
const undo = (output: Sink) => undoStage(filter, {}, output);

const small = streamBytes({ size: 40_000, content: 'text' });
const large = streamBytes({ size: 6 << 20, content: 'text', seed: 3 });
const noise = streamBytes({ size: 5 << 20, seed: 4 });

/** A compress layer around any payload. */
function layer(payload: Uint8Array, params: object = { algorithm: 'zstd' }): Buffer {
  return feed((output) => {
    const writer = new StreamWriter(output);
    writer.record(kinds.layer, { filter: 'compress', version: '1', params, imageId: '0'.repeat(32) });
    return {
      write: (chunk) => writer.record(kinds.data, {}, chunk),
      end: () => writer.end(),
      abort: () => undefined,
    };
  }, payload).output;
}

t.test('the same bytes come back, however both ways are cut', async (t) => {
  const cuts: [string, Cut][] = [
    ['whole', whole],
    ['bytewise', bytewise],
    ['random', randomCut(5)],
  ];
  for (const [name, cut] of cuts) {
    const there = feed(forward(), small, cut);
    t.equal(there.failure, undefined);
    t.ok(there.ended);
    t.ok(there.output.equals(feed(forward(), small).output), `${name}: the same layer`);
    const back = feed(undo, there.output, cut);
    t.ok(back.output.equals(small) && back.ended, `${name}: the same image`);
  }
  for (const image of [large, noise]) {
    for (const tokens of [[], ['--fast', '5'], ['-l', '9']]) {
      const there = feed(forward(...tokens), image, randomCut(6));
      const back = feed(undo, there.output, randomCut(7));
      t.ok(back.output.equals(image), `${tokens.join(' ') || 'level 1'}: the same image`);
      if (image === noise) t.ok(there.output.length < noise.length * 1.001, 'noise does not grow');
      else if (tokens[0] !== '--fast') t.ok(there.output.length < large.length * 0.6, 'text shrinks');
    }
  }
});

t.test('stock zstd opens ours, and we open its files', async (t) => {
  for (const image of [small, large, noise]) {
    const bare = feed(raw, image);
    t.ok(run('zstd', ['-d', '-c'], bare.output).output.equals(image), 'zstd -d of --raw');
    const { frames } = readStream(feed(forward(), image).output);
    const joined = Buffer.concat(frames.filter(({ kind }) => kind === kinds.data).map(({ data }) => data));
    t.ok(joined.equals(bare.output), 'the payload of the layer is that file');
    t.ok(feed(undo, bare.output, randomCut(1)).output.equals(image), '--undo of --raw');
    for (const flags of [['-1'], ['-9', '--long=24'], ['--fast=3', '--no-check']]) {
      const file = run('zstd', ['-c', ...flags], image).output;
      for (const cut of [whole, randomCut(2)]) {
        t.ok(feed(undo, file, cut).output.equals(image), `zstd ${flags.join(' ')}`);
      }
    }
  }
  const pieces = [small.subarray(0, 999), small.subarray(999)].map(
    (part) => run('zstd', ['-c'], part).output,
  );
  t.ok(feed(undo, Buffer.concat(pieces), bytewise).output.equals(small), 'several frames, byte by byte');
});

t.test('a cut layer is never whole', async (t) => {
  const { output } = feed(forward(), small);
  for (let at = 0; at < output.length; at += at < 400 ? 1 : 97) {
    const { failure, output: inner, ended } = feed(undo, output.subarray(0, at));
    t.equal(failure, 'truncated', `cut at ${at}`);
    t.notOk(ended || readStream(inner).whole, `cut at ${at}: nothing whole came out`);
  }
});

t.test('a cut zstd file is never whole', async (t) => {
  const bare = feed(raw, small).output;
  for (let at = 1; at < bare.length; at += at < 60 ? 1 : 97) {
    const { failure, output: inner } = feed(undo, bare.subarray(0, at));
    t.match(failure, at < 4 ? /foreign|truncated/ : /truncated/, `cut at ${at}`);
    t.notOk(readStream(inner).whole);
  }
});

t.test('flipped bits are seen', async (t) => {
  const layered = feed(forward(), small).output;
  const bare = feed(raw, small).output;
  for (const [name, bytes] of [
    ['layer', layered],
    ['file', bare],
  ] as const) {
    for (let at = 0; at < bytes.length; at += 211) {
      if (name === 'layer' && (at === 10 || at === 11)) continue;
      const changed = Buffer.from(bytes);
      changed[at]! ^= 1 << (at % 8);
      const { failure, output: inner } = feed(undo, changed);
      t.match(failure, /damaged|truncated|limit|foreign/, `${name}: byte ${at}`);
      t.notOk(readStream(inner).whole, `${name}: byte ${at}: nothing whole came out`);
    }
  }
});

t.test('bombs are refused by what they claim', async (t) => {
  // Single segment, 8-byte content size: a frame of 2^60 bytes; then one run-length block.
  const petabytes = Buffer.from('28b52ffde000000000000000101b000041', 'hex');
  t.equal(feed(undo, layer(petabytes)).failure, 'limit', 'a layer that claims an exbibyte');
  t.match(feed(undo, petabytes).failure, /limit|damaged/, 'a file that claims an exbibyte');
  const overOne = Buffer.from('28b52ffda0010010000300004100', 'hex');
  t.equal(feed(undo, layer(overOne)).failure, 'limit', 'one byte over 1 MiB');
  t.equal(feed(undo, layer(Buffer.from('28b52ffd00580100', 'hex'))).failure, 'damaged', 'no content size');
  t.equal(feed(undo, layer(Buffer.from('garbage'))).failure, 'damaged', 'no zstd at all');
  t.equal(feed(undo, layer(run('zstd', ['-c'], small).output, { algorithm: 'lz5' })).failure, 'version');
  // Well-formed frames of zeros: decoded piece by piece, and refused at the first one, which is no stream.
  const zeros = run('bash', ['-c', 'head -c 1G /dev/zero | zstd -c']).output;
  t.ok(zeros.length < 1 << 20);
  const before = process.memoryUsage().rss;
  t.equal(feed(undo, zeros).failure, 'foreign', '1 GiB of zeros');
  t.ok(process.memoryUsage().rss - before < 100 << 20, 'in flat memory');
});

t.test('a window that is too large is refused', async (t) => {
  const folder = scratchFolder(t);
  writeFileSync(join(folder, 'noise'), noise);
  const file = run('bash', [
    '-c',
    `cat ${folder}/noise | zstd -c --ultra --long=30 --stream-size=4000000000`,
  ]);
  t.equal(
    feed(undo, file.output.length > 0 ? file.output : run('zstd', ['-c', '--long=30'], noise).output).failure,
    'limit',
  );
});

t.test('wrong options', async (t) => {
  t.throws(() => options('--level', '20'), /not a number from 1 to 19/);
  t.throws(() => options('-x'), /compress has no option -x/);
  t.equal(feed(forward('-l', '3', '--fast', '2'), small).failure, 'usage');
});
