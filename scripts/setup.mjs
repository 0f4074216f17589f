// All that a fresh machine needs before the demo or the tests: checks the tools, installs the packages, builds.
// Uses nothing but Node itself.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));

function fail(message, hint) {
  console.error(`setup: error: ${message}\nsetup: hint: ${hint}`);
  process.exit(1);
}

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19))
  fail(`Node ${process.versions.node} is too old, 20.19 is needed`, 'install a newer Node.js');
if (process.platform !== 'linux') fail(`${process.platform} is not Linux`, 'podstream moves Linux sessions');
const missing = [
  ['a C compiler', 'cc'],
  ['a C++ compiler', 'c++'],
  ['make', 'make'],
  ['python3', 'python3'],
]
  .filter(([, command]) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status !== 0)
  .map(([name]) => name);
if (missing.length > 0)
  fail(`${missing.join(', ')} not found`, 'on Debian: apt-get install build-essential python3');

const installed = 'node_modules/.package-lock.json';
const fresh = existsSync(installed) && statSync(installed).mtimeMs >= statSync('package-lock.json').mtimeMs;
if (!fresh) {
  console.error('setup: installing packages (once, about a minute)');
  const result = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (result.status !== 0) fail('npm ci failed', 'see its message above; is the npm registry reachable');
}
// tap comes with a plugin that needs the JavaScript interface of TypeScript, which TypeScript 7 does not have, and
// takes .taprc's word for leaving it out only when it is built anew: once, before the first run.
const built = 'node_modules/@tapjs/test/test-built/dist/esm/index.js';
if (!existsSync(built) || readFileSync(built, 'utf8').includes('@tapjs/typescript')) {
  console.error('setup: building tap without its TypeScript plugin (once)');
  const tap = spawnSync('node_modules/.bin/tap', ['build'], { stdio: ['ignore', 'ignore', 'inherit'] });
  if (tap.status !== 0) fail('tap build failed', 'see its message above');
}
console.error('setup: building');
const result = spawnSync(process.execPath, ['scripts/build.mjs'], { stdio: 'inherit' });
process.exit(result.status ?? 1);
