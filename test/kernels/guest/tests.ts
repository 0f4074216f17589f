/** A test of the checkout (tap) on a test machine, as root; most make an ordinary user's sessions too. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { packageRoot } from '../../../native/package-root.ts';
import { tell } from './tell.ts';

/** Emulated, everything takes some thirty times as long. */
const limit = 1_200_000;

export async function runTest(file: string): Promise<void> {
  const start = performance.now();
  const lines: string[] = [];
  const child = spawn(process.execPath, [join(packageRoot(), 'dist/esm/test', `${file}.js`)], {
    cwd: packageRoot(),
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, TAP_TIMEOUT: String(limit / 1000) },
  });
  const watch = setTimeout(() => child.kill('SIGKILL'), limit);
  const output = createInterface({ input: child.stdout });
  output.on('line', (line) => {
    lines.push(line);
    if (/^(not )?ok |^# Subtest/.test(line)) tell({ event: 'says', text: line });
  });
  const status = await new Promise<number | string>((resolve) => {
    child.on('exit', (code, signal) => resolve(code ?? signal ?? 'gone'));
    child.on('error', (error) => resolve(error.message));
  });
  clearTimeout(watch);
  const passed = lines.some((line) => /^ok /.test(line));
  tell({
    event: 'outcome',
    step: 'tests',
    program: file,
    as: 'root',
    status: status === 0 && !passed ? 'nothing' : status,
    story: status === 0 ? lines.filter((line) => /# SKIP/i.test(line)).join('\n') : lines.join('\n'),
    seconds: (performance.now() - start) / 1000,
  });
}
