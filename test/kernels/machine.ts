/**
 * One emulated computer: boot a kernel, run a program of the checkout in it, hear its events, know how it ended.
 * Emulation only (`-accel tcg`), so that it runs the same wherever the tests run.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { exitPort, exitStatus, makeInitramfs, type Start } from './initramfs.ts';

export interface Disk {
  path: string;
  /** What is written to it is forgotten when the machine ends. */
  forget?: boolean;
}

export interface MachineOptions extends Start {
  /** QEMU's model of the processor. qemu64 has FXSAVE only; max has all that is emulated, XSAVE too. */
  cpu?: string;
  /** MiB. */
  memory?: number;
  /** What emulates it; default: whatever is fastest. */
  acceleration?: string;
  /** More words for QEMU. */
  more?: readonly string[];
  /** More words for the kernel's command line. */
  kernelOptions?: readonly string[];
  /** Unix socket on which QEMU takes commands (QMP). There is a USB port then: drives can be plugged in. */
  control?: string;
  /** /dev/vda, /dev/vdb, … in this order. */
  disks?: readonly Disk[];
  /** Where the initramfs and the console's text go. */
  folder: string;
  /** A name for these files. */
  name: string;
  /** Each event as it comes. */
  onEvent?: (event: unknown) => void;
}

export interface MachineEnd {
  events: unknown[];
  /** Why it did not end as it should; undefined when it did. */
  failure: string | undefined;
  console: string;
  seconds: number;
}

/** Silence after which a machine counts as hung, ms: some twenty times the longest that was seen; a test says less. */
const patience = 900_000;

const commandLine = [
  'console=ttyS0',
  'panic=-1',
  'oops=panic',
  'quiet',
  'mitigations=off',
  'nokaslr',
  'tsc=reliable',
  'no_timer_check',
  'cryptomgr.notests',
  'random.trust_cpu=on',
].join(' ');

export async function runMachine(options: MachineOptions): Promise<MachineEnd> {
  const {
    folder,
    name,
    kernel,
    disks = [],
    cpu = 'qemu64',
    memory = 1536,
    kernelOptions = [],
    control,
    acceleration = 'tcg',
    more = [],
  } = options;
  const initramfs = join(folder, `${name}.cpio`);
  writeFileSync(initramfs, makeInitramfs(options));
  const consoleFile = join(folder, `${name}.console`);
  const events: unknown[] = [];
  const start = performance.now();
  const errors = join(folder, `${name}.qemu`);
  const errorFile = openSync(errors, 'w');
  const child = spawn(
    'qemu-system-x86_64',
    [
      ...['-accel', acceleration, ...more, '-cpu', cpu, '-smp', '1', '-m', String(memory)],
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-monitor', 'none', '-no-reboot'],
      ...['-chardev', `file,id=console,path=${consoleFile}`, '-serial', 'chardev:console'],
      ...['-chardev', 'stdio,id=events,signal=off', '-serial', 'chardev:events'],
      ...['-device', `isa-debug-exit,iobase=${exitPort},iosize=1`],
      ...['-fsdev', 'local,id=host,path=/,security_model=none,readonly=on,multidevs=remap'],
      ...['-device', 'virtio-9p-pci,fsdev=host,mount_tag=host'],
      ...(control ? ['-device', 'qemu-xhci,id=usb', '-qmp', `unix:${control},server=on,wait=off`] : []),
      ...disks.flatMap((disk) => [
        '-drive',
        `file=${disk.path},format=raw,if=virtio,cache=unsafe,snapshot=${disk.forget ? 'on' : 'off'}`,
      ]),
      ...['-kernel', kernel.vmlinux, '-initrd', initramfs],
      ...['-append', [commandLine, ...kernelOptions].join(' ')],
    ],
    { stdio: ['ignore', 'pipe', errorFile] },
  );
  closeSync(errorFile);
  const kill = () => void child.kill('SIGKILL');
  process.once('exit', kill);
  let hung = false;
  const hang = () => {
    hung = true;
    child.kill('SIGKILL');
  };
  let watch = setTimeout(hang, patience);
  const status = await new Promise<number | string>((resolve) => {
    const lines = createInterface({ input: child.stdout! });
    lines.on('line', (line) => {
      clearTimeout(watch);
      watch = setTimeout(hang, patience);
      const event: unknown = JSON.parse(line);
      events.push(event);
      options.onEvent?.(event);
    });
    // Both, in any order: the last line may come after the end.
    let ended: number | string | undefined;
    let closed = false;
    const check = () => {
      if (closed && ended !== undefined) resolve(ended);
    };
    lines.on('close', () => {
      closed = true;
      check();
    });
    child.on('exit', (code, signal) => {
      ended = code ?? signal ?? 'gone';
      check();
    });
    child.on('error', (error) => resolve(error.message));
  });
  clearTimeout(watch);
  process.off('exit', kill);
  const read = (path: string) => readFileSync(path, { encoding: 'utf8', flag: 'a+' });
  return {
    events,
    // A panic ends QEMU with 0, a wrong argument with 1: only the byte from the guest says that all is well.
    failure:
      status === exitStatus.done
        ? undefined
        : hung
          ? `no sign of life for ${patience / 1000} s`
          : status === exitStatus.failed
            ? 'the program in the guest failed'
            : `the machine ended before its program did (QEMU: ${status}) ${read(errors)}`.trim(),
    console: read(consoleFile),
    seconds: (performance.now() - start) / 1000,
  };
}
