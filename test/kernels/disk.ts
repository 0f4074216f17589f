/** A disk that machines hand on: a sparse file with ext4, so that a session's files are what they are anywhere. */
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync } from 'node:fs';

const size = 1 << 30;

export function makeDisk(path: string): void {
  const fd = openSync(path, 'wx');
  ftruncateSync(fd, size);
  closeSync(fd);
  // As the oldest of the kernels can mount it, whatever this computer's mkfs thinks of as usual.
  execFileSync('mkfs.ext4', ['-q', '-O', '^metadata_csum_seed,^orphan_file', path], {
    env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` },
  });
}
