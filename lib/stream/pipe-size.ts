import { native } from '../../native/index.ts';

const fcntl = 72;
const F_SETPIPE_SZ = 1031;

/**
 * Give the pipe behind a descriptor the most an ordinary user may (fcntl(2), F_SETPIPE_SZ, 1 MiB), so that a stage
 * and its neighbour take turns less often. What is not a pipe, or may not grow, stays as it is.
 */
export function widenPipe(fd: number): void {
  try {
    native().syscall(fcntl, fd, F_SETPIPE_SZ, 1 << 20);
  } catch {
    // Only speed is lost.
  }
}
