// `npm test [-- FILE…]`: run the compiled tests with tap, print one line of totals. Long campaigns have scripts of
// their own (test:fuzz, test:kill). Tests that start sessions go two at a time (one waits while the other works),
// those that mount drives one after another; the rest share the cores.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
/** How many files of a folder of test/ run at a time. */
const atOnce = [
  { folders: /^dist\/esm\/test\/(drive|plugged|session)\//, jobs: 1 },
  { folders: /^dist\/esm\/test\/(engine|pod|native|programs|pipeline|cli)\//, jobs: 2 },
  { folders: /^/, jobs: Math.min(4, availableParallelism()) },
];

/** Whole sessions through all commands take minutes: `npm run test:sessions`. */
const campaigns = /^dist\/esm\/test\/session\//;

const given = process.argv.slice(2).filter((argument) => !argument.startsWith('-'));
const collect = (folder) =>
  readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return collect(path);
    // What a source file that is gone left behind in dist is no test.
    const source = path.replace('dist/esm/', '').replace(/\.js$/, '.ts');
    return entry.name.endsWith('.test.js') && existsSync(source) ? [path] : [];
  });
const compiled = (file) =>
  file.endsWith('.js') ? file : `dist/esm/${file.replace(/^.*dist\/esm\//, '').replace(/\.ts$/, '.js')}`;
const files =
  given.length > 0
    ? given.flatMap((file) =>
        file.endsWith('/') ? collect(`dist/esm/${file.replace(/\/$/, '')}`) : [compiled(file)],
      )
    : collect('dist/esm/test').filter((file) => !campaigns.test(file));
const missing = files.filter((file) => !existsSync(file));
if (missing.length > 0) {
  console.error(`test: error: ${missing.join(', ')} not found\ntest: hint: node scripts/build.mjs`);
  process.exit(2);
}

const totals = { pass: 0, fail: 0, skip: 0, todo: 0 };
/** Seconds by file. */
const times = new Map();
let failed = false;
const record = '.tap/last-run.tap';

function run(list, jobs) {
  if (list.length === 0) return;
  mkdirSync('.tap', { recursive: true });
  const result = spawnSync(
    'node_modules/.bin/tap',
    [
      'run',
      '--disable-coverage',
      `--reporter=${process.stdout.isTTY ? 'base' : 'tap'}`,
      // A whole campaign may be in one file.
      `--timeout=${list.some((file) => campaigns.test(file)) ? 1800 : 1000}`,
      `--jobs=${jobs}`,
      '--node-arg=--import=./scripts/plain-children.mjs',
      `--output-file=${record}`,
      ...list,
    ],
    // The whole TAP would be thousands of lines in a log: without a terminal only failures are shown, below.
    { stdio: ['ignore', process.stdout.isTTY ? 'inherit' : 'ignore', 'inherit'] },
  );
  const tap = readFileSync(record, 'utf8');
  const summary = /^# \{ (.*) \}$/m.exec(tap.slice(tap.lastIndexOf('\n# {')))?.[1] ?? '';
  for (const [, name, count] of summary.matchAll(/(\w+): (\d+)/g))
    if (name in totals) totals[name] += Number(count);
  for (const [, file, ms] of tap.matchAll(/^(?:not )?ok \d+ - dist\/esm\/(\S+) # time=([\d.]+)ms/gm))
    times.set(file, Number(ms) / 1000);
  if (result.status !== 0) {
    failed = true;
    if (!process.stdout.isTTY) console.log(failures(tap));
    // A file that died without a failing assertion counts too.
    if (!/fail: \d/.test(summary)) totals.fail += 1;
  }
}

/** The failing assertions with what tap says of them, and the files they are in. */
function failures(tap) {
  const lines = tap.split('\n');
  const shown = [];
  let file = '';
  for (let index = 0; index < lines.length; index += 1) {
    const subtest = /^# Subtest: (.*)/.exec(lines[index]);
    if (subtest) file = subtest[1];
    if (!/^\s*not ok /.test(lines[index]) || /# (SKIP|TODO)/.test(lines[index])) continue;
    shown.push(`${file}: ${lines[index].trim()}`);
    for (let next = index + 1; /^\s*(---|\.\.\.)?/.test(lines[next] ?? '') && next < index + 40; next += 1) {
      if (/^\s*(not )?ok |^# Subtest/.test(lines[next])) break;
      shown.push(lines[next]);
    }
  }
  return shown.slice(0, 400).join('\n');
}

const lane = (file) => atOnce.findIndex(({ folders }) => folders.test(file));
for (const [index, { jobs }] of [...atOnce.entries()].reverse())
  run(
    files.filter((file) => lane(file) === index),
    jobs,
  );
const longest = [...times].sort((a, b) => b[1] - a[1]).slice(0, 12);
if (longest.length > 1)
  console.log(`longest, seconds: ${longest.map(([file, time]) => `${file} ${time.toFixed()}`).join(', ')}`);
const left = [totals.skip && `${totals.skip} skipped`, totals.todo && `${totals.todo} to do`].filter(Boolean);
console.log(
  `${[`${totals.pass} passed`, `${totals.fail} failed`, ...left].join(', ')} (${files.length} files)`,
);
process.exit(failed ? 1 : 0);
