/** The example programs run, and notice when they are tampered with: a check that cannot fail proves nothing. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../native/package-root.ts';

const examples = join(packageRoot(), 'examples');
const scratch = mkdtempSync(join(tmpdir(), 'pod-examples-'));
t.teardown(() => rmSync(scratch, { recursive: true }));

const run = (command: string, args: string[], timeout = 60_000) =>
  spawnSync(command, args, { encoding: 'utf8', timeout, cwd: scratch });

/** A copy of an example with one thing changed. */
function tampered(name: string, from: string | RegExp, to: string): string {
  const source = readFileSync(join(examples, name), 'utf8');
  const changed = source.replace(from, to);
  if (changed === source) throw new Error(`${name} has no ${from}`);
  const path = join(scratch, `tampered-${name.replace('.js', '.mjs')}`);
  writeFileSync(path, changed);
  return path;
}

t.test('life.js: generations in order, replayed from the seed', async (t) => {
  const { stdout } = run('node', [join(examples, 'life.js'), '--delay', '5'], 3000);
  const lines = stdout.trim().split('\n');
  lines.forEach((line, index) => {
    if (!line.startsWith(`generation ${index} · `)) t.fail(line);
  });
  t.ok(lines.length > 120, `${lines.length} generations`);
  t.match(lines.at(-1), /replayed to [1-9]\d*0 /);
});

t.test('life.js: notices a changed cell, a skipped generation, a clock that goes back', async (t) => {
  const changes: [string, string, RegExp][] = [
    [
      '  generation += 1;\n  chain',
      '  generation += 1;\n  if (generation === 20) board[7] ^= 1;\n  chain',
      /boards differ/,
    ],
    [
      '  generation += 1;\n  chain',
      '  generation += generation === 20 ? 2 : 1;\n  chain',
      /not what follows from seed/,
    ],
    ['  clock = now;', '  clock = now + 10n ** 12n;', /clock went back/],
  ];
  for (const [from, to, message] of changes) {
    const { stdout, status } = run('node', [tampered('life.js', from, to), '--delay', '2'], 10_000);
    t.equal(status, 1);
    t.match(stdout, message);
  }
});

t.test('threads.py', async (t) => {
  const { stdout, status } = run('python3', [join(examples, 'threads.py'), '--rounds', '150']);
  t.equal(status, 0);
  t.match(stdout, /threads: done\n$/);
  for (const [from, to] of [
    ['seen += 1', 'seen += 2 if seen == 20 else 1'],
    ['own[index] += 1', 'own[index] += 2 if own[index] == 20 else 1'],
  ] as const) {
    const wrong = run('python3', [tampered('threads.py', from, to), '--rounds', '150']);
    t.equal(wrong.status, 1);
    t.match(wrong.stdout, /threads: WRONG: /);
  }
});

t.test('pipeline.sh', async (t) => {
  const { stdout, status } = run('bash', [join(examples, 'pipeline.sh'), '3']);
  t.equal(status, 0);
  t.match(stdout, /pipeline: done\n$/);
  for (const [from, to] of [
    ['sort -n |', 'sort -n | head -n 7 |'],
    ['round=$((round + 1))', 'round=$((round + 1 + (round == 2)))'],
  ] as const) {
    const wrong = run('bash', [tampered('pipeline.sh', from, to), '5']);
    t.equal(wrong.status, 1);
    t.match(wrong.stdout, /pipeline: WRONG: /);
  }
});

t.test('rehash.c', async (t) => {
  const build = (source: string) => {
    const program = join(scratch, 'rehash');
    const built = run('cc', ['-O2', '-Wall', '-Wextra', '-Werror', '-o', program, source]);
    t.equal(built.status, 0, built.stderr);
    return program;
  };
  const quick = tampered('rehash.c', 'usleep(50000)', 'usleep(1)');
  // More rounds than pages: every page was changed, some twice.
  const good = run(build(quick), ['1', '600']);
  t.equal(good.status, 0);
  t.match(good.stdout, /rehash: done\n$/);
  const flip = tampered(
    'rehash.c',
    'struct timespec now;\n',
    'struct timespec now;\n\t\tmemory[5000] ^= round == 9;\n',
  );
  const bad = run(build(flip), ['1', '20']);
  t.equal(bad.status, 1);
  t.match(bad.stdout, /WRONG: word 5000 in round 9/);
});
