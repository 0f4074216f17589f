/** Where this computer has udev's daemon: systemd's or eudev's. */
import { existsSync } from 'node:fs';

const places = [
  '/lib/systemd/systemd-udevd',
  '/usr/lib/systemd/systemd-udevd',
  '/sbin/udevd',
  '/lib/udev/udevd',
];

export const findUdevd = (): string | undefined => places.find(existsSync);
