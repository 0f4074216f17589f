/**
 * Output of a pseudo-terminal that was stopped: who writes waits. The kernel tells nobody, but a terminal whose reader
 * has taken everything takes more, unless it is stopped.
 *
 * The stop character (ctrl-s) and tcflow(3) stop it in two ways, and each is ended by its own kind only. Which it is
 * shows when the call's kind is ended, for some microseconds in which nobody writes.
 */
import { native } from '../../../../native/index.ts';
import { nap } from '../../../../native/nap.ts';
import type { Records } from '../../../image/record.ts';
import { AT_FDCWD, O, SYS } from '../abi.ts';
import type { RestoreContext } from './file-object.ts';
import { borrow, closeLocal, POLL, pollNow, withLocal } from './local-calls.ts';

const TCXONC = 0x540a;
const TCOOFF = 0;
const TCOON = 1;
/** struct termios2: the characters lie behind four words of flags and the line discipline. */
const stopCharacter = 17 + 9;
/** How long the kernel may take to hear a character, ms. */
const patience = 1000;

function isStopped(slave: number): boolean {
  return (pollNow(slave, POLL.out) & (POLL.out | POLL.hup)) === 0;
}

/** How it was stopped, if it was; of a slave of the session whose master has nothing left to read. */
export function howStopped(slave: number): Records['pty']['stopped'] {
  if (!isStopped(slave)) return undefined;
  native().syscall(SYS.ioctl, slave, TCXONC, TCOON);
  if (isStopped(slave)) return 'character';
  native().syscall(SYS.ioctl, slave, TCXONC, TCOOFF);
  return 'call';
}

/** Stop the terminal of a master of the builder, before anybody writes to it. */
export function stopOutput(
  master: number,
  { index, termios, stopped }: Pick<Records['pty'], 'index' | 'termios' | 'stopped'>,
  context: RestoreContext,
): void {
  if (stopped === undefined) return;
  const { builder } = context;
  const path = `/dev/pts/${index}`;
  builder.reset();
  const address = builder.putString(path);
  const flags = O.rdwr | O.noctty | O.nonblock | O.cloexec;
  const slave = Number(builder.call('open', SYS.openat, AT_FDCWD, address, flags));
  const local = borrow(context.builderPid, slave);
  try {
    if (stopped === 'call') builder.run([[SYS.ioctl, slave, TCXONC, TCOOFF]]);
    else type(master, termios[stopCharacter] ?? 0, context);
    for (let waited = 0; waited < patience && !isStopped(local); waited++) nap(1);
    if (!isStopped(local)) context.warn(`the output of ${path}, which was stopped, goes on`);
  } finally {
    closeLocal(local);
    builder.run([[SYS.close, slave]]);
  }
}

function type(master: number, character: number, context: RestoreContext): void {
  withLocal(master, context, (local) => native().syscall(SYS.write, local, Uint8Array.of(character), 1));
}
