/**
 * Compressing and encrypting one image against `zstd -1 -T2 | age` on the same bytes, in turn, and back again.
 *
 *     node dist/esm/bench/filters.js [--size 1G] [--runs 3]
 *
 * The image is half text that compresses about 2 to 1, half noise; it lies in a temporary folder, so that both
 * read it from the page cache. A ratio above 1 means that podstream is faster.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { parseBytes } from '../lib/cli/progress.ts';
import { DescriptorSink } from '../lib/stream/descriptor.ts';
import { kinds } from '../lib/stream/kind.ts';
import type { Sink } from '../lib/stream/sink.ts';
import { StreamParser } from '../lib/stream/stream-parser.ts';
import { StreamWriter } from '../lib/stream/stream-writer.ts';
import { packageRoot } from '../native/package-root.ts';
import { makeStream } from '../test/tools/make-stream.ts';

const { values } = parseArgs({
  options: { size: { type: 'string', default: '1G' }, runs: { type: 'string', default: '3' } },
});
const size = parseBytes(values.size)!;
const runs = Number(values.runs);
const folder = mkdtempSync(join(tmpdir(), 'podstream-bench-'));
const at = (name: string): string => join(folder, name);

/** Text pages, every second one replaced by noise. */
function makeMixed(path: string): void {
  const output = new DescriptorSink(openSync(path, 'w'));
  const writer = new StreamWriter(output);
  const noise = new Uint8Array(1 << 20);
  let state = 7;
  for (let i = 0; i < noise.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    noise[i] = state >>> 24;
  }
  let pages = 0;
  const mix: Sink = new StreamParser({
    frame(frame) {
      if (frame.kind === kinds.end) return;
      if (frame.kind === kinds.pages && pages++ % 2 === 1) {
        writer.frame(frame.kind, frame.flags, frame.metaBytes, noise.subarray(0, frame.data.length));
      } else writer.forward(frame);
    },
    end: () => {
      writer.end();
      output.end();
    },
    abort: (cause) => output.abort(cause),
  });
  makeStream(mix, { size, content: 'text' });
}

/** Seconds that a shell line takes with stdin from one file and stdout to another (or to nothing). */
function time(line: string, input: string, output = '/dev/null'): number {
  const [from, to] = [openSync(input, 'r'), openSync(output, 'w')];
  const start = performance.now();
  const { status } = spawnSync('bash', ['-o', 'pipefail', '-c', line], { stdio: [from, to, 2] });
  const seconds = (performance.now() - start) / 1000;
  closeSync(from);
  closeSync(to);
  if (status !== 0) throw new Error(`${line} ended with ${status}`);
  return seconds;
}

const median = (list: number[]): number => list.sort((a, b) => a - b)[list.length >> 1]!;

/** Run both in turn; print the medians and the ratio. */
function compare(what: string, ours: () => number, theirs: () => number): void {
  const pairs = Array.from({ length: runs }, () => [ours(), theirs()] as const);
  const [a, b] = [median(pairs.map(([x]) => x)), median(pairs.map(([, y]) => y))];
  const rate = (seconds: number): string => `${Math.round(size / seconds / 1e6)} MB/s`;
  const ratio = median(pairs.map(([x, y]) => y / x));
  console.log(
    `${what.padEnd(42)} ${rate(a).padStart(10)} ${rate(b).padStart(10)}   ratio ${ratio.toFixed(2)}`,
  );
}

try {
  const filter = join(packageRoot(), 'dist/bin/pod-filter');
  const programs = join(packageRoot(), 'dist/filters/pod-filter-');
  spawnSync('age-keygen', ['-o', at('key')], { stdio: 'ignore' });
  spawnSync('bash', ['-c', `age-keygen -y ${at('key')} > ${at('pub')}`]);
  makeMixed(at('image'));
  console.log(`${statSync(at('image')).size} bytes, ${runs} paired runs`.padEnd(42), '      ours     theirs');
  const image = at('image');
  const stock = `zstd -q -1 -T2 -c | age -R ${at('pub')}`;
  compare(
    'compress encrypt in one process',
    () => time(`${filter} compress encrypt -R ${at('pub')}`, image, at('ours')),
    () => time(stock, image, at('theirs')),
  );
  compare(
    'compress | encrypt, two programs',
    () => time(`${programs}compress | ${programs}encrypt -R ${at('pub')}`, image),
    () => time(stock, image),
  );
  compare(
    'compress alone, against zstd -1 -T2',
    () => time(`${filter} compress`, image),
    () => time('zstd -q -1 -T2 -c', image),
  );
  compare(
    'encrypt alone, against age',
    () => time(`${filter} encrypt -R ${at('pub')}`, image),
    () => time(`age -R ${at('pub')}`, image),
  );
  compare(
    'both undone, against age -d | zstd -d',
    () => time(`${filter} --undo -i ${at('key')}`, at('ours')),
    () => time(`age -d -i ${at('key')} | zstd -q -d -c`, at('theirs')),
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}
