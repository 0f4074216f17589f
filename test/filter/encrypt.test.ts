import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { filter } from '../../filters/encrypt.ts';
import { readStream } from '../../lib/filter/check/sample.ts';
import { parseOptions } from '../../lib/filter/options.ts';
import { undoStage } from '../../lib/filter/undo.ts';
import { kinds } from '../../lib/stream/kind.ts';
import type { Sink } from '../../lib/stream/sink.ts';
import { streamBytes } from '../tools/make-stream.ts';
import { bytewise, feed, filterProgram, randomCut, run, scratchFolder, whole } from './feed.ts';

const folder = scratchFolder(t);
const at = (name: string): string => join(folder, name);
const parse = (direction: 'forward' | 'undo', tokens: string[]) =>
  parseOptions('encrypt', filter.options, direction, tokens).values;
const forward =
  (...tokens: string[]) =>
  (output: Sink) =>
    filter.forward(parse('forward', tokens), output);
const raw =
  (...tokens: string[]) =>
  (output: Sink) =>
    filter.forward(parse('forward', tokens), output, { raw: true });
const undo =
  (...tokens: string[]) =>
  (output: Sink) =>
    undoStage(filter, parse('undo', tokens), output);

for (const name of ['a', 'b', 'c']) {
  run('age-keygen', ['-o', at(`${name}.key`)]);
  writeFileSync(at(`${name}.pub`), run('age-keygen', ['-y', at(`${name}.key`)]).output);
}
const pub = (name: string): string => readFileSync(at(`${name}.pub`), 'utf8').trim();
const passphrase = 'correct horse battery staple';
writeFileSync(at('pass'), `${passphrase}\n`);
writeFileSync(at('other-pass'), 'another sentence of some length\n');
writeFileSync(at('keyfile'), randomBytes(64));

const small = streamBytes({ size: 200_000, content: 'text' });
const large = streamBytes({ size: 9 << 20, seed: 3 });

t.test('the same bytes come back, however both ways are cut', async (t) => {
  for (const image of [small, large]) {
    for (const cut of image === small ? [whole, bytewise, randomCut(3)] : [whole, randomCut(4)]) {
      const there = feed(forward('-R', at('a.pub'), '-r', pub('b')), image, cut);
      t.equal(there.failure, undefined);
      t.notOk(there.output.includes(image.subarray(5000, 5064)), 'nothing in the clear');
      for (const key of ['a', 'b']) {
        const back = feed(undo('-i', at(`${key}.key`)), there.output, cut);
        t.ok(back.output.equals(image) && back.ended, `key ${key}`);
      }
    }
  }
});

t.test('payload lengths around a chunk', async (t) => {
  // The inner stream's own length decides where the last chunk ends; all lengths modulo a chunk are tried at its border.
  for (const size of [0, 4096, 61440, 65536, 983040]) {
    const image = streamBytes({ size, frameSize: 4096 });
    const there = feed(raw('-R', at('a.pub')), image);
    t.ok(run('age', ['-d', '-i', at('a.key')], there.output).output.equals(image), `${size}: age -d`);
    t.ok(feed(undo('-i', at('a.key')), there.output, randomCut(size + 1)).output.equals(image));
  }
});

t.test('stock age opens ours, and we open its files', async (t) => {
  for (const image of [small, large]) {
    const bare = feed(raw('-R', at('a.pub'), '-R', at('b.pub')), image);
    for (const key of ['a', 'b']) {
      t.ok(run('age', ['-d', '-i', at(`${key}.key`)], bare.output).output.equals(image), `age -d -i ${key}`);
    }
    t.equal(run('age', ['-d', '-i', at('c.key')], bare.output).status, 1, 'age refuses another key');
    const { frames } = readStream(feed(forward('-R', at('a.pub')), image).output);
    const joined = Buffer.concat(frames.filter(({ kind }) => kind === kinds.data).map(({ data }) => data));
    t.ok(run('age', ['-d', '-i', at('a.key')], joined).output.equals(image), 'the payload is an age file');
    const theirs = run('age', ['-R', at('c.pub'), '-r', pub('b')], image).output;
    for (const cut of [whole, randomCut(9)]) {
      t.ok(feed(undo('-i', at('b.key')), theirs, cut).output.equals(image), 'age -R');
    }
  }
  t.ok(
    feed(undo('-i', at('a.key')), run('age', ['-r', pub('a')], small).output, bytewise).output.equals(small),
  );
});

// age asks for a passphrase on a terminal only.
const withTerminal = `
import os, pty, sys, select
command, phrase = sys.argv[2:], sys.argv[1].encode() + b"\\n"
pid, fd = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
seen, asked = b"", 0
while True:
    try:
        part = os.read(fd, 4096)
    except OSError:
        break
    if not part:
        break
    seen += part
    if seen.lower().count(b"passphrase") > asked:
        asked = seen.lower().count(b"passphrase")
        os.write(fd, phrase)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
`;

t.test('passphrases, both ways with stock age', async (t) => {
  const age = (phrase: string, ...args: string[]) =>
    run('python3', ['-c', withTerminal, phrase, 'age', ...args]);
  writeFileSync(at('image'), small);
  writeFileSync(at('ours.age'), feed(raw('-p', at('pass')), small).output);
  t.equal(age(passphrase, '-d', '-o', at('opened'), at('ours.age')).status, 0);
  t.ok(readFileSync(at('opened')).equals(small), 'age opens ours');
  t.equal(age(passphrase, '-p', '-o', at('theirs.age'), at('image')).status, 0);
  const theirs = readFileSync(at('theirs.age'));
  t.ok(feed(undo('-p', at('pass')), theirs).output.equals(small), "we open age's");
  t.equal(feed(undo('-p', at('other-pass')), theirs).failure, 'wrong-key');
  // A key file: what age asks for is the sum that sha256sum shows.
  const sum = run('sha256sum', [at('keyfile')])
    .output.toString()
    .slice(0, 64);
  writeFileSync(at('keyed.age'), feed(raw('-p', at('keyfile')), small).output);
  t.equal(age(sum, '-d', '-o', at('opened-2'), at('keyed.age')).status, 0);
  t.ok(readFileSync(at('opened-2')).equals(small), 'age opens what a key file closed');
});

t.test('a wrong key is told before anything comes out', async (t) => {
  const closed = feed(forward('-R', at('a.pub')), small).output;
  const phrase = feed(forward('-p', at('keyfile')), small).output;
  const cases: [string[], Buffer, RegExp][] = [
    [['-i', at('b.key')], closed, /none of the keys/],
    [[], closed, /to a key, and none was given/],
    [['-p', at('pass')], closed, /to a key, and none was given/],
    [['-p', at('pass')], phrase, /passphrase is wrong/],
    [['-i', at('a.key')], phrase, /with a passphrase, and none/],
  ];
  for (const [tokens, bytes, message] of cases) {
    const { failure, error, output } = feed(undo(...tokens), bytes);
    t.equal(failure, 'wrong-key');
    t.match((error as Error).message, message);
    t.same(
      readStream(output).frames.map(({ kind }) => kind),
      [kinds.error],
      'nothing but ERROR comes out',
    );
  }
  t.equal(run(filterProgram('encrypt'), ['--undo', '-i', at('b.key')], closed).status, 7);
  t.ok(feed(undo('-p', at('keyfile')), phrase).output.equals(small));
});

t.test('cut and changed data', async (t) => {
  const closed = feed(forward('-R', at('a.pub')), small).output;
  for (let cut = 0; cut < closed.length; cut += cut < 600 ? 1 : 1999) {
    const { failure, output } = feed(undo('-i', at('a.key')), closed.subarray(0, cut));
    t.equal(failure, 'truncated', `layer cut at ${cut}`);
    t.notOk(readStream(output).whole);
  }
  const bare = feed(raw('-R', at('a.pub')), small).output;
  const header = bare.indexOf('\n---') + 49 + 16;
  for (let cut = 32; cut < bare.length; cut += cut < header ? 1 : 1999) {
    const { failure, output } = feed(undo('-i', at('a.key')), bare.subarray(0, cut));
    t.match(failure, /truncated|damaged/, `file cut at ${cut}`);
    t.notOk(readStream(output).whole);
  }
  // Around the borders of the chunks.
  for (let border = header; border < bare.length; border += 65552) {
    for (let cut = border - 20; cut <= border + 20; cut += 1) {
      const { failure, output } = feed(undo('-i', at('a.key')), bare.subarray(0, cut));
      t.match(failure, /truncated|damaged/, `file cut at ${cut}`);
      t.notOk(readStream(output).whole);
    }
  }
  for (let byte = 22; byte < bare.length; byte += byte < header ? 1 : 1999) {
    const changed = Buffer.from(bare);
    changed[byte]! ^= 1 << (byte % 8);
    const { failure, output } = feed(undo('-i', at('a.key')), changed);
    t.match(failure, /damaged|wrong-key|truncated|limit|version/, `file: byte ${byte} changed`);
    t.notOk(readStream(output).whole);
  }
});

t.test('hostile headers', async (t) => {
  const text = feed(raw('-p', at('pass')), small).output.toString('latin1');
  const work = (n: string): Buffer => Buffer.from(text.replace(/(-> scrypt \S+) \d+/, `$1 ${n}`), 'latin1');
  t.equal(feed(undo('-p', at('pass')), work('31')).failure, 'limit');
  t.equal(feed(undo('-p', at('pass')), work('016')).failure, 'damaged');
  const beside = text.replace('\n-> scrypt', '\n-> other x\nAAAA\n-> scrypt');
  t.equal(feed(undo('-p', at('pass')), Buffer.from(beside, 'latin1')).failure, 'damaged');
  const endless = Buffer.concat([
    Buffer.from('age-encryption.org/v1\n'),
    Buffer.alloc(2 << 20, '-> x\nAAAA\n'),
  ]);
  t.equal(feed(undo('-i', at('a.key')), endless, [4096]).failure, 'limit');
});

t.test('keys that cannot be used', async (t) => {
  writeFileSync(at('short'), 'too short\n');
  writeFileSync(at('ssh.pub'), 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@here\n');
  const cases: [string[], RegExp][] = [
    [[], /needs to know who/],
    [['-p', at('short')], /has 9 characters, at least 20/],
    [['-p', '-'], /cannot come from standard input/],
    [['-p', at('missing')], /cannot read .*ENOENT/],
    [['-R', at('ssh.pub')], /is an ssh key/],
    [['-R', at('a.key')], /is a secret key/],
    [['-r', pub('a').replace(/.$/, (last) => (last === 'x' ? 'y' : 'x'))], /is not an age recipient/],
    [['-p', at('pass'), '-R', at('a.pub')], /cannot stand beside/],
  ];
  for (const [tokens, message] of cases) {
    const { failure, error, output } = feed(forward(...tokens), small);
    t.equal(failure, 'usage', tokens.join(' '));
    t.match((error as Error).message, message);
    t.notMatch(String((error as PodErrorLike).hint), /AGE-SECRET-KEY-1[A-Z0-9]/, 'no secret in a message');
    t.equal(output.length, 0, 'nothing was written');
  }
});

interface PodErrorLike {
  hint?: string;
}
