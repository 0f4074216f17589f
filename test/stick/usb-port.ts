/** The hand that plugs the stick in and pulls it out: QEMU's QMP. */
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

interface Message {
  return?: unknown;
  error?: { desc: string };
  event?: string;
}

const limit = 300_000;

export class UsbPort {
  readonly #socket: Socket;
  readonly #waiting = new Set<(message: Message) => void>();

  private constructor(socket: Socket) {
    this.#socket = socket;
    createInterface({ input: socket }).on('line', (line) => {
      const message = JSON.parse(line) as Message;
      for (const each of [...this.#waiting]) each(message);
    });
    socket.on('error', () => undefined);
  }

  /** Of the machine that listens there. */
  static async open(path: string): Promise<UsbPort> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    const port = new UsbPort(socket);
    await port.#ask('qmp_capabilities');
    return port;
  }

  /** The first message of which `wanted` makes something. */
  #next<T>(what: string, wanted: (message: Message) => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const end = (act: () => void) => {
        this.#waiting.delete(look);
        this.#socket.off('close', closed);
        clearTimeout(watch);
        act();
      };
      const look = (message: Message) => {
        try {
          const value = wanted(message);
          if (value !== undefined) end(() => resolve(value));
        } catch (error) {
          end(() => reject(error));
        }
      };
      const closed = () => end(() => reject(new Error(`${what}: QEMU is gone`)));
      const watch = setTimeout(() => end(() => reject(new Error(`${what}: no answer of QEMU`))), limit);
      this.#waiting.add(look);
      this.#socket.on('close', closed);
    });
  }

  async #ask(execute: string, more: object = {}): Promise<void> {
    const answer = this.#next(execute, ({ return: value, error }) => {
      if (error) throw new Error(`${execute}: ${error.desc}`);
      return value;
    });
    this.#socket.write(`${JSON.stringify({ execute, arguments: more })}\n`);
    await answer;
  }

  async plug(image: string): Promise<void> {
    const file = { driver: 'file', filename: image };
    // What the guest has flushed need not be on the host's disk too.
    await this.#ask('blockdev-add', {
      'node-name': 'stick',
      driver: 'raw',
      file,
      cache: { 'no-flush': true },
    });
    await this.#ask('device_add', {
      id: 'stick',
      driver: 'usb-storage',
      bus: 'usb.0',
      drive: 'stick',
      removable: true,
    });
  }

  async unplug(): Promise<void> {
    const gone = this.#next('device_del', ({ event }) => (event === 'DEVICE_DELETED' ? true : undefined));
    await this.#ask('device_del', { id: 'stick' });
    await gone;
    await this.#ask('blockdev-del', { 'node-name': 'stick' });
  }

  close(): void {
    this.#socket.destroy();
  }
}
