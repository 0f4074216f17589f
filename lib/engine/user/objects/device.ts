/** Character devices without state of their own: null(4), full(4), random(4). */
import type { Records } from '../../../image/record.ts';
import { O } from '../abi.ts';
import type { FileObject, OpenFile } from './file-object.ts';
import { describeType, findInPod, openFound, pathInPod, seekTo } from './paths.ts';

const memoryMajor = 1n;
const stateless = new Map([
  [3n, 'null'],
  [5n, 'zero'],
  [7n, 'full'],
  [8n, 'random'],
  [9n, 'urandom'],
]);

/** Why a device stays behind, by its major number. Documentation/admin-guide/devices.txt of Linux. */
const refusals: Record<number, readonly [why: string, hint: string]> = {
  10: ['it is a device whose driver holds state for it', 'close it, or use the program without that device'],
  13: ['it is an input device of this computer', 'let the program give it back first'],
  14: ['it is a sound device of this computer', 'let the program close its sound output first'],
  29: ['it is a frame buffer of this computer', 'run the program in a terminal or window that stays outside'],
  81: ['it is a camera of this computer', 'let the program give it back first'],
  116: ['it is a sound device of this computer', 'let the program close its sound output first'],
  226: ['it is a graphics device of this computer', 'run the program without direct rendering'],
};

const major = (rdev: bigint) => ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn);
const minor = (rdev: bigint) => (rdev & 0xffn) | ((rdev >> 12n) & ~0xffn);

function known(rdev: bigint): boolean {
  return major(rdev) === memoryMajor && stateless.has(minor(rdev));
}

/** Device numbers as makedev(3) has them, for a reader. */
function describeDevice(rdev: bigint): string {
  return `${major(rdev)}:${minor(rdev)}`;
}

export const device: FileObject = {
  records: ['device'],
  coverage: `${[...stateless.values()].map((name) => `/dev/${name}`).join(', ')}; every other device is refused by name`,

  matches: (file: OpenFile) =>
    (file.stat.isCharacterDevice() || file.stat.isBlockDevice()) && (file.flags & O.path) === 0,

  dump(file, context) {
    const { rdev } = file.stat;
    if (file.stat.isBlockDevice()) {
      context.refuse(
        file,
        `it is a block device (${describeDevice(rdev)}), which belongs to this computer`,
        'let the program close it first',
      );
    }
    if (!known(rdev)) {
      const [why, hint] = refusals[Number(major(rdev))] ?? [
        `it is a device (${describeDevice(rdev)}) whose state can't be saved`,
        'let the program close it first',
      ];
      context.refuse(file, why, hint);
    }
    if ((file.flags & O.async) !== 0) {
      context.refuse(
        file,
        "it sends signals at input (O_ASYNC), which a device can't take along",
        'let the program poll it instead',
      );
    }
    const path = pathInPod(file, context);
    const position = BigInt(file.info.get('pos')?.[0] ?? 0);
    return [{ name: 'device', meta: { id: file.id, path, flags: file.flags, rdev, position } }];
  },

  restore(_name, meta, context) {
    const record = meta as Records['device'];
    if (record.block === true || !known(record.rdev)) {
      context.refuse(
        `the device ${describeDevice(record.rdev)} (${record.path}) is not one that a restart may open`,
        'the image was made by something newer: update podstream',
      );
    }
    const found = findInPod(record.path, context);
    const { stat } = found;
    if (!stat.isCharacterDevice() || stat.rdev !== record.rdev) {
      const what = stat.isCharacterDevice() ? `device ${describeDevice(stat.rdev)}` : describeType(stat.mode);
      context.refuse(
        `${record.path} should be device ${describeDevice(record.rdev)} and is ${what}`,
        `make it with mknod, or map it with pod-filter relocate`,
      );
    }
    const fd = openFound(found.fd, record.path, record.flags, context);
    seekTo(fd, record.position, record.path, context);
    context.keep(record.id, fd);
  },
};
