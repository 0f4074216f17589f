/**
 * What a guest starts from: busybox, the modules, and a script that puts the host's file system below a layer of
 * memory and hands over to a program of the checkout. Everything else (node, dist/, the test programs) the guest
 * finds where the host has it.
 */
import { existsSync, readFileSync } from 'node:fs';
import { packageRoot } from '../../native/package-root.ts';
import { type Entry, writeCpio } from './cpio.ts';
import type { Kernel } from './kernel.ts';
import { collectModules } from './modules.ts';

/** For the host's file system, the overlay and the disks; and what a kernel loads by itself where it finds modules. */
const baseModules = [
  ...['virtio_pci', 'virtio_blk', '9pnet_virtio', '9p', 'overlay', 'crc32c_generic', 'ext4'],
  ...['unix_diag', 'tcp_diag', 'udp_diag', 'netlink_diag', 'af_packet_diag'],
];

/** Bytes written to QEMU's isa-debug-exit; it ends with twice the byte plus one, so never with 0 or 1. */
export const exitByte = { done: 16, failed: 17 } as const;
export const exitStatus = { done: exitByte.done * 2 + 1, failed: exitByte.failed * 2 + 1 } as const;

export const exitPort = 0xf4;
/** Where the guest's program finds its job. */
export const jobPath = '/run/pod-job.json';
/** The line on which a guest tells its events; the console is for the kernel and whoever else speaks. */
export const eventLine = '/dev/ttyS1';

const octal = (byte: number) => `\\${byte.toString(8).padStart(3, '0')}`;

/** First process of the guest, on the initramfs. The checkout may lie in one of the folders that it makes its own. */
const init = (checkout: string, writesTo: string | undefined) => `#!/bin/busybox sh
export PATH=/bin
busybox mkdir -p /proc /sys /dev /lower /rw /newroot
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
for module in /modules/*; do busybox insmod "$module" || echo "init: cannot load $module"; done
busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose host /lower || exec busybox poweroff -f
busybox mount ${writesTo ? `-t ext4 ${writesTo}` : '-t tmpfs -o size=75% rw'} /rw || exec busybox poweroff -f
busybox mkdir /rw/upper /rw/work
busybox mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work root /newroot || exec busybox poweroff -f
for name in proc sys dev; do busybox mount --move /$name /newroot/$name; done
busybox mkdir /rw/checkout
busybox mount --bind '/newroot${checkout}' /rw/checkout
for name in run dev/shm ${writesTo ? '' : 'tmp var/tmp'}; do
  busybox mkdir -p /newroot/$name
  busybox mount -t tmpfs -o mode=1777 tmpfs /newroot/$name
done
for name in ${writesTo ? 'tmp var/tmp' : ''}; do
  busybox mkdir -p /rw/own/$name /newroot/$name
  busybox chmod 1777 /rw/own/$name
  busybox mount --bind /rw/own/$name /newroot/$name
done
busybox mkdir -p '/newroot${checkout}'
busybox mount --bind /rw/checkout '/newroot${checkout}'
busybox mount -t cgroup2 cgroup2 /newroot/sys/fs/cgroup
busybox mkdir /newroot/sys/fs/cgroup/login
busybox mkdir -p /newroot/dev/pts
busybox mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /newroot/dev/pts
busybox ln -sf /proc/self/fd /newroot/dev/fd
busybox cp /job.json /newroot${jobPath}
busybox cp /first.sh /bin/busybox /newroot/run
exec busybox switch_root /newroot /run/busybox sh /run/first.sh
`;

/** The same process on the host's file system: runs the program, and ends the machine with what became of it. */
const first = (
  program: readonly string[],
) => `export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 POD_TEST_PATIENCE=300000
echo $$ > /sys/fs/cgroup/login/cgroup.procs
/run/busybox ifconfig lo 127.0.0.1 up
/run/busybox hostname pod-guest
/run/busybox stty -F ${eventLine} raw -echo
${program.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ')}
status=$?
/run/busybox sync
if [ $status = 0 ]; then byte='${octal(exitByte.done)}'; else byte='${octal(exitByte.failed)}'; echo "first: the program ended with $status"; fi
printf "$byte" | /run/busybox dd of=/dev/port bs=1 seek=${exitPort} count=1
/run/busybox poweroff -f
`;

function findBusybox(): string {
  const path = ['/bin/busybox', '/usr/bin/busybox'].find(existsSync);
  if (!path) throw new Error('busybox is not here: install busybox-static');
  // A program that names a loader cannot start where there is no loader.
  if (readFileSync(path).subarray(0, 4096).includes('/ld-linux'))
    throw new Error(`${path} is linked dynamically: install busybox-static`);
  return path;
}

export interface Start {
  kernel: Kernel;
  /** More modules, by name. */
  modules?: readonly string[];
  /** A disk, /dev/vda say, on which all lies that the machine writes, /run and /dev/shm apart; default: in memory. */
  writesTo?: string;
  /** What runs in the guest, as words. */
  program: readonly string[];
  /** What the program is to do: JSON. */
  job: unknown;
}

export function makeInitramfs({ kernel, modules = [], writesTo, program, job }: Start): Buffer {
  const file = (path: string, bytes: Buffer | string): Entry => ({
    path,
    mode: 0o100755,
    bytes: Buffer.from(bytes),
  });
  return writeCpio([
    ...['bin', 'modules'].map((path) => ({ path, mode: 0o040755 })),
    file('init', init(packageRoot().replaceAll("'", `'\\''`), writesTo)),
    file('first.sh', first(program)),
    file('job.json', JSON.stringify(job)),
    file('bin/busybox', readFileSync(findBusybox())),
    ...collectModules(kernel.modules, [...baseModules, ...modules]).map(({ name, bytes }, index) =>
      file(`modules/${String(index).padStart(2, '0')}-${name}.ko`, bytes),
    ),
  ]);
}
