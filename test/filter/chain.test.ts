import { spawn } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { builtIn } from '../../filters/built-in/index.ts';
import { failedSample, readStream, sample } from '../../lib/filter/check/sample.ts';
import { openLayers } from '../../lib/filter/open-layers.ts';
import { kinds } from '../../lib/stream/kind.ts';
import { StreamWriter } from '../../lib/stream/stream-writer.ts';
import { packageRoot } from '../../native/package-root.ts';
import { streamBytes } from '../tools/make-stream.ts';
import { bin, bytewise, feed, filterProgram, randomCut, run, scratchFolder, shell } from './feed.ts';

const folder = scratchFolder(t);
const at = (name: string): string => join(folder, name);
const examples = join(packageRoot(), 'examples/filters');
run('age-keygen', ['-o', at('key')]);
writeFileSync(at('pub'), run('age-keygen', ['-y', at('key')]).output);
const image = streamBytes({ size: 6 << 20, content: 'text' });
writeFileSync(at('image'), image);
const podFilter = bin('pod-filter');
const secrets = { identity: [at('key')] };

function program(name: string, body: string, description?: object): void {
  mkdirSync(at('ext'), { recursive: true });
  const json = JSON.stringify(description ?? { 'pod-filter': 1, name, version: '1', class: 'map' });
  const file = at(`ext/pod-filter-${name}`);
  writeFileSync(file, `#!/bin/sh\n[ "$1" = --describe ] && { echo '${json}'; exit 0; }\n${body}\n`);
  chmodSync(file, 0o755);
}
program('pass', 'exec cat');
program('dies', 'head -c 100000; exit 33');
program('deaf', 'exec 0<&-; sleep 0.2; exit 0');
program('loud', 'head -c 5000 /dev/urandom; cat > /dev/null');
program('wrong', 'exec cat', { 'pod-filter': 1, name: 'other', version: '1', class: 'map' });
program('odd', 'exec cat', { hello: 1 });
const env = { POD_FILTER_PATH: at('ext') };

t.test('several filters in one process, and the layers off again', async (t) => {
  const out = run(podFilter, ['compress', '-l', '3', 'encrypt', '-R', at('pub')], image);
  t.equal(out.status, 0);
  for (const args of [
    ['--undo', 'encrypt', '-i', at('key'), 'compress'],
    ['--undo', '-i', at('key')],
  ]) {
    const back = run(podFilter, args, out.output);
    t.equal(back.status, 0, back.stderr);
    t.ok(back.output.equals(image));
  }
  const apart = shell(
    `${filterProgram('encrypt')} --undo -i ${at('key')} | ${filterProgram('compress')} --undo | cmp - ${at('image')}`.replace(
      /^/,
      `${filterProgram('compress')} -l 3 < ${at('image')} | ${filterProgram('encrypt')} -R ${at('pub')} | `,
    ),
  );
  t.equal(apart.status, 0, 'as separate programs');
  const one = run(podFilter, ['compress', '-l', '3'], image).output;
  t.ok(
    one.equals(run(filterProgram('compress'), ['-l', '3'], image).output),
    'the same bytes as separate programs',
  );
  t.equal(run(podFilter, ['--undo', 'compress'], out.output).status, 2, 'not the outermost');
});

t.test('openLayers gives the image on, cut in any way', async (t) => {
  const small = streamBytes({ size: 10_000 });
  const layered = run(podFilter, ['compress', 'encrypt', '-R', at('pub')], small).output;
  const open = (options: object) => (output: Parameters<typeof openLayers>[0]) =>
    openLayers(output, { builtIn, secrets, ...options });
  for (const cut of [[Number.POSITIVE_INFINITY], bytewise, randomCut(2)]) {
    t.ok(feed(open({}), layered, cut).output.equals(small));
    t.ok(feed(open({}), small, cut).output.equals(small), 'a plain image');
    const stock = run('bash', ['-c', `age -R ${at('pub')}`], small).output;
    t.ok(feed(open({}), stock, cut).output.equals(small), 'a file of stock age');
  }
  t.equal(feed(open({ secrets: {} }), layered).failure, 'wrong-key');
  t.equal(feed(open({}), Buffer.alloc(0)).failure, 'truncated');
  t.equal(feed(open({}), Buffer.from('short')).failure, 'foreign');
  t.equal(feed(open({}), Buffer.alloc(5000, 7)).failure, 'foreign');
  for (let end = 0; end < layered.length; end += 131) {
    const { failure, ended, output } = feed(open({}), layered.subarray(0, end));
    t.equal(failure, 'truncated');
    t.notOk(ended || readStream(output).whole);
  }
});

t.test('an image never chooses what runs', async (t) => {
  const foreign = feed((output) => {
    const writer = new StreamWriter(output);
    writer.record(kinds.layer, { filter: 'evil', version: '1', params: {}, imageId: '0'.repeat(32) });
    return {
      write: (chunk) => writer.record(kinds.data, {}, chunk),
      end: () => writer.end(),
      abort: () => undefined,
    };
  }, sample()).output;
  program('evil', `touch ${at('ran')}; exec cat`, {
    'pod-filter': 1,
    name: 'evil',
    version: '1',
    class: 'wrap',
  });
  const refused = run(podFilter, ['--undo'], foreign, env);
  t.equal(refused.status, 12);
  t.match(refused.stderr, /inside the layer evil.*\n.*--allow evil/);
  t.throws(() => readFileSync(at('ran')), 'it did not run');
  t.not(run(podFilter, ['--undo', '--allow', 'evil'], foreign, env).status, 12);
  t.doesNotThrow(() => readFileSync(at('ran')), 'allowed, it ran');
  let nested = sample();
  for (let depth = 0; depth < 17; depth++)
    nested = Buffer.from(run(filterProgram('compress'), [], nested).output);
  t.equal(feed((output) => openLayers(output, { builtIn }), nested).failure, 'limit', '17 layers');
});

t.test('programs in the middle', async (t) => {
  const through = run(podFilter, ['compress', 'pass', 'encrypt', '-R', at('pub')], image, env);
  t.equal(through.status, 0, through.stderr);
  t.ok(run(podFilter, ['--undo', '-i', at('key')], through.output).output.equals(image));
  const dies = run(podFilter, ['compress', 'dies', 'encrypt', '-R', at('pub')], image, env);
  t.equal(dies.status, 33, "the first cause's own exit status");
  t.match(dies.stderr, /filter dies failed with exit status 33/);
  t.equal(readStream(dies.output).frames.at(-1)?.kind, kinds.error, 'the output says ERROR');
  const deaf = run(podFilter, ['compress', 'deaf', 'compress'], image, env);
  t.not(deaf.status, 0);
  t.notOk(readStream(deaf.output).whole);
  t.equal(run(podFilter, ['loud', 'compress'], sample(), env).status, 4, 'a filter that writes rubbish');
});

t.test('examples in Python and shell take part', async (t) => {
  const both = {
    POD_FILTER_PATH: examples,
    PATH: `${join(packageRoot(), 'dist/bin')}:${process.env['PATH']}`,
  };
  const secret = image.subarray(image.length - 3000, image.length - 2960).toString('latin1');
  const out = run(podFilter, ['redact', '--text', secret, 'xz', 'encrypt', '-R', at('pub')], image, both);
  t.equal(out.status, 0, out.stderr);
  const back = run(podFilter, ['--undo', '-i', at('key'), '--allow', 'xz'], out.output, both);
  t.equal(back.status, 0, back.stderr);
  t.ok(image.includes(secret, 0, 'latin1') && !back.output.includes(secret, 0, 'latin1'), 'redacted');
  const { frames, whole } = readStream(back.output);
  t.ok(whole);
  t.match(frames[0]!.meta['history'], [{ filter: 'redact' }]);
});

t.test('what is found, and what is wrong with it', async (t) => {
  program('compress', 'exec cat', { 'pod-filter': 1, name: 'compress', version: '9', class: 'wrap' });
  writeFileSync(at('ext/pod-filter-plain'), 'not executable');
  const { output } = run(podFilter, ['--list', '--json'], undefined, {
    POD_FILTER_PATH: `${at('ext')}:.::relative`,
  });
  const rows = JSON.parse(output.toString()) as {
    name: string;
    path: string;
    state: string;
    reason?: string;
  }[];
  const find = (name: string, path = '') =>
    rows.find((row) => row.name === name && row.path.startsWith(path));
  t.match(find('pass'), { state: 'ok' });
  t.match(find('wrong'), { state: 'broken', reason: /describes itself as other/ });
  t.match(find('odd'), { state: 'broken', reason: /description is wrong/ });
  t.match(find('plain'), { state: 'broken', reason: /not executable/ });
  t.match(
    rows.find((row) => row.name === 'compress' && row.path === ''),
    { state: 'shadowed' },
  );
  t.match(find('compress', folder), { state: 'ok' });
  const local = run('bash', ['-c', `cd ${at('ext')} && PATH=.::$PATH ${podFilter} pass`], sample(), {
    POD_FILTER_PATH: '',
  });
  t.equal(local.status, 2, 'never from the current directory');
});

t.test('bad input, by exit status', async (t) => {
  for (const args of [['compress'], ['encrypt', '-R', at('pub')], ['compress', 'encrypt', '-R', at('pub')]]) {
    t.equal(run(podFilter, args).status, 5, 'empty');
    t.equal(run(podFilter, args, Buffer.alloc(9999, 'x')).status, 4, 'foreign');
    const failed = run(podFilter, args, failedSample());
    t.equal(failed.status, 10, 'ERROR of an earlier stage');
    t.match(readStream(failed.output).frames.at(-1), {
      kind: kinds.error,
      meta: { stage: 'pod-check', code: 11 },
    });
    t.match(failed.stderr, /upstream failed: pod-check: made to fail/);
  }
  const lines = shell(
    `set +o pipefail; head -c 1000000 ${at('image')} | ${podFilter} compress | ${podFilter} encrypt -R ${at('pub')} > ${at('part')}; echo $?`,
  );
  t.equal(lines.output.toString().trim(), '10', 'a dead stage is seen at the far end, without pipefail');
  t.notOk(readStream(readFileSync(at('part'))).whole);
});

t.test('a reader that leaves early', async (t) => {
  for (const args of [['compress'], ['compress', 'encrypt', '-R', at('pub')]]) {
    const ran = shell(
      `set -o pipefail; ${podFilter} ${args.join(' ')} < ${at('image')} | head -c 100 > /dev/null`,
    );
    t.equal(ran.status, 1, ran.stderr);
    t.match(ran.stderr, /reader of the output went away/);
  }
});

t.test('memory stays flat', { timeout: 120_000 }, async (t) => {
  const maker = join(packageRoot(), 'dist/esm/test/tools/make-stream.js');
  const child = spawn(
    'bash',
    [
      '-c',
      `unset NODE_OPTIONS; set -o pipefail; node ${maker} --size 600M --content text | ${podFilter} compress encrypt -R ${at('pub')} > /dev/null & wait $!`,
    ],
    { stdio: 'ignore' },
  );
  let peak = 0;
  const watch = setInterval(() => {
    const found = shell(
      `for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q "pod-filter compress encrypt -R ${at('pub')} *$" && grep VmHWM $p/status; done`,
    );
    for (const match of found.output.toString().matchAll(/VmHWM:\s+(\d+) kB/g))
      peak = Math.max(peak, Number(match[1]));
  }, 300);
  const status = await new Promise((resolve) => child.on('close', resolve));
  clearInterval(watch);
  t.equal(status, 0);
  t.ok(peak > 20_000, `the filter was seen (${peak} kB)`);
  t.ok(peak < 150 * 1024, `${peak} kB at most`);
});
