// `npm test [-- FILE…]`: run the compiled tests with tap. Long campaigns have scripts of their own.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
const given = process.argv.slice(2).filter((argument) => !argument.startsWith('-'));
const collect = (folder) =>
  readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory()
      ? collect(`${folder}/${entry.name}`)
      : entry.name.endsWith('.test.js')
        ? [`${folder}/${entry.name}`]
        : [],
  );
const files =
  given.length > 0
    ? given.map((file) =>
        existsSync(file) && file.endsWith('.js') ? file : `dist/esm/${file.replace(/\.ts$/, '.js')}`,
      )
    : collect('dist/esm/test');
const result = spawnSync(
  'node_modules/.bin/tap',
  ['run', '--disable-coverage', '--reporter=terse', '--timeout=300', ...files],
  { stdio: 'inherit' },
);
process.exit(result.status ?? 1);
