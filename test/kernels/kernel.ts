/** The kernels of the test machines, and what is kept of one on this computer. */
import { homedir } from 'node:os';
import { join } from 'node:path';

/** Where a kernel comes from: a suite of Debian's security archive and the meta package that names the newest. */
export interface KernelSource {
  /** What people call it: `6.1`. */
  name: string;
  suite: string;
  metaPackage: string;
  /** Debian drops its suite one day: tests go on without it, and say so. */
  mayLeave?: true;
}

export const kernelSources: readonly KernelSource[] = [
  { name: '5.10', suite: 'bullseye-security', metaPackage: 'linux-image-amd64', mayLeave: true },
  { name: '6.1', suite: 'bookworm-security', metaPackage: 'linux-image-amd64' },
  { name: '6.12', suite: 'bookworm-security', metaPackage: 'linux-image-6.12-amd64' },
];

/** A kernel on this computer: unpacked, never installed. */
export interface Kernel {
  name: string;
  /** What `uname -r` says there. */
  release: string;
  /** The ELF, which QEMU starts without decompression in the guest. */
  vmlinux: string;
  /** The folder with its modules.builtin and, below kernel/, its modules. */
  modules: string;
}

/** Where kernels are kept: `$POD_KERNELS`, or a folder of the user's cache. */
export function kernelCache(): string {
  const given = process.env['POD_KERNELS'];
  if (given) return given;
  return join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'podstream/kernels');
}
