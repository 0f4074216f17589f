/** The kit passes what is right and finds what is wrong. */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../native/package-root.ts';
import { bin, run, scratchFolder } from './feed.ts';

const folder = scratchFolder(t);
mkdirSync(join(folder, 'ext'));
const env = {
  POD_FILTER_PATH: `${join(folder, 'ext')}:${join(packageRoot(), 'examples/filters')}`,
  PATH: `${join(packageRoot(), 'dist/bin')}:${process.env['PATH']}`,
};

interface Report {
  passed: boolean;
  findings: { name: string; passed: boolean; detail: string }[];
}

function check(...args: string[]): { status: number | null; report: Report } {
  const { status, output, stderr } = run(bin('pod-filter'), ['--json', '--check', ...args], undefined, env);
  t.not(output.length, 0, stderr);
  return { status, report: JSON.parse(output.toString()) as Report };
}

for (const args of [['redact', '--text', 'hunter2'], ['xz']]) {
  t.test(`the example ${args[0]} keeps the protocol`, { timeout: 280_000 }, async (t) => {
    const { status, report } = check(...args);
    t.same(
      report.findings.filter(({ passed }) => !passed),
      [],
      args.join(' '),
    );
    t.ok(report.findings.length > 10);
    t.equal(status, 0);
  });
}

t.test('a filter that only copies is found out', { timeout: 280_000 }, async (t) => {
  const file = join(folder, 'ext/pod-filter-copy');
  const description = JSON.stringify({ 'pod-filter': 1, name: 'copy', version: '1', class: 'map' });
  writeFileSync(file, `#!/bin/sh\n[ "$1" = --describe ] && { echo '${description}'; exit 0; }\nexec cat\n`);
  chmodSync(file, 0o755);
  const { status, report } = check('copy');
  t.equal(status, 1);
  const failed = report.findings.filter(({ passed }) => !passed).map(({ name }) => name);
  for (const name of [
    'writes itself into the history of the image',
    'sees input that ends early',
    'sees damaged input',
    'refuses empty, foreign and future input',
    'refuses unknown options',
  ]) {
    t.ok(failed.includes(name), name);
  }
});
