/** openat2(2): paths that can't lead out of a folder. Linux 5.6. */
import { native } from '../../../../native/index.ts';
import { O, SYS } from '../abi.ts';
import { cString } from './attributes.ts';

const resolve = {
  noXdev: 1n,
  noMagic: 2n,
  noLinks: 4n,
  beneath: 8n,
  inRoot: 16n,
} as const;

const how = {
  /** No link is followed, and no mount crossed. */
  strict: resolve.beneath | resolve.noLinks | resolve.noMagic | resolve.noXdev,
  /** No link is followed. */
  plain: resolve.beneath | resolve.noLinks | resolve.noMagic,
  /** Links are followed, as who has the folder as root sees them. */
  links: resolve.inRoot | resolve.noMagic,
} as const;

/** `path` is relative to the folder, a leading slash counts for nothing. */
export function openBeneath(folder: number, path: string, flags: number, kind: keyof typeof how): number {
  const words = BigUint64Array.of(BigInt(flags | O.cloexec), 0n, how[kind]);
  const relative = path.replace(/^\/+/, '') || '.';
  const bytes = new Uint8Array(words.buffer);
  return Number(native().syscall(SYS.openat2, folder, cString(relative), bytes, bytes.length));
}

/** Whether a path is another one, or below it. */
export function beneath(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder === '/' ? '/' : `${folder}/`);
}
