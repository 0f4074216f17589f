/**
 * How fast /dev/pod gives memory, against process_vm_readv of the same memory. In a machine that counts instructions
 * and takes them for time: what else the computer does changes nothing.
 */

import { eventLine } from '../kernels/initramfs.ts';
import { runMachine } from '../kernels/machine.ts';
import { readerPath } from './build-module.ts';
import { type Built, moduleHelpers } from './machines.ts';

const mebibytes = 64;

interface Speed {
  event: 'speed';
  /** `shared`: of it the module asks each page whether it is zero. */
  memory: 'private' | 'shared';
  bytes: number;
  /** Seconds: process_vm_readv, read(/dev/pod), POD_IOC_DUMP. */
  direct: number;
  read: number;
  stop: number;
}

/** As text. Throws when it could not be measured. */
export async function measureSpeed({ kernel, module }: Built, cpu: string, folder: string): Promise<string> {
  const users = '/sys/module/crc32_pclmul/refcnt';
  const script = `/run/busybox insmod '${module}' && { [ -e ${users} ] && echo "crc32_pclmul: $(cat ${users})"; '${readerPath()}' speed ${mebibytes} > ${eventLine}; }`;
  const end = await runMachine({
    kernel,
    program: ['/run/busybox', 'sh', '-c', script],
    modules: moduleHelpers,
    job: {},
    cpu,
    acceleration: 'tcg,thread=single',
    more: ['-icount', 'shift=1,sleep=off'],
    folder,
    name: `speed-${kernel.name}`,
  });
  const found = end.events as Speed[];
  if (end.failure || found.length !== 2)
    throw new Error(`${end.failure ?? `${found.length} of 2 measurements`}\n${end.console.slice(-2000)}`);
  const crc = /crc32_pclmul: [1-9]/.test(end.console) ? 'CRC by the processor' : 'CRC by tables';
  return [
    `Memory by /dev/pod against process_vm_readv, Linux ${kernel.release}, ${mebibytes} MiB, ${crc}, instructions for time:`,
    ...found.map(
      ({ memory, direct, read, stop }) =>
        `${memory}: ${(direct / read).toFixed(2)} of its speed (${(direct * 1000).toFixed(1)} ms, ${(read * 1000).toFixed(1)} ms; stopping ${(stop * 1000).toFixed(1)} ms)`,
    ),
  ].join('\n');
}
