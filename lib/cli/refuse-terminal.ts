import { isatty } from 'node:tty';
import { PodError } from '../stream/error.ts';

/** A stream is binary: writing it to a terminal only garbles the screen. */
export function refuseTerminalOutput(fd = 1): void {
  if (!isatty(fd)) return;
  throw new PodError(
    'usage',
    'refusing to write a binary stream to the terminal',
    'send it through a pipe to the next command (| pod-store DIR) or into a file (> FILE)',
  );
}

/** A stream never comes from a keyboard: without this the command would wait for ever without a word. */
export function refuseTerminalInput(fd = 0): void {
  if (!isatty(fd)) return;
  throw new PodError(
    'usage',
    'standard input is the terminal, not a stream',
    'pipe a stream in (pod-load DIR | …) or read a file (< FILE)',
  );
}
