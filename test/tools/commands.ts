/** Run the built commands as users do: from PATH, in a shell, with a runtime directory of their own. */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../native/package-root.ts';
import { removeFolder } from './remove-folder.ts';

/** Only what the tests of one file need of tap, so that this works in its subtests too. */
interface Teardown {
  teardown(handler: () => void): unknown;
}

export interface Outcome {
  /** Exit status; 128 + n when the shell died of signal n. */
  status: number;
  stdout: Buffer;
  stderr: string;
}

export const makeStreamCommand = `${process.execPath} ${join(packageRoot(), 'dist/esm/test/tools/make-stream.js')}`;

/** A new folder below /tmp, removed after the test. */
export function makeFolder(t: Teardown, prefix = 'pod-test-'): string {
  const folder = mkdtempSync(join('/tmp', prefix));
  chmodSync(folder, 0o700);
  t.teardown(() => removeFolder(folder));
  return folder;
}

/** Environment of a user who has podstream on PATH; `runtime` is the runtime directory. */
export function environment(runtime: string): NodeJS.ProcessEnv {
  return {
    ...process.env,
    PATH: `${join(packageRoot(), 'dist/bin')}:${process.env.PATH}:/usr/sbin:/sbin`,
    POD_RUNTIME_DIR: runtime,
    LC_ALL: 'C',
  };
}

/** A shell line; $MAKE is make-stream. No pipefail: the exit status is the last command's. */
export function runShell(line: string, runtime: string, input?: Uint8Array): Outcome {
  const result = spawnSync('bash', ['-c', line], {
    env: { ...environment(runtime), MAKE: makeStreamCommand },
    input: input ?? '',
    maxBuffer: 1 << 28,
    timeout: 120_000,
  });
  return {
    status: result.status ?? 128 + 9,
    stdout: result.stdout,
    stderr: result.stderr.toString(),
  };
}
