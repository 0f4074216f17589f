// What in docs/, man/ and kmod/ is made from the code: docs/records.md and the tables of docs/format.md from schemas/ and
// lib/stream, man/*.1 from what each command says of itself (--spec). `--check` writes nothing and fails when
// something is out of date. Needs a build.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { fileObjects } from '../dist/esm/lib/engine/user/objects/index.js';
import { exitCodes } from '../dist/esm/lib/stream/error.js';
import { greaseKinds, kinds } from '../dist/esm/lib/stream/kind.js';
import { manPage } from './man-page.mjs';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
const check = process.argv.includes('--check');
const stale = [];

function put(path, content) {
  if (existsSync(path) && readFileSync(path, 'utf8') === content) return;
  if (check) stale.push(path);
  else writeFileSync(path, content);
}

const schema = (name) => JSON.parse(readFileSync(`schemas/${name}.json`, 'utf8'));
const defs = schema('defs').$defs;
const resolve = (field) => {
  if (!field.$ref) return field;
  const { $ref, ...rest } = field;
  return { ...defs[$ref.split('/').pop()], ...rest };
};
const cell = (text) => String(text).replaceAll('|', '\\|');

/** The type of a field for a reader of the table. */
function typeOf(given) {
  const field = resolve(given);
  if (field.u64) return 'uint, 64-bit';
  if (field.i64) return 'int, 64-bit';
  if (field.bytes) {
    if (field.bytesExactly) return `bin, ${field.bytesExactly} bytes`;
    return field.bytesAtMost ? `bin, at most ${field.bytesAtMost} bytes` : 'bin';
  }
  if (field.enum) return field.enum.map((value) => `\`${value}\``).join(' | ');
  if (field.type === 'integer') {
    const { minimum: low, maximum: high } = field;
    return low === undefined ? 'int' : `int, ${low}…${high}`;
  }
  if (field.type === 'string') {
    if (field.pattern && !field.maxLength) return `str, \`${field.pattern}\``;
    return field.maxLength ? `str, at most ${field.maxLength}` : 'str';
  }
  if (field.type === 'boolean') return 'bool';
  if (field.type === 'array') {
    const most = field.maxItems === undefined ? '' : `, at most ${field.maxItems}`;
    const items = resolve(field.items);
    return items.properties ? `array of maps${most}` : `array of ${typeOf(field.items)}${most}`;
  }
  return field.properties ? 'map' : 'any map';
}

function rows(object, prefix) {
  const required = new Set(object.required ?? []);
  return Object.entries(object.properties ?? {}).flatMap(([name, given]) => {
    const field = resolve(given);
    const path = `${prefix}${name}`;
    const needed = required.has(name) ? 'yes' : '';
    const own = `| \`${path}\` | ${cell(typeOf(given))} | ${needed} | ${cell(field.description ?? '')} |`;
    const inner = field.properties ? field : field.items ? resolve(field.items) : undefined;
    return [own, ...(inner?.properties ? rows(inner, field.items ? `${path}[].` : `${path}.`) : [])];
  });
}

function table(record) {
  const lines = rows(record, '');
  if (lines.length === 0) return 'No fields.';
  return ['| field | type | required | |', '|---|---|---|---|', ...lines].join('\n');
}

const names = Object.keys(kinds);
const hasSchema = (name) => existsSync(`schemas/${name}.json`);
const sections = names.map((name) => {
  const title = `## ${name.toUpperCase()} (${kinds[name]})`;
  if (!hasSchema(name)) return `${title}\n\nRaw data of a layer; the meta is empty.\n`;
  const record = schema(name);
  return `${title}\n\n${record.description}\n\n${table(record)}\n`;
});
put(
  'docs/records.md',
  `<!-- Generated from schemas/*.json by scripts/docs.mjs. Do not edit. -->

# Records

One section a [kind](format.md#kinds): the fields of the frame's meta. *64-bit* fields are always nine bytes of msgpack; \`a[].b\` is a field of each element of \`a\`; unknown fields are passed on. The schemas themselves are in \`schemas/\`.

${sections.join('\n')}`,
);

const kindRows = names.map((name) => {
  const what = hasSchema(name) ? schema(name).description : 'Raw data of a layer.';
  return `| ${kinds[name]} | ${name.toUpperCase()} | ${cell(what)} |`;
});
const kindTable = [
  '| number | kind | |',
  '|---|---|---|',
  ...kindRows,
  `| ${greaseKinds.first}–${greaseKinds.last} | grease | Means nothing, is never critical, passes. |`,
].join('\n');

const meanings = {
  done: 'the stream was whole and right',
  other: 'anything else',
  usage: 'wrong arguments',
  version: 'a format version this reader does not know',
  foreign: 'not a pod stream',
  truncated: 'the stream ends early',
  damaged: 'bytes were changed, or break a rule of this page',
  'wrong-key': 'the key given does not open the layer',
  'unknown-critical': 'a critical frame of unknown kind',
  limit: 'a limit of this page exceeded',
  upstream: 'an earlier stage failed and said so in an ERROR frame',
  'cannot-checkpoint': 'the session holds something that cannot be saved (named)',
  'cannot-restart': 'the image cannot go on here (why)',
  drive: 'the drive is full, gone or not writable',
};
const classTable = [
  '| class | exit | |',
  '|---|---|---|',
  ...Object.entries(exitCodes).map(([name, code]) => `| ${name} | ${code} | ${meanings[name]} |`),
  '| | 32… | a filter’s own |',
].join('\n');

function fill(text, name, content) {
  const open = `<!-- generated by scripts/docs.mjs: ${name} -->`;
  const close = '<!-- /generated -->';
  const from = text.indexOf(open);
  if (from < 0) throw new Error(`no mark for ${name}`);
  const to = text.indexOf(close, from);
  return `${text.slice(0, from + open.length)}\n${content}\n${text.slice(to)}`;
}
let format = readFileSync('docs/format.md', 'utf8');
format = fill(format, 'kinds', kindTable);
format = fill(format, 'classes', classTable);
put('docs/format.md', format);

// One row an object of the engine's list: what it says of itself.
const coverage = fileObjects.map(
  ({ records, coverage }) =>
    `| ${records.map((name) => `\`${name}\``).join(', ') || 'others'} | ${cell(coverage)} |`,
);
put(
  'docs/coverage.md',
  fill(
    readFileSync('docs/coverage.md', 'utf8'),
    'coverage',
    ['| object | |', '|---|---|', ...coverage].join('\n'),
  ),
);

// The module numbers frames alike; the file is kept in git, because a module is built where there is no Node.
const define = ([name, number]) => `#define POD_FRAME_${name.toUpperCase().replaceAll('-', '_')} ${number}\n`;
const numbers = [
  ...Object.entries(kinds),
  ...Object.entries(greaseKinds).map(([name, kind]) => [`grease-${name}`, kind]),
];
put(
  'kmod/kinds.h',
  `/* SPDX-License-Identifier: GPL-2.0 */
/* Generated from lib/stream/kind.ts by scripts/docs.mjs. Do not edit. */
#ifndef POD_KINDS_H
#define POD_KINDS_H

${numbers.map(define).join('')}
#endif
`,
);

mkdirSync('man', { recursive: true });
const pages = new Set();
for (const name of existsSync('dist/bin') ? readdirSync('dist/bin') : []) {
  if (name === 'package.json') continue;
  const said = spawnSync(process.execPath, [`dist/bin/${name}`, '--spec'], { encoding: 'utf8' });
  let spec;
  try {
    spec = JSON.parse(said.stdout);
  } catch {
    console.error(`docs: warning: ${name} --spec says nothing (see lib/cli/parse.ts): no man page`);
    continue;
  }
  pages.add(`${name}.1`);
  put(`man/${name}.1`, manPage(spec, meanings, exitCodes));
}
for (const page of readdirSync('man')) {
  if (pages.has(page)) continue;
  if (check) stale.push(`man/${page}`);
  else rmSync(`man/${page}`);
}

if (stale.length > 0) {
  console.error(`docs: error: out of date: ${stale.join(', ')}\ndocs: hint: run npm run docs and commit`);
  process.exit(1);
}
