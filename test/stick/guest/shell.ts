/** Commands as somebody types them at one of the computers, shown to whoever looks on. */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { tell as tellHost } from '../../kernels/guest/tell.ts';
import type { GuestEvent } from '../job.ts';

export const tell = (event: GuestEvent) => tellHost(event);
export const say = (text: string) => tell({ event: 'says', text });

/** Most that anything may take, ms: emulated, on a computer that does other things too. */
const patience = 600_000;

/** What a command says goes to memory: a computer that is searched for traces shall have none of the test's. */
const outputs = { stdout: '/run/stick-stdout', stderr: '/run/stick-stderr' } as const;

/** Run a line; what it wrote to standard output. Throws what it said when it fails. */
export function sh(line: string, { quiet = false } = {}): string {
  if (!quiet) say(`$ ${line}`);
  // Files, no pipes: a session that it starts may keep them.
  const fds = [openSync(outputs.stdout, 'w'), openSync(outputs.stderr, 'w')] as const;
  const { status, signal } = spawnSync('bash', ['-c', `set -o pipefail; ${line}`], {
    stdio: ['ignore', ...fds],
    cwd: '/',
    timeout: patience,
    killSignal: 'SIGKILL',
  });
  for (const fd of fds) closeSync(fd);
  const said = readFileSync(outputs.stderr, 'utf8').trim();
  if (status !== 0) throw new Error(`\`${line}\` ended with ${status ?? signal}: ${said}`);
  if (said && !quiet) say(said);
  return readFileSync(outputs.stdout, 'utf8');
}

/** Wait until `probe` gives something. */
export async function waitFor<T>(
  what: string,
  probe: () => T | undefined | false,
  explain = () => '',
): Promise<T> {
  for (const end = Date.now() + patience; ; await sleep(200)) {
    const value = probe();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > end) throw new Error(`${what}: not within ${patience / 1000} s ${explain()}`.trim());
  }
}
