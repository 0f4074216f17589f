// From schemas/*.json: types (schemas/generated/types.ts) and stand-alone validators
// (schemas/generated/validators.js with its .d.ts), so that no schema compiler is loaded at run time.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import Ajv, { _ } from 'ajv';
import standalone from 'ajv/dist/standalone/index.js';
import { build } from 'esbuild';
import { compile } from 'json-schema-to-typescript';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = `${root}schemas/`;
const target = `${folder}generated/`;

const ajv = new Ajv({
  code: { source: true, esm: true, lines: true },
  strict: true,
  strictTypes: false,
  allErrors: false,
  messages: true,
});
ajv.addKeyword('tsType');
const bigints = (low, high) => (context) => {
  const { data } = context;
  context.fail(_`typeof ${data} != "bigint" || ${data} < BigInt(${low}) || ${data} > BigInt(${high})`);
};
ajv.addKeyword({
  keyword: 'u64',
  schemaType: 'boolean',
  error: { message: 'must be an unsigned 64-bit integer' },
  code: bigints('0', '18446744073709551615'),
});
ajv.addKeyword({
  keyword: 'i64',
  schemaType: 'boolean',
  error: { message: 'must be a signed 64-bit integer' },
  code: bigints('-9223372036854775808', '9223372036854775807'),
});
ajv.addKeyword({
  keyword: 'bytes',
  schemaType: 'boolean',
  error: { message: 'must be bytes' },
  code: (c) => c.fail(_`!(${c.data} instanceof Uint8Array)`),
});
ajv.addKeyword({
  keyword: 'bytesExactly',
  schemaType: 'number',
  error: { message: 'has the wrong number of bytes' },
  code: (c) => c.fail(_`!${c.data} || ${c.data}.length !== ${c.schemaCode}`),
});
ajv.addKeyword({
  keyword: 'bytesAtMost',
  schemaType: 'number',
  error: { message: 'has too many bytes' },
  code: (c) => c.fail(_`!${c.data} || ${c.data}.length > ${c.schemaCode}`),
});

const names = readdirSync(folder)
  .filter((file) => file.endsWith('.json'))
  .map((file) => file.slice(0, -5))
  .sort();
const schemas = new Map(
  names.map((name) => [name, JSON.parse(readFileSync(`${folder}${name}.json`, 'utf8'))]),
);
for (const schema of schemas.values()) ajv.addSchema(schema);

const documents = names.filter((name) => name !== 'defs');
const camel = (name) => name.replace(/-(.)/g, (_all, letter) => letter.toUpperCase());
const source = standalone(ajv, Object.fromEntries(documents.map((name) => [camel(name), `${name}.json`])));
const lookup = `export const validators = {${documents.map((name) => `${JSON.stringify(name)}: ${camel(name)}_`).join(', ')}};`;
const imports = `import { ${documents.map((name) => `${camel(name)} as ${camel(name)}_`).join(', ')} } from './raw.js';`;

mkdirSync(target, { recursive: true });
const bundled = await build({
  stdin: { contents: `${imports}\n${lookup}`, resolveDir: root },
  bundle: true,
  format: 'esm',
  platform: 'node',
  write: false,
  legalComments: 'none',
  plugins: [
    {
      name: 'raw',
      setup(b) {
        b.onResolve({ filter: /^\.\/raw\.js$/ }, () => ({ path: 'raw.js', namespace: 'raw' }));
        b.onLoad({ filter: /.*/, namespace: 'raw' }, () => ({ contents: source, resolveDir: root }));
      },
    },
  ],
});
writeFileSync(`${target}validators.js`, bundled.outputFiles[0].text);
writeFileSync(
  `${target}validators.d.ts`,
  `import type { Records } from './types.ts';
export interface Validator { (value: unknown): boolean; errors?: { instancePath: string; message?: string }[] | null }
export const validators: Record<keyof Records, Validator>;
`,
);

let types = '// Generated from schemas/*.json by scripts/generate.mjs. Do not edit.\n\n';
const inline = (schema) =>
  JSON.parse(JSON.stringify(schema), (key, value) => {
    if (
      value &&
      typeof value === 'object' &&
      typeof value.$ref === 'string' &&
      value.$ref.startsWith('defs.json#/$defs/')
    ) {
      const { $ref, ...rest } = value;
      return { ...inline(schemas.get('defs').$defs[$ref.slice('defs.json#/$defs/'.length)]), ...rest };
    }
    // json2ts expands bounded arrays into tuples; the validator checks the bounds.
    if (key === 'maxItems' || key === 'minItems') return undefined;
    return value;
  });
for (const name of documents) {
  const schema = inline(schemas.get(name));
  delete schema.$id;
  types += await compile(schema, schema.title, {
    bannerComment: '',
    additionalProperties: false,
    format: false,
    ignoreMinAndMaxItems: true,
  });
}
types += `\nexport interface Records {\n${documents.map((name) => `  ${JSON.stringify(name)}: ${schemas.get(name).title};`).join('\n')}\n}\n`;
writeFileSync(`${target}types.ts`, types);
