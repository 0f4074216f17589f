/**
 * What lies in /dev/shm of a pod with a root of its own. That file system is the pod's and ends with it, so its files
 * travel, whether they are open or not: POSIX shared memory and semaphores. Elsewhere /dev/shm is the computer's, and
 * its files are files like any other.
 */
import { type Dir, opendirSync } from 'node:fs';
import { bounds } from '../../image/model.ts';
import { PodError } from '../../stream/error.ts';
import type { Carriers } from './carriers.ts';
import { isGone } from './proc.ts';

const folder = '/dev/shm';

/** `pid`: a process of the pod. `loss` is told what can't go along. */
export function collectNamed(pid: number, carriers: Carriers, loss: (sentence: string) => void): void {
  const outside = `/proc/${pid}/root${folder}`;
  let entries: Dir;
  try {
    entries = opendirSync(outside);
  } catch (cause) {
    // The session took it away.
    if (isGone(cause)) return;
    throw cause;
  }
  try {
    for (let count = 0; ; count++) {
      const entry = entries.readSync();
      if (!entry) return;
      if (count === bounds.sharedMemory)
        throw new PodError('cannot-checkpoint', `${folder} of the session has more than ${count} files`);
      const path = `${folder}/${entry.name}`;
      if (entry.isFile()) carriers.ofNamed(`${outside}/${entry.name}`, path);
      // A socket is bound again by its owner.
      else if (!entry.isSocket()) loss(`${path} is no regular file and ends with the pod`);
    }
  } finally {
    entries.closeSync();
  }
}
