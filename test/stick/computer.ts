/** One of the two computers: booted at once, told when to be plugged into, heard until it ends. */
import { join } from 'node:path';
import { packageRoot } from '../../native/package-root.ts';
import type { Kernel } from '../kernels/kernel.ts';
import { type Disk, type MachineEnd, runMachine } from '../kernels/machine.ts';
import type { GuestEvent, Job } from './job.ts';
import { UsbPort } from './usb-port.ts';

/** What a kernel needs for the stick. */
const modules = ['xhci_pci', 'usb_storage', 'sd_mod'];

export interface ComputerOptions {
  job: Job;
  kernel: Kernel;
  cpu: string;
  folder: string;
  disks?: readonly Disk[];
  writesTo?: string;
  hear: (event: GuestEvent) => void;
}

type Kind = GuestEvent['event'];

export class Computer {
  readonly end: Promise<MachineEnd>;
  readonly #control: string;
  readonly #events: GuestEvent[] = [];
  #ended = false;
  #wake: () => void = () => undefined;
  #port: UsbPort | undefined;

  constructor({ job, folder, hear, ...machine }: ComputerOptions) {
    this.#control = join(folder, `${job.kind}.qmp`);
    this.end = runMachine({
      ...machine,
      modules,
      folder,
      name: job.kind,
      job,
      control: this.#control,
      program: [process.execPath, join(packageRoot(), 'dist/esm/test/stick/guest/main.js')],
      onEvent: (each) => {
        const event = each as GuestEvent;
        hear(event);
        this.#events.push(event);
        this.#wake();
      },
    });
    void this.end.finally(() => {
      this.#ended = true;
      this.#port?.close();
      this.#wake();
    });
  }

  /** The next event of a kind; those before it have been heard. Throws when the computer ends without. */
  async next<K extends Kind>(kind: K): Promise<Extract<GuestEvent, { event: K }>> {
    for (;;) {
      const event = this.#events.shift();
      if (event === undefined) {
        if (this.#ended) {
          const { failure, console } = await this.end;
          throw new Error(`${failure ?? `it ended without saying "${kind}"`}\n${console.slice(-3000)}`);
        }
        await new Promise<void>((resolve) => (this.#wake = resolve));
      } else if (event.event === kind) {
        return event as Extract<GuestEvent, { event: K }>;
      } else if (event.event === 'error') {
        throw new Error(event.message);
      }
    }
  }

  async plug(image: string): Promise<void> {
    this.#port ??= await UsbPort.open(this.#control);
    await this.#port.plug(image);
  }

  async unplug(): Promise<void> {
    await this.#port!.unplug();
  }
}
