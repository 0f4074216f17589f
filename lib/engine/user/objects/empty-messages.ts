/**
 * Messages without a byte in the queue of a datagram or seqpacket socket. A look at one (MSG_PEEK with SO_PEEK_OFF)
 * makes it invisible to every later look, and nothing makes it visible again; yet the program will receive it. So what
 * was seen is compared with the memory that the sender is charged for (SIOCOUTQ). Where the sender is not known, a
 * mark stays in the socket, in an option without meaning for unix sockets, as long as a look may have hidden something.
 */
import { native } from '../../../../native/index.ts';
import { AF, O, SYS } from '../abi.ts';
import type { DumpContext, OpenFile } from './file-object.ts';
import { closeLocal, codeOf, ioctlRead, setSocketOption, socketOption } from './local-calls.ts';

const SIOCOUTQ = 0x5411;
const SO_SNDBUF = 7;
const SO_SNDBUFFORCE = 32;
const SO_INCOMING_CPU = 49;
const MSG_DONTWAIT = 0x40;
const looked = 0x706f64;

/** What the kernel charges the sender of a message with, by type and length: tried out, once each. */
const charges = new Map<string, number | undefined>();

function chargeOf(type: number, length: number): number | undefined {
  const key = `${type} ${length}`;
  if (!charges.has(key)) charges.set(key, tryOut(type, length));
  return charges.get(key);
}

/** undefined when this user can't send so much at once. */
function tryOut(type: number, length: number): number | undefined {
  const pair = new Int32Array(2);
  native().syscall(SYS.socketpair, AF.unix, type | O.cloexec, 0, new Uint8Array(pair.buffer));
  const [sender, receiver] = pair as unknown as [number, number];
  try {
    enlarge(sender, length);
    native().syscall(SYS.sendto, sender, new Uint8Array(length), length, MSG_DONTWAIT, 0, 0);
    return new DataView(ioctlRead(sender, SIOCOUTQ, 4).buffer).getInt32(0, true);
  } catch (cause) {
    if (codeOf(cause) !== 'EMSGSIZE' && codeOf(cause) !== 'EAGAIN') throw cause;
    return undefined;
  } finally {
    closeLocal(sender);
    closeLocal(receiver);
  }
}

function enlarge(sender: number, length: number): void {
  if (socketOption(sender, SO_SNDBUF) > 2 * length + 4096) return;
  try {
    setSocketOption(sender, SO_SNDBUFFORCE, length + 4096);
  } catch (cause) {
    if (codeOf(cause) !== 'EPERM') throw cause;
    setSocketOption(sender, SO_SNDBUF, length + 4096);
  }
}

/**
 * How many messages without a byte are in the queue beside those that were seen. `unread`: what their only sender is
 * charged with.
 */
export function countHidden(
  file: OpenFile,
  type: number,
  unread: number,
  lengths: readonly number[],
  context: DumpContext,
): number {
  const seen = lengths.map((length) => chargeOf(type, length));
  const expected = seen.reduce<number>((sum, charge) => sum + (charge ?? 0), 0);
  // Of what can't be tried out nothing can be said.
  if (seen.includes(undefined)) return refuseHidden(file, context);
  const empty = chargeOf(type, 0)!;
  const rest = unread - expected;
  if (rest < 0 || rest % empty !== 0) refuseHidden(file, context);
  return rest / empty;
}

/** Before a queue from unknown senders is looked at: refuse it when an earlier look has hidden something in it. */
export function refuseLookedAt(file: OpenFile, context: DumpContext): void {
  if (socketOption(file.local, SO_INCOMING_CPU) === looked) refuseHidden(file, context);
}

/** Whether a look may have hidden a message of this socket. */
export function markLookedAt(file: OpenFile, hidden: boolean): void {
  setSocketOption(file.local, SO_INCOMING_CPU, hidden ? looked : -1);
}

/** Nothing is in the queue any more. */
export function forgetLook(file: OpenFile): void {
  if (socketOption(file.local, SO_INCOMING_CPU) === looked) markLookedAt(file, false);
}

export function refuseHidden(file: OpenFile, context: DumpContext): never {
  return context.notNow(
    file,
    'a message without a byte waits in it, which an earlier look (a dump, or MSG_PEEK) has hidden',
    'try again when the program has read it',
  );
}
