/**
 * flock(2): gone with its owner however that ends, so nothing is ever stale and a drive pulled out in the middle
 * carries no lock to the next machine.
 */
import { native } from '../../native/index.ts';

const flockNumber = 73;
const operations = { shared: 1, exclusive: 2 } as const;
const nonBlocking = 4;

/** Take a lock on an open file; false when somebody else holds it against us. */
export function tryLock(fd: number, how: keyof typeof operations): boolean {
  try {
    native().syscall(flockNumber, fd, operations[how] | nonBlocking);
    return true;
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'EAGAIN' || code === 'EWOULDBLOCK') return false;
    // A file system without locks (some network and FUSE ones): then order is up to the user.
    if (code === 'ENOSYS' || code === 'EOPNOTSUPP' || code === 'ENOLCK') return true;
    throw cause;
  }
}
