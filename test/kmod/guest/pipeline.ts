/** The README's pipeline, in a shell as there, with the module as its first part, onto a disk and back. */
import { execFileSync, spawn } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../../native/package-root.ts';
import { buildProgram, readProgram } from '../../tools/programs.ts';
import { until } from '../../tools/running-program.ts';
import { finishPlain, startPlain } from './plain-session.ts';

const program = 'pipes';
const folder = '/tmp/pod-pipeline';
const stick = '/mnt/stick';
/** ms: to make a key of a passphrase takes an emulated processor long. */
const limit = 900_000;

async function shell(script: string): Promise<void> {
  const errors = join(folder, 'errors');
  const child = spawn('/bin/bash', ['-e', '-o', 'pipefail', '-c', script], {
    // A file: the pod may keep it.
    stdio: ['ignore', 'ignore', openSync(errors, 'w')],
    cwd: folder,
    env: {
      PATH: `${join(packageRoot(), 'dist/bin')}:${process.env['PATH']}`,
      POD_RUNTIME_DIR: join(folder, 'run'),
    },
  });
  const watch = setTimeout(() => child.kill('SIGKILL'), limit);
  const status = await new Promise<number | string>((resolve) =>
    child.on('exit', (code, signal) => resolve(code ?? signal ?? 'gone')),
  );
  clearTimeout(watch);
  if (status !== 0) throw new Error(`${script}\nended with ${status}:\n${readFileSync(errors, 'utf8')}`);
}

/** `drive`: an ext4 disk. Its executable moves between dump and restart, and relocate says where to. */
export async function runPipeline(drive: string): Promise<string> {
  for (const path of [stick, join(folder, 'run'), join(folder, 'here')]) mkdirSync(path, { recursive: true });
  execFileSync('/run/busybox', ['mount', '-t', 'ext4', drive, stick]);
  const [here, there] = [join(folder, 'here'), join(folder, 'there')];
  const executable = join(here, program);
  copyFileSync(await buildProgram(readProgram(program)), executable);
  writeFileSync(join(folder, 'passphrase.txt'), 'correct horse battery staple\n');
  const session = await startPlain(program, executable);
  const { running, pid } = session;
  try {
    await shell(
      `pod-dump --engine kmod --suspend --receipt-timeout 600 ${pid} | pod-filter upgrade-2.6 |
       pod-filter relocate ${here}=${there} | pod-filter compress | pod-filter encrypt -p passphrase.txt |
       pod-store ${stick}/life`,
    );
    if (!(await until(() => running.pids().length === 0))) throw new Error('alive after pod-dump --suspend');
    if (existsSync(join(running.folder, 'result'))) throw new Error(`it says already: ${running.result}`);
    renameSync(here, there);
    execFileSync('/run/busybox', ['umount', stick]);
    execFileSync('/run/busybox', ['mount', '-t', 'ext4', drive, stick]);
    await shell(
      `pod-load ${stick}/life | pod-inspect -p passphrase.txt > inspected
       grep -q kmod inspected
       pod-load ${stick}/life | pod-restart -d --name life -p passphrase.txt`,
    );
    await finishPlain(session);
    return '';
  } finally {
    await running.remove();
    execFileSync('/run/busybox', ['umount', '-l', stick]);
  }
}
