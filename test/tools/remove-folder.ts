import { rmSync } from 'node:fs';

/** Remove a folder of a test, in which somebody who has just been killed may still be finishing a call. */
export function removeFolder(path: string): void {
  rmSync(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
}
