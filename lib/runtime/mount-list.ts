/**
 * Mounts of a namespace, as far as a session can tell them apart: proc_pid_mountinfo(5). The pod's are written into
 * the registry when it is made, so that a dump knows what the session has mounted and unmounted since.
 */
import { readFileSync } from 'node:fs';

/** A key for each mount: file system, the part of it that is seen, where, and whether it can be written. */
export function listMounts(pid: number | 'self'): string[] {
  return readFileSync(`/proc/${pid}/mountinfo`, 'utf8')
    .split('\n')
    .flatMap((line) => {
      const [, , device, root, where, options] = line.split(' ');
      if (!where) return [];
      return [`${device} ${root} ${where} ${options!.split(',').includes('ro') ? 'ro' : 'rw'}`];
    });
}

/** Where a mount is, for people. */
export function mountPoint(key: string): string {
  return key.split(' ')[2]!.replace(/\\(\d{3})/g, (_, code) => String.fromCharCode(Number.parseInt(code, 8)));
}
