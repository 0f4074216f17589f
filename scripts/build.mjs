// Build everything that is not up to date: generated types, lib and tests (tsc), commands and filters (esbuild
// bundles, so that they start fast), native parts (node-gyp).  `--no-native`, `--no-types` leave a step out.
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
process.chdir(root);
const flags = new Set(process.argv.slice(2));

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { stdio: 'inherit', ...options });
  if (result.status !== 0) {
    console.error(`build: error: ${command} ${args.join(' ')} failed`);
    process.exit(1);
  }
}

function newest(paths) {
  let time = 0;
  const visit = (path) => {
    if (!existsSync(path)) return;
    const status = statSync(path);
    if (status.isDirectory())
      for (const entry of readdirSync(path)) entry === 'generated' || visit(join(path, entry));
    else time = Math.max(time, status.mtimeMs);
  };
  paths.forEach(visit);
  return time;
}

const stale = (target, sources) => !existsSync(target) || statSync(target).mtimeMs < newest(sources);

if (stale('schemas/generated/types.ts', ['schemas', 'scripts/generate.mjs']))
  run(process.execPath, ['scripts/generate.mjs']);

if (
  !flags.has('--no-native') &&
  existsSync('binding.gyp') &&
  stale('build/stamp', ['native', 'binding.gyp'])
) {
  const gyp = join('node_modules', 'node-gyp', 'bin', 'node-gyp.js');
  // Distributions ship Node's headers beside it; then nothing needs to be downloaded.
  const prefix = dirname(dirname(process.execPath));
  const headers = existsSync(join(prefix, 'include', 'node', 'node_api.h')) ? [`--nodedir=${prefix}`] : [];
  run(process.execPath, [gyp, 'rebuild', '--silent', ...headers]);
  writeFileSync('build/stamp', '');
}

if (!flags.has('--no-types')) run('node_modules/.bin/tsc', ['-p', '.']);
mkdirSync('dist/esm/schemas/generated', { recursive: true });
for (const file of ['validators.js', 'validators.d.ts']) {
  writeFileSync(`dist/esm/schemas/generated/${file}`, readFileSync(`schemas/generated/${file}`));
}

// yargs measures text with string-width, whose emoji expression costs 20 ms at each start; our help is ASCII. And
// its platform shim reads process.stdout.columns when loaded, which makes descriptor 1 non-blocking: on a byte
// path that must never happen (lib/stream/descriptor.ts). lib/cli/parse.ts sets the width itself.
const quickYargs = {
  name: 'quick-yargs',
  setup(b) {
    b.onLoad({ filter: /[\\/]string-width[\\/]index\.js$/ }, () => ({
      contents: "export default (text) => String(text).replace(/\\u001b\\[[0-9;]*m/g, '').length;",
    }));
    b.onLoad({ filter: /yargs[\\/]lib[\\/]platform-shims[\\/]esm\.mjs$/ }, ({ path }) => {
      const source = readFileSync(path, 'utf8');
      const cut = source.replace(/stdColumns:[^\n]*/, 'stdColumns: null,');
      if (cut === source)
        throw new Error(`${path} is not as expected: does yargs still touch process.stdout?`);
      return { contents: cut };
    });
  },
};

/** One CommonJS file a command, in dist/code: an ES module would start slower and cannot be cached as easily. */
const shared = {
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  external: ['zstd-napi', 'sodium-native', '@node-rs/crc32', 'msgpackr-extract', '*.node'],
  define: { 'import.meta.url': '__moduleUrl' },
  banner: {
    js: "const __moduleUrl = require('node:url').pathToFileURL(__filename).href;",
  },
  logLevel: 'warning',
  legalComments: 'none',
  plugins: [quickYargs],
};

const code = 'dist/code';
rmSync(code, { recursive: true, force: true });
mkdirSync(code, { recursive: true });
writeFileSync(`${code}/package.json`, '{"type":"commonjs"}\n');
copyFileSync('scripts/start.cjs', `${code}/start.cjs`);

async function bundle(folder, prefix, entry) {
  const target = `dist/${folder}`;
  const sources = existsSync(folder)
    ? readdirSync(folder)
        .filter((file) => file.endsWith('.ts'))
        .map((file) => file.slice(0, -3))
    : [];
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  writeFileSync(`${target}/package.json`, '{"type":"commonjs"}\n');
  await Promise.all(
    sources.map(async (source) => {
      const name = `${prefix}${source}`;
      const outfile = `${code}/${name}.cjs`;
      await build({ ...shared, outfile, stdin: { contents: entry(source), resolveDir: root, loader: 'ts' } });
      writeFileSync(`${target}/${name}`, `#!/usr/bin/env node\nrequire('../code/start.cjs')('${name}');\n`);
      chmodSync(`${target}/${name}`, 0o755);
      await cacheCode(name);
    }),
  );
}

/** The cache knows what has run: --spec (--describe of a filter) reads arguments and loads what every start loads. */
async function cacheCode(name) {
  const make = `
    const script = require('./${code}/start.cjs')('${name}');
    process.on('exit', () => require('node:fs').writeFileSync('${code}/${name}.cache', script.createCachedData()));`;
  const question = name.startsWith('pod-filter-') ? '--describe' : '--spec';
  const { NODE_OPTIONS: _options, ...env } = process.env;
  const child = spawn(process.execPath, ['-e', make, '--', name, question], { stdio: 'ignore', env });
  await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (status) =>
      status === 0 ? resolve() : reject(new Error(`${name} ${question} ended with ${status}`)),
    );
  });
}

await bundle('bin', '', (name) => `import './bin/${name}.ts';`);
// Filters run as pod-filter-NAME: lib/filter runs the definition that each file exports.
await bundle(
  'filters',
  'pod-filter-',
  (name) =>
    `import { filter } from './filters/${name}.ts'; import { runFilter } from './lib/filter/run.ts'; runFilter(filter);`,
);
