/** The mounts of a pod one by one, also those that lie below others: native/pod-init/view.c. */
import { spawn } from 'node:child_process';
import { closeSync, readSync } from 'node:fs';
import { native, nativeProgram } from '../../../../native/index.ts';
import { PodError } from '../../../stream/error.ts';
import { AF, SYS } from '../abi.ts';
import { borrow, closeLocal } from '../objects/local-calls.ts';

export interface ViewStep {
  do: 'open' | 'drop' | 'take';
  path: string;
}

const firstDescriptor = 16;
/** Arguments of a program are limited; so many are never met. */
const mostSteps = 512;

/**
 * Descriptors (O_PATH) of ours, one for each step that is not `drop`, in their order. `pid`: any process of the pod
 * that is not in a mount namespace of its own.
 */
export function viewMounts(pid: number, steps: readonly ViewStep[]): number[] {
  if (steps.length > mostSteps)
    throw new PodError('cannot-checkpoint', `the session has made more than ${mostSteps} mounts`);
  const pair = new Uint8Array(8);
  native().syscall(SYS.socketpair, AF.unix, 1 | 0o2000000 /* SOCK_STREAM, SOCK_CLOEXEC */, 0, pair);
  const view = new DataView(pair.buffer);
  const [ours, theirs] = [view.getInt32(0, true), view.getInt32(4, true)];
  try {
    const whose = process.geteuid!() === 0 ? 'root' : 'user';
    const words = steps.flatMap((step) => [step.do, step.path]);
    const child = spawn(nativeProgram('pod-init'), ['--view', String(pid), whose, ...words], {
      stdio: ['ignore', 'ignore', 'ignore', theirs],
      cwd: '/',
    });
    child.on('error', () => undefined);
    closeSync(theirs);
    const answer = readAnswer(ours);
    if (child.pid === undefined || answer !== 'ready')
      throw new PodError(
        'cannot-checkpoint',
        `the mounts of the session can't be looked at (${answer || 'pod-init does not run'})`,
        process.geteuid!() === 0 ? undefined : 'dump as root',
      );
    const count = steps.filter((step) => step.do !== 'drop').length;
    const held: number[] = [];
    try {
      for (let index = 0; index < count; index++) held.push(borrow(child.pid, firstDescriptor + index));
    } catch (cause) {
      for (const fd of held) closeLocal(fd);
      throw cause;
    }
    return held;
  } finally {
    closeSync(ours);
  }
}

/** One line. The kernel wakes us at the end of the helper too. */
function readAnswer(fd: number): string {
  const bytes = Buffer.alloc(4096);
  let length = 0;
  for (let got = -1; got !== 0 && !bytes.subarray(0, length).includes(10); length += got)
    got = readSync(fd, bytes, length, bytes.length - length, null);
  return bytes.toString('utf8', 0, length).trim();
}
