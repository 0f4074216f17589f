/**
 * Row "device numbers". 2.4: 16 bits, major 8, minor 8. 2.6: 32 bits, major 12, minor 20, written down as
 * makedev(3) does. makedev keeps 8:8 numbers as they are; what changes is Unix98 terminals, which 2.4 spread
 * over the majors 136 to 143, 256 each, and 2.6 has all on 136.
 */
import type { Records } from '../record.ts';
import { notOf24 } from './cannot.ts';

const firstTerminalMajor = 136;
const lastTerminalMajor = 143;

/** makedev(3): major 12 bits and minor 20 bits in their scattered places. */
export function makeDevice(major: number, minor: number): bigint {
  const high = BigInt(major);
  const low = BigInt(minor);
  return (
    ((high & 0xfffff000n) << 32n) | ((high & 0xfffn) << 8n) | ((low & 0xffffff00n) << 12n) | (low & 0xffn)
  );
}

export function upgradeDevice(device: Records['device']): Records['device'] {
  const { rdev } = device;
  if (rdev > 0xffffn) throw notOf24(`device ${device.id}`, `the number 0x${rdev.toString(16)}`);
  const major = Number(rdev >> 8n);
  const minor = Number(rdev & 0xffn);
  const terminal = !device.block && major >= firstTerminalMajor && major <= lastTerminalMajor;
  return {
    ...device,
    rdev: terminal
      ? makeDevice(firstTerminalMajor, (major - firstTerminalMajor) * 256 + minor)
      : makeDevice(major, minor),
  };
}
