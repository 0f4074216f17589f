import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../native/package-root.ts';

/** This package's version, as in package.json. */
export function packageVersion(): string {
  const manifest = readFileSync(join(packageRoot(), 'package.json'), 'utf8');
  return (JSON.parse(manifest) as { version: string }).version;
}
