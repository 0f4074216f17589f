import { PodError } from '../stream/error.ts';

/** What went wrong with a drive, by errno: message (about `where`) and hint. */
const causes: Record<string, readonly [(where: string) => string, string]> = {
  ENOSPC: [
    (where) => `the drive is full: ${where}`,
    'free some room, keep fewer generations (--keep 1), or send the image through pod-filter compress',
  ],
  EDQUOT: [(where) => `the disk quota is used up: ${where}`, 'free some room or use another drive'],
  EROFS: [
    (where) => `the drive is mounted read-only: ${where}`,
    'mount it for writing; a damaged drive turns read-only by itself: look at dmesg',
  ],
  EIO: [
    (where) => `the drive fails to read or write: ${where}`,
    'was it unplugged? otherwise it may be broken: look at dmesg',
  ],
  EACCES: [(where) => `no permission: ${where}`, 'use a folder you may write to'],
  EPERM: [(where) => `not permitted: ${where}`, 'use a folder you may write to'],
  EFBIG: [(where) => `a file grew too large for the drive: ${where}`, 'use a smaller --segment-size'],
  ENOTDIR: [(where) => `not a folder: ${where}`, 'give the folder of the pod, as in /media/stick/quake'],
  ELOOP: [
    (where) => `a symbolic link is in the way: ${where}`,
    'podstream never follows links inside a pod folder: remove it',
  ],
  EEXIST: [(where) => `something is in the way: ${where}`, 'is it a broken link? remove it'],
  ENAMETOOLONG: [(where) => `the name is too long: ${where}`, 'use a shorter one'],
};

const gone = new Set(['ENOENT', 'ESTALE', 'ENODEV', 'ENXIO', 'ENOTCONN', 'ESHUTDOWN']);

/** A failed system call on the drive as a PodError `drive` (exit 13). Other PodErrors pass. */
export function driveError(cause: unknown, folder: string): PodError {
  if (cause instanceof PodError) return cause;
  const { code, syscall } = cause as NodeJS.ErrnoException;
  if (code === undefined || syscall === undefined) return PodError.from(cause);
  const known = causes[code];
  if (known) return new PodError('drive', known[0](folder), known[1], { cause });
  if (gone.has(code)) return goneError(folder, cause);
  return new PodError('drive', `the drive fails with ${code}: ${folder}`, undefined, { cause });
}

export function goneError(folder: string, cause?: unknown): PodError {
  return new PodError(
    'drive',
    `the drive is gone: ${folder}`,
    'was it unplugged, unmounted or the folder removed? the generation that was current before is untouched',
    { cause },
  );
}

/** Run system calls on the drive; what fails is a drive error about `folder`. */
export function onDrive<T>(folder: string, body: () => T): T {
  try {
    return body();
  } catch (cause) {
    throw driveError(cause, folder);
  }
}
