/** System calls on our own descriptors of the session's open files. */
import { native } from '../../../../native/index.ts';
import { F, SYS } from '../abi.ts';

export function control(fd: number, command: number, argument: number | bigint = 0): number {
  return Number(native().syscall(SYS.fcntl, fd, command, argument));
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

export function closeLocal(fd: number): void {
  native().syscall(SYS.close, fd);
}

export function pipeCapacity(fd: number): number {
  return control(fd, F.getPipeSize);
}
