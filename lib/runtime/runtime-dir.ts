/**
 * The user's runtime directory: what lives only as long as sessions do (the registry of pods, their sockets,
 * receipts of stored images). Never on the drive, never shared with another user.
 */
import { lstatSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { PodError } from '../stream/error.ts';

/** $POD_RUNTIME_DIR, else $XDG_RUNTIME_DIR/podstream, else /run/podstream for root, else /tmp/podstream-UID. */
function runtimeBase(): string {
  const uid = process.getuid!();
  if (process.env.POD_RUNTIME_DIR) return process.env.POD_RUNTIME_DIR;
  if (process.env.XDG_RUNTIME_DIR) return join(process.env.XDG_RUNTIME_DIR, 'podstream');
  return uid === 0 ? '/run/podstream' : `/tmp/podstream-${uid}`;
}

/** A folder of the runtime directory (`pods`, `receipts`), made when missing, mode 0700, owned by the caller. */
export function runtimeDirectory(folder: 'pods' | 'receipts'): string {
  const base = runtimeBase();
  const path = join(base, folder);
  mkdirSync(path, { recursive: true, mode: 0o700 });
  for (const each of [base, path]) {
    const status = lstatSync(each);
    // In /tmp somebody else may have made the name first.
    if (!status.isDirectory() || status.uid !== process.getuid!() || (status.mode & 0o022) !== 0) {
      throw new PodError(
        'other',
        `${each} is not a private directory of this user`,
        'remove it, or set POD_RUNTIME_DIR',
      );
    }
  }
  return path;
}
