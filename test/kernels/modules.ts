/** Which module files a guest must load, and in which order: read from the modules themselves. */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { decompress } from './decompress.ts';

export interface Module {
  name: string;
  /** The plain ELF: the guest's busybox decompresses nothing. */
  bytes: Buffer;
}

/** Names as the kernel has them: `virtio-blk.ko.xz` is virtio_blk. */
const moduleName = (path: string) =>
  basename(path)
    .replace(/\.ko(\..*)?$/, '')
    .replaceAll('-', '_');

/** `depends=` of its .modinfo section, which is strings with a zero byte between. */
function readDepends(bytes: Buffer): string[] {
  const at = bytes.indexOf('\0depends=', 0, 'latin1');
  if (at < 0) return [];
  const start = at + '\0depends='.length;
  return bytes
    .toString('latin1', start, bytes.indexOf(0, start))
    .split(',')
    .filter((name) => name !== '')
    .map(moduleName);
}

/** The wanted modules and all they depend on, each after what it needs; those built into the kernel are left out. */
export function collectModules(folder: string, wanted: readonly string[]): Module[] {
  const builtIn = new Set(
    readFileSync(join(folder, 'modules.builtin'), 'utf8').trim().split('\n').map(moduleName),
  );
  const files = new Map(
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((path) => /\.ko(\.\w+)?$/.test(path))
      .map((path) => [moduleName(path), path]),
  );
  const found = new Map<string, Module>();
  const add = (name: string) => {
    if (found.has(name) || builtIn.has(name)) return;
    const file = files.get(name);
    if (!file) throw new Error(`the kernel in ${folder} has no module ${name}`);
    const bytes = decompress(readFileSync(join(folder, file)));
    for (const needed of readDepends(bytes)) add(needed);
    found.set(name, { name, bytes });
  };
  for (const name of wanted) add(name);
  return [...found.values()];
}
