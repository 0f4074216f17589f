/** docs/format.md says what the code does: its example byte for byte, its generated tables, its numbers. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { maxData, maxFrame } from '../../lib/stream/frame.ts';
import { kinds } from '../../lib/stream/kind.ts';
import { maxMetaDepth } from '../../lib/stream/meta-grammar.ts';
import { StreamWriter } from '../../lib/stream/stream-writer.ts';
import { packageRoot } from '../../native/package-root.ts';
import { judge } from '../tools/read-vector.ts';

const root = packageRoot();
const text = readFileSync(join(root, 'docs/format.md'), 'utf8');

t.test('the worked example is what the writer writes', async (t) => {
  const block = /```hex\n([^`]*)```/.exec(text)![1]!;
  const lines = block.trim().split('\n');
  const bytes = Buffer.from(lines.map((line) => line.slice(6).replaceAll(' ', '')).join(''), 'hex');
  lines.forEach((line, index) => {
    t.equal(Number.parseInt(line.slice(0, 4), 16), index * 16);
  });
  const chunks: Buffer[] = [];
  const writer = new StreamWriter({
    write: (chunk) => void chunks.push(Buffer.from(chunk)),
    end() {},
    abort() {},
  });
  const imageId = '00112233445566778899aabbccddeeff';
  writer.record(kinds.layer, { filter: 'rot13', version: '1', params: {}, imageId });
  writer.frame(kinds.data, 1, new Uint8Array(0), Buffer.from('uryyb'));
  writer.end();
  t.equal(Buffer.concat(chunks).toString('hex'), bytes.toString('hex'));
  t.equal(judge(bytes).class, 'done');
  // The table below the example quotes bytes at their places.
  for (const [, at, quoted] of text.matchAll(/^\| ([0-9a-f]{4}) \| (.*?) \|/gm)) {
    const hex = quoted!.replace(/[`… ]/g, '');
    t.equal(bytes.toString('hex', Number.parseInt(at!, 16)).slice(0, hex.length), hex, at!);
  }
});

t.test('numbers in the text are those of the code', async (t) => {
  t.match(text, `0…${maxData}`);
  t.match(text, maxFrame.toLocaleString('en').replaceAll(',', ' '));
  t.match(text, `more than ${maxMetaDepth} containers`);
});

t.test('generated pages are up to date', async (t) => {
  const { status, stderr } = spawnSync(process.execPath, ['scripts/docs.mjs', '--check'], {
    cwd: root,
    encoding: 'utf8',
  });
  t.equal(status, 0, stderr);
});

t.test('man pages render without warnings', async (t) => {
  const pages = readdirSync(join(root, 'man'));
  for (const page of pages) {
    const { status, stdout, stderr } = spawnSync(
      'groff',
      ['-man', '-Tutf8', '-ww', join(root, 'man', page)],
      {
        encoding: 'utf8',
      },
    );
    t.equal(status, 0, page);
    t.equal(stderr, '', page);
    // groff prints a bold letter as letter, backspace, letter.
    t.match(stdout.replace(/.\x08/g, ''), /EXAMPLES/, page);
  }
});

t.test('links between pages lead somewhere', async (t) => {
  const pages = [
    'README.md',
    'CONTRIBUTING.md',
    ...readdirSync(join(root, 'docs')).map((page) => `docs/${page}`),
  ];
  for (const page of pages.filter((each) => each.endsWith('.md'))) {
    const source = readFileSync(join(root, page), 'utf8');
    for (const [, target] of source.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)) {
      t.ok(existsSync(join(root, dirname(page), target!)), `${page} → ${target}`);
    }
  }
});
