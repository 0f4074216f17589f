/** The caller's own terminal: its size, and raw mode. termios(3), by plain ioctls (Node's raw mode is not raw). */
import { isatty } from 'node:tty';
import { native } from '../../native/index.ts';

const ioctlNumber = 16;
const TCGETS = 0x5401;
const TCSETSW = 0x5403;
const TIOCGWINSZ = 0x5413;
/** struct termios of the kernel: four flag words, line discipline, 19 control characters. */
const termiosSize = 36;
const vmin = 17 + 6;
const vtime = 17 + 5;

/** Rows and columns of the terminal on a descriptor; undefined when it is none, or does not know. */
export function windowSize(fd: number): { rows: number; columns: number } | undefined {
  if (!isatty(fd)) return undefined;
  const size = new Uint16Array(4);
  native().syscall(ioctlNumber, fd, TIOCGWINSZ, new Uint8Array(size.buffer));
  return size[0]! > 0 && size[1]! > 0 ? { rows: size[0]!, columns: size[1]! } : undefined;
}

/** Put a terminal into raw mode: every byte goes through as it is, both ways. Returns what undoes it. */
export function makeRaw(fd: number): () => void {
  const before = new Uint8Array(termiosSize + 8);
  native().syscall(ioctlNumber, fd, TCGETS, before);
  const raw = before.slice();
  const words = new Uint32Array(raw.buffer, 0, 4);
  words[0]! &= ~0o2753; // IGNBRK BRKINT PARMRK ISTRIP INLCR IGNCR ICRNL IXON
  words[1]! &= ~0o1; // OPOST
  words[2]! = (words[2]! & ~0o460) | 0o60; // CSIZE PARENB; CS8
  words[3]! &= ~0o100113; // ISIG ICANON ECHO ECHONL IEXTEN
  raw[vmin] = 1;
  raw[vtime] = 0;
  native().syscall(ioctlNumber, fd, TCSETSW, raw);
  let undone = false;
  return () => {
    if (undone) return;
    undone = true;
    try {
      native().syscall(ioctlNumber, fd, TCSETSW, before);
    } catch {
      // The terminal is gone: nothing to put right.
    }
  };
}
