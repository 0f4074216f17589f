/** System calls on our own descriptors of the session's open files. */
import { getSystemErrorName } from 'node:util';
import { native } from '../../../../native/index.ts';
import { F, KCMP, SYS } from '../abi.ts';
import type { RestoreContext } from './file-object.ts';

export function control(fd: number, command: number, argument: number | bigint | Int32Array = 0): number {
  const value = argument instanceof Int32Array ? new Uint8Array(argument.buffer) : argument;
  return Number(native().syscall(SYS.fcntl, fd, command, value));
}

/** ioctl(2) with a buffer that the kernel fills. */
export function ioctlRead(fd: number, request: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  native().syscall(SYS.ioctl, fd, request, bytes);
  return bytes;
}

/** FIONREAD: bytes that can be read now. */
export function readable(fd: number): number {
  return new DataView(ioctlRead(fd, 0x541b, 4).buffer).getInt32(0, true);
}

/** Events of poll(2). */
export const POLL = { in: 1, out: 4, err: 8, hup: 16, rdhup: 0x2000 } as const;

/** poll(2) without waiting: which of `wanted` (and POLL.err, POLL.hup) hold now. */
export function pollNow(fd: number, wanted: number): number {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, fd, true);
  view.setInt16(4, wanted, true);
  native().syscall(SYS.poll, bytes, 1, 0);
  return view.getInt16(6, true);
}

/** getsockopt(2); undefined when this kernel has no such option. */
export function readOption(fd: number, level: number, option: number, length: number): DataView | undefined {
  const bytes = new Uint8Array(length);
  const size = new Uint8Array(4);
  new DataView(size.buffer).setInt32(0, length, true);
  try {
    native().syscall(SYS.getsockopt, fd, level, option, bytes, size);
  } catch (cause) {
    // EOPNOTSUPP: the kernel knows it, of other kinds of sockets (SO_PEEK_OFF of TCP before Linux 6.9).
    if (['ENOPROTOOPT', 'EOPNOTSUPP', 'ENOTSUP'].includes(codeOf(cause) ?? '')) return undefined;
    throw cause;
  }
  return new DataView(bytes.buffer);
}

const SOL_SOCKET = 1;

/** A socket option that is an int; 0 when this kernel has no such option. */
export function socketOption(fd: number, option: number): number {
  return readOption(fd, SOL_SOCKET, option, 4)?.getInt32(0, true) ?? 0;
}

const SO_GET_FILTER = 26;

/** Whether a packet filter is attached to a socket; an eBPF program can't be read at all. */
export function hasPacketFilter(fd: number): boolean {
  const instructions = new Uint8Array(4);
  try {
    native().syscall(SYS.getsockopt, fd, SOL_SOCKET, SO_GET_FILTER, null, instructions);
  } catch {
    return true;
  }
  return new DataView(instructions.buffer).getInt32(0, true) !== 0;
}

export function setSocketOption(fd: number, option: number, value: Uint8Array | number): void {
  const bytes = typeof value === 'number' ? new Uint8Array(new Int32Array([value]).buffer) : value;
  native().syscall(SYS.setsockopt, fd, SOL_SOCKET, option, bytes, bytes.length);
}

const SO_MEMINFO = 55;

/** Bytes of memory that the queue of a socket takes. */
export function queuedMemory(fd: number): number {
  return readOption(fd, SOL_SOCKET, SO_MEMINFO, 36)?.getUint32(0, true) ?? 0;
}

export function closeLocal(fd: number): void {
  native().syscall(SYS.close, fd);
}

/** Do something with a descriptor of our own. */
export function withLocal<Result>(
  fd: number,
  context: RestoreContext,
  body: (local: number) => Result,
): Result {
  const local = borrow(context.builderPid, fd);
  try {
    return body(local);
  } finally {
    closeLocal(local);
  }
}

export function pipeCapacity(fd: number): number {
  return control(fd, F.getPipeSize);
}

/** A descriptor of ours for the open file behind descriptor `fd` of a process. */
export function borrow(pid: number, fd: number): number {
  const pidfd = Number(native().syscall(SYS.pidfd_open, pid, 0));
  try {
    return Number(native().syscall(SYS.pidfd_getfd, pidfd, fd, 0));
  } finally {
    closeLocal(pidfd);
  }
}

/** Whether two descriptors are of one open file description: kcmp(2). */
export function sameFile(pid: number, fd: number, otherPid: number, otherFd: number): boolean {
  return Number(native().syscall(SYS.kcmp, pid, otherPid, KCMP.file, fd, otherFd)) === 0;
}

/** errno name of what the addon threw. */
export function codeOf(cause: unknown): string | undefined {
  return (cause as NodeJS.ErrnoException).code;
}

/** Name of a positive errno. */
export function errnoName(errno: number): string {
  return getSystemErrorName(-errno);
}

/** getsockopt(2), at most `room` bytes; undefined when this socket has no such option. */
export function getOption(local: number, level: number, option: number, room = 64): Uint8Array | undefined {
  const bytes = new Uint8Array(room);
  const size = new Uint8Array(new Int32Array([room]).buffer);
  try {
    native().syscall(SYS.getsockopt, local, level, option, bytes, size);
  } catch {
    return undefined;
  }
  return bytes.slice(0, new DataView(size.buffer).getInt32(0, true));
}
