/** The game as it must go: examples/life.js with the same seed, on this computer and without a break. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { packageRoot } from '../../native/package-root.ts';

/** Chain digest (its beginning) by generation, up to `last`. */
export async function referenceChains(seed: number, last: number): Promise<Map<number, string>> {
  const program = join(packageRoot(), 'examples/life.js');
  const child = spawn(process.execPath, [program, '--seed', String(seed), '--delay', '1'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const chains = new Map<number, string>();
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      const [, generation, chain] = /^generation (\d+) · .* chain (\w+) /.exec(line) ?? [];
      if (chain) chains.set(Number(generation), chain);
      if (Number(generation) >= last) break;
    }
  } finally {
    child.kill('SIGKILL');
  }
  return chains;
}
