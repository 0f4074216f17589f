/** Open files that only exist once the tasks do: carried from the task that has one to the others. */
import { F, O, PIDFD_THREAD, SYS } from '../abi.ts';
import type { Remote } from '../remote.ts';

/** A descriptor of a task: pid in the pod (or tid of a thread with a table of its own), number. */
export interface Held {
  pid: number;
  fd: number;
}

/** Give a task the open file of another (pidfd_getfd(2)), in place of what it has under `numbers`. */
export function shareFile(source: Held, remote: Remote, numbers: readonly number[]): void {
  replaceDescriptors(remote, fetchFile(source, remote), numbers);
}

/** A new descriptor of a task for the open file of another. */
export function fetchFile(source: Held, remote: Remote): bigint {
  const [whole] = remote.run([[SYS.pidfd_open, source.pid, 0]]);
  const pidfd = whole! >= 0n ? whole! : remote.call('pidfd_open', SYS.pidfd_open, source.pid, PIDFD_THREAD);
  const fd = remote.call('pidfd_getfd', SYS.pidfd_getfd, pidfd, source.fd, 0);
  remote.run([[SYS.close, pidfd]]);
  return fd;
}

/** Put a descriptor at numbers in use, which keep their close-on-exec, and close it. */
export function replaceDescriptors(remote: Remote, fd: bigint, numbers: readonly number[]): void {
  for (const number of numbers) {
    const [cloexec] = remote.run([[SYS.fcntl, number, F.getfd, 0]]);
    remote.call('dup3', SYS.dup3, fd, number, cloexec === 1n ? O.cloexec : 0);
  }
  remote.run([[SYS.close, fd]]);
}
