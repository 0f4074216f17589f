/** Small real drives: file system images on loop devices, mounted for one test. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeFolder } from './commands.ts';

export type DriveType = 'ext4' | 'vfat';

export interface Drive {
  type: DriveType;
  /** How it is mounted: by the kernel, or by fusefat where the kernel has no FAT. */
  by: 'kernel' | 'fusefat';
  /** Mount point. */
  path: string;
  /** The raw image. */
  image: string;
}

interface Test {
  teardown(handler: () => void): unknown;
}

const toolEnvironment = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`, LC_ALL: 'C' };

/** Run a tool; undefined when it went well, else why not. */
export function run(command: string, ...args: string[]): string | undefined {
  const result = spawnSync(command, args, { encoding: 'utf8', env: toolEnvironment });
  return result.status === 0 ? undefined : `${command}: ${result.error?.message ?? result.stderr.trim()}`;
}

function must(command: string, ...args: string[]): void {
  const problem = run(command, ...args);
  if (problem) throw new Error(problem);
}

/** Whether the kernel itself mounts this type. */
export function kernelHas(type: DriveType): boolean {
  run('modprobe', '-q', type);
  return new RegExp(`^\\t${type}$`, 'm').test(readFileSync('/proc/filesystems', 'utf8'));
}

const isThere = (command: string) =>
  spawnSync(command, ['--help'], { env: toolEnvironment }).error === undefined;

/** Why drives of this type cannot be tested here; undefined when they can. */
export function whyNoDrive(type: DriveType): string | undefined {
  if (process.getuid!() !== 0) return 'mounting needs root';
  if (run(`mkfs.${type}`, ...(type === 'vfat' ? ['--help'] : ['-V'])) !== undefined)
    return `mkfs.${type} is missing`;
  if (run('losetup', '-f') !== undefined) return 'there are no loop devices';
  if (kernelHas(type)) return undefined;
  if (type === 'vfat' && isThere('fusefat')) return undefined;
  return `the kernel here has no ${type}${type === 'vfat' ? ', and fusefat is not installed' : ''}`;
}

/** Make a drive of `mebibytes`, unmounted and removed after the test. */
export function makeDrive(t: Test, type: DriveType, mebibytes: number): Drive {
  const folder = makeFolder(t, 'pod-drive-');
  const image = join(folder, 'image');
  const path = join(folder, 'stick');
  mkdirSync(path);
  writeFileSync(image, '');
  truncateSync(image, mebibytes << 20);
  if (type === 'vfat') must('mkfs.vfat', '-F', '32', image);
  else must('mkfs.ext4', '-q', '-m', '0', image);
  const by = kernelHas(type) ? 'kernel' : 'fusefat';
  const drive: Drive = { type, by, path, image };
  const problem = mount(drive);
  if (problem) throw new Error(problem);
  // Lazily, when the test has not done so: whatever still holds a file there must not keep the mount.
  t.teardown(() => run('umount', '-l', path));
  return drive;
}

/** Mount a drive (again). Undefined, or why not. */
export function mount({ type, by, path, image }: Drive): string | undefined {
  return by === 'kernel'
    ? run('mount', '-t', type, '-o', 'loop', image, path)
    : run('fusefat', '-o', 'rw+', image, path);
}

export function remount(drive: Drive, options: string): void {
  must('mount', '-o', `remount,${options}`, drive.path);
}

export function unmount(path: string, lazily = false): void {
  must('umount', ...(lazily ? ['-l'] : []), path);
}
