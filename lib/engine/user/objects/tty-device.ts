/** What terminals of all kinds share: their numbers, settings and size. ioctl_tty(2), pty(7). */
import { SYS } from '../abi.ts';
import type { DumpContext, OpenFile, RestoreContext } from './file-object.ts';
import { codeOf, ioctlRead } from './local-calls.ts';

const TCGETS2 = 0x802c542a;
const TCSETS2 = 0x402c542b;
const TIOCGWINSZ = 0x5413;
const TIOCSWINSZ = 0x5414;
const TIOCGDEV = 0x80045432;
const TIOCGLCKTRMIOS = 0x5456;
const termiosLength = 44;
/** struct termios. */
const locksLength = 36;

/** Major number of the slaves of pseudo-terminals; the minor one is the N of /dev/pts/N. */
export const ptsMajor = 136;

export function deviceNumbers(rdev: bigint): { major: number; minor: number } {
  return { major: Number((rdev >> 8n) & 0xfffn), minor: Number((rdev & 0xffn) | ((rdev >> 12n) & ~0xffn)) };
}

/** The device behind a descriptor, also behind /dev/tty, as /proc/PID/stat's tty_nr has it. */
export function deviceBehind(fd: number): number {
  return new DataView(ioctlRead(fd, TIOCGDEV, 4).buffer).getInt32(0, true);
}

/** The same number for the slave /dev/pts/`index`. */
export function slaveDevice(index: number): number {
  return (index & 0xff) | (ptsMajor << 8) | ((index & ~0xff) << 12);
}

/** Number in the image of a device (as deviceBehind gives it): the same device, the same number. */
export function ttyNumber(device: number, context: DumpContext): number {
  const numbers = context.once('terminals', () => new Map<number, number>());
  const known = numbers.get(device);
  const tty = known ?? numbers.size;
  numbers.set(device, tty);
  return tty;
}

export interface TtySettings {
  termios?: Uint8Array;
  rows?: number;
  columns?: number;
}

/** Settings and size; a master tells those of its slave. Refuses a terminal that was hung up. */
export function readSettings(file: OpenFile, context: DumpContext): Required<TtySettings> {
  try {
    const termios = ioctlRead(file.local, TCGETS2, termiosLength);
    const size = new DataView(ioctlRead(file.local, TIOCGWINSZ, 8).buffer);
    sayLocks(file, context);
    return { termios, rows: size.getUint16(0, true), columns: size.getUint16(2, true) };
  } catch (cause) {
    if (codeOf(cause) !== 'EIO') throw cause;
    return context.refuse(file, 'its terminal was closed', 'the program would be ended by its next read');
  }
}

/** Settings that a program holds fast: to set these again takes rights over the whole computer. */
function sayLocks(file: OpenFile, context: DumpContext): void {
  const device = deviceBehind(file.local);
  const locked = ioctlRead(file.local, TIOCGLCKTRMIOS, locksLength).some((byte) => byte !== 0);
  if (locked)
    context.once(`locks of terminal ${device}`, () =>
      context.loss(`the locks on settings of a terminal (TIOCSLCKTRMIOS, ${file.link})`),
    );
}

/** Give a terminal of the builder its settings and size. */
export function applySettings(fd: number | bigint, settings: TtySettings, context: RestoreContext): void {
  const { builder } = context;
  const { termios, rows, columns } = settings;
  builder.reset();
  if (termios?.length === termiosLength)
    builder.call('TCSETS2', SYS.ioctl, fd, TCSETS2, builder.put(termios));
  if (rows && columns) {
    const size = builder.put(new Uint8Array(new Uint16Array([rows, columns, 0, 0]).buffer));
    builder.call('TIOCSWINSZ', SYS.ioctl, fd, TIOCSWINSZ, size);
  }
}
