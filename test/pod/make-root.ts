import { execFileSync } from 'node:child_process';
import { chownSync, copyFileSync, mkdirSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** A root with a shell and a few tools, and the libraries they name. */
export function makeRoot(folder: string, uid: number): string {
  const root = join(folder, 'fs');
  mkdirSync(join(root, 'bin'), { recursive: true });
  for (const name of ['sh', 'ls', 'cat', 'tty', 'id', 'sleep']) {
    const program = realpathSync(
      ['/bin', '/usr/bin']
        .map((bin) => join(bin, name))
        .find((path) => {
          try {
            return realpathSync(path);
          } catch {
            return undefined;
          }
        })!,
    );
    copyFileSync(program, join(root, 'bin', name));
    for (const [library] of execFileSync('ldd', [program], { encoding: 'utf8' }).matchAll(/\/\S+/g)) {
      mkdirSync(join(root, dirname(library)), { recursive: true });
      copyFileSync(library, join(root, library));
    }
  }
  if (uid !== process.getuid!()) chownSync(root, uid, uid);
  return root;
}
