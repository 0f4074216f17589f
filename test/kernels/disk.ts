/** Disks of test machines: sparse files with ext4, so that a session's files are what they are anywhere. */
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';

const size = 1 << 30;
const sector = 512;
/** Where the one partition of a stick begins, in sectors. */
const partitionStart = 2048;

function makeFile(path: string, bytes: number): number {
  const fd = openSync(path, 'wx');
  ftruncateSync(fd, bytes);
  return fd;
}

function makeExt4(...words: string[]): void {
  // As the oldest of the kernels can mount it, whatever this computer's mkfs thinks of as usual.
  execFileSync('mkfs.ext4', ['-q', '-F', '-O', '^metadata_csum_seed,^orphan_file', ...words], {
    env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` },
  });
}

/** A disk that machines hand on, or keep. */
export function makeDisk(path: string): void {
  closeSync(makeFile(path, size));
  makeExt4(path);
}

/** A USB stick as shops sell them, but with ext4: a partition table with one partition, which holds what is in `tree`. */
export function makeStick(path: string, label: string, tree: string, bytes: number): void {
  const fd = makeFile(path, bytes);
  const sectors = bytes / sector - partitionStart;
  // The master boot record: one entry, of type Linux, with addresses that no cylinder can have; and the signature.
  const record = Buffer.alloc(sector);
  record.set([0, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff], 446);
  record.writeUInt32LE(partitionStart, 454);
  record.writeUInt32LE(sectors, 458);
  record.writeUInt16LE(0xaa55, 510);
  writeSync(fd, record, 0, sector, 0);
  closeSync(fd);
  makeExt4(
    '-L',
    label,
    '-d',
    tree,
    '-E',
    `offset=${partitionStart * sector}`,
    path,
    `${(sectors * sector) / 1024}k`,
  );
}
