import { execFileSync } from 'node:child_process';
import { chownSync, copyFileSync, existsSync, mkdirSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Put a program at a path of the root, and the libraries it names where it looks for them. */
export function addProgram(root: string, program: string, path: string): void {
  const real = realpathSync(program);
  mkdirSync(join(root, dirname(path)), { recursive: true });
  copyFileSync(real, join(root, path));
  for (const [library] of execFileSync('ldd', [real], { encoding: 'utf8' }).matchAll(/\/\S+/g)) {
    mkdirSync(join(root, dirname(library)), { recursive: true });
    copyFileSync(library, join(root, library));
  }
}

/** Where this computer has a tool. */
export function findTool(name: string): string {
  const path = ['/bin', '/usr/bin'].map((bin) => join(bin, name)).find(existsSync);
  if (!path) throw new Error(`there is no ${name} here`);
  return path;
}

/** A root with a shell and a few tools, and the libraries they name. */
export function makeRoot(folder: string, uid: number): string {
  const root = join(folder, 'fs');
  for (const name of ['sh', 'ls', 'cat', 'tty', 'id', 'sleep'])
    addProgram(root, findTool(name), join('bin', name));
  if (uid !== process.getuid!()) chownSync(root, uid, uid);
  return root;
}
