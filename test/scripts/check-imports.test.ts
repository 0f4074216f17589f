/** The import check fails on one wrong import a rule, type-only ones too, and holds for the project. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../native/package-root.ts';

const root = packageRoot();

function check(files: Record<string, string>) {
  const folder = mkdtempSync(join(tmpdir(), 'pod-wrong-imports-'));
  try {
    copyFileSync(join(root, '.dependency-cruiser.json'), join(folder, '.dependency-cruiser.json'));
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), text);
    }
    return spawnSync(process.execPath, [join(root, 'scripts/check-imports.mjs'), folder], {
      encoding: 'utf8',
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const wrong: [rule: string, from: string, statement: string, to: string][] = [
  ['native-below-all', 'native/a.ts', "import { b } from '../lib/stream/b.ts'; b();", 'lib/stream/b.ts'],
  [
    'stream-knows-only-native',
    'lib/stream/a.ts',
    "import type { B } from '../image/b.ts';",
    'lib/image/b.ts',
  ],
  ['stream-knows-only-native', 'lib/stream/a.ts', "export type * from '../filter/b.ts';", 'lib/filter/b.ts'],
  [
    'cli-and-runtime-know-only-stream',
    'lib/runtime/a.ts',
    "export type { B } from '../pod/b.ts';",
    'lib/pod/b.ts',
  ],
  [
    'filter-and-image-above-stream',
    'lib/filter/a.ts',
    "export type A = import('../engine/b.ts').B;",
    'lib/engine/b.ts',
  ],
  ['makers-above-filter-and-image', 'lib/drive/a.ts', "import '../../filters/b.ts';", 'filters/b.ts'],
  ['filters-below-bin', 'filters/a.ts', "import { type B } from '../lib/engine/b.ts';", 'lib/engine/b.ts'],
  ['engine-drive-pod-are-siblings', 'lib/drive/a.ts', "await import('../pod/b.ts');", 'lib/pod/b.ts'],
  ['session-above-makers', 'lib/drive/a.ts', "import type { B } from '../session/b.ts';", 'lib/session/b.ts'],
  ['library-on-top', 'lib/session/a.ts', "import type { dump } from '../index.ts';", 'lib/index.ts'],
  ['bin-is-the-top', 'lib/pod/a.ts', "import type b from '../../bin/b.ts';", 'bin/b.ts'],
  ['nothing-unresolved', 'lib/pod/a.ts', "import '../../test/tools/forge.ts';", 'lib/pod/b.ts'],
];

for (const [rule, from, statement, to] of wrong) {
  t.test(`${rule}: ${statement}`, async (t) => {
    const empty = 'export interface B {} export function b(): void {} export default 1;\n';
    const result = check({ [from]: `${statement}\nexport const a = 1;\n`, [to]: empty });
    t.equal(result.status, 1, result.stderr);
    t.match(result.stderr, `error: ${rule}: ${from} → `);
  });
}

t.test('circles, also of types', async (t) => {
  const result = check({
    'lib/stream/a.ts': "import type { B } from './b.ts';\nexport type A = B | 1;\n",
    'lib/stream/b.ts': "import type { A } from './a.ts';\nexport type B = A | 2;\n",
  });
  t.equal(result.status, 1);
  t.match(result.stderr, 'no-circles');
});

t.test('the project', async (t) => {
  const result = spawnSync(process.execPath, ['scripts/check-imports.mjs'], { cwd: root, encoding: 'utf8' });
  t.equal(result.status, 0, result.stderr);
  t.match(result.stderr, /[5-9]\d files|\d{3,} files/);
});

t.test('npm run lint calls it', async (t) => {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  t.match(scripts.lint, 'scripts/check-imports.mjs');
});
