// The import directions of .dependency-cruiser.json, checked on every import, type-only ones too.
//
// dependency-cruiser reads TypeScript through the compiler's JavaScript interface, which TypeScript 7 does not
// have: on .ts files it would find no modules and report that all is well. So esbuild turns the sources into
// JavaScript first, in a tree of the same shape, with type-only imports kept as plain ones.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { transform } from 'esbuild';

const root = process.argv[2] ?? fileURLToPath(new URL('..', import.meta.url));
const folders = ['bin', 'filters', 'lib', 'native', 'schemas/generated'];
const rules = JSON.parse(readFileSync(join(root, '.dependency-cruiser.json'), 'utf8'));

function sources(folder) {
  let entries;
  try {
    entries = readdirSync(join(root, folder), { withFileTypes: true });
  } catch {
    return [];
  }
  return entries.flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return sources(path);
    return entry.name.endsWith('.ts') && !entry.name.endsWith('.d.ts') ? [path] : [];
  });
}

const scratch = mkdtempSync(join(tmpdir(), 'pod-imports-'));
try {
  const files = folders.flatMap(sources);
  let written = 0;
  for (const file of files) {
    const extra = [];
    const source = readFileSync(join(root, file), 'utf8')
      .replace(/^(\s*(?:import|export))\s+type\s+(?=[{*])/gm, '$1 ')
      .replace(/^(\s*import)\s+type\s+(?=\w+\s+from\b)/gm, '$1 ')
      // import('./x.ts').Type in a type position disappears with the types: make it an import.
      .replace(/\bimport\((['"])(\.[^'"]+)\1\)(?=\s*\.)/g, (all, _quote, path) => {
        extra.push(path);
        return all;
      });
    const { code } = await transform(`${source}\n${extra.map((path) => `import '${path}';`).join('\n')}`, {
      loader: 'ts',
      format: 'esm',
      target: 'node20',
      tsconfigRaw: { compilerOptions: { verbatimModuleSyntax: true } },
    });
    const target = join(scratch, file.replace(/\.ts$/, '.js'));
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, code.replace(/((?:from|import)\s*\(?\s*['"]\.[^'"]*)\.ts(?=['"])/g, '$1.js'));
    written += 1;
  }
  // Generated plain JavaScript that the sources import.
  mkdirSync(join(scratch, 'schemas/generated'), { recursive: true });
  writeFileSync(join(scratch, 'schemas/generated/validators.js'), 'export const validators = {};\n');
  writeFileSync(join(scratch, 'package.json'), '{"type":"module"}\n');

  writeFileSync(
    join(scratch, 'rules.json'),
    JSON.stringify({
      forbidden: rules.forbidden,
      options: { doNotFollow: { path: 'node_modules' }, moduleSystems: ['es6'] },
    }),
  );
  const given = folders.filter((folder) => files.some((file) => file.startsWith(`${folder}/`)));
  const program = fileURLToPath(
    new URL('../node_modules/dependency-cruiser/bin/dependency-cruise.mjs', import.meta.url),
  );
  const found = spawnSync(process.execPath, [program, '--config', 'rules.json', '-T', 'json', ...given], {
    cwd: scratch,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (!found.stdout.startsWith('{'))
    throw new Error(`dependency-cruiser failed: ${found.stderr}${found.stdout}`);
  const { violations, totalCruised, totalDependenciesCruised } = JSON.parse(found.stdout).summary;
  if (totalCruised < written) {
    console.error(`check-imports: error: only ${totalCruised} of ${written} files were looked at`);
    process.exitCode = 1;
  }
  for (const { from, to, rule, cycle } of violations) {
    const path = cycle ? cycle.map((step) => step.name).join(' → ') : to;
    console.error(`check-imports: error: ${rule.name}: ${from} → ${path}`.replaceAll('.js', '.ts'));
    process.exitCode = 1;
  }
  if (!process.exitCode)
    console.error(
      `check-imports: ${written} files, ${totalDependenciesCruised} imports, all in the right direction`,
    );
} finally {
  rmSync(scratch, { recursive: true });
}
