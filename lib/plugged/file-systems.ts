/** File systems by UUID, their devices and where they are mounted. */
import { execFileSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Mount, readMounts } from '../runtime/mount-list.ts';

/** udev's links to the devices. */
const links = '/dev/disk/by-uuid';

/** blkid(8), for computers without udev; needs to read the devices. */
function blkid(...args: string[]): string | undefined {
  try {
    const output = execFileSync('blkid', args, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` },
    });
    return output.trim() || undefined;
  } catch {
    return undefined;
  }
}

/** UUIDs of the file systems that udev knows of; none without udev. */
export function linkedFileSystems(): string[] {
  try {
    return readdirSync(links);
  } catch {
    return [];
  }
}

/** The block device of the file system; undefined when it is not here. */
export function deviceOf(uuid: string): string | undefined {
  return linkedFileSystems().includes(uuid) ? join(links, uuid) : blkid('-U', uuid);
}

/** `major:minor` as /proc/PID/mountinfo writes it: gnu_dev_major(3). */
function deviceNumber(encoded: number): string {
  const number = BigInt(encoded);
  const major = ((number >> 8n) & 0xfffn) | ((number >> 32n) & ~0xfffn);
  const minor = (number & 0xffn) | ((number >> 12n) & ~0xffn);
  return `${major}:${minor & 0xffffffffn}`;
}

function mountOf(device: number): Mount | undefined {
  const name = deviceNumber(device);
  return readMounts('self').find((mount) => mount.device === name && mount.root === '/');
}

/** Where the whole of a device is mounted; undefined when it is not. */
export function mountedAt(device: string): string | undefined {
  return mountOf(statSync(device).rdev)?.where;
}

/** UUID and mount point of the file system a folder lies on; undefined when it is on no device that has one. */
export function fileSystemOf(folder: string): { uuid: string; at: string } | undefined {
  const { dev } = statSync(folder);
  const mount = mountOf(dev);
  if (mount === undefined) return undefined;
  const uuid =
    linkedFileSystems().find(
      (name) => statSync(join(links, name), { throwIfNoEntry: false })?.rdev === dev,
    ) ?? blkid('-o', 'value', '-s', 'UUID', sourceOf(mount.where));
  return uuid === undefined ? undefined : { uuid, at: mount.where };
}

/** The device as it was named to mount(8): findmnt(8). */
function sourceOf(at: string): string {
  try {
    return execFileSync('findmnt', ['-n', '-o', 'SOURCE', at], { encoding: 'utf8' }).trim().split('\n')[0]!;
  } catch {
    return '';
  }
}
