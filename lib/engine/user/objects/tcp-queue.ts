/**
 * What is under way in a TCP connection. What one end has sent lies in two queues, that of the receiver and, when that
 * one's window is full, that of the sender, which nobody without rights over the network can read. So the receiver is
 * given room for all of it, and reads as a program with a larger buffer would have: what was sent then lies with it.
 */
import { native } from '../../../../native/index.ts';
import { nap } from '../../../../native/nap.ts';
import { maxData } from '../../../stream/frame.ts';
import { SYS } from '../abi.ts';
import type { DumpContext, OpenFile, RestoreContext } from './file-object.ts';
import { canGrow, numberOption, SO, SOL, setOption, TCP_INFO } from './inet-options.ts';
import { codeOf, getOption, ioctlRead, readable } from './local-calls.ts';
import { peekOffset, setPeekOffset } from './socket-queue.ts';

const SIOCOUTQ = 0x5411;
const SIOCATMARK = 0x8905;
const TCP_WINDOW_CLAMP = 10;
const TCP_QUICKACK = 12;
/** tcpi_rto, microseconds. */
const rtoInInfo = 8;
const MSG_OOB = 1;
const MSG_PEEK = 2;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
/** A sender whose window is closed asks for a new one after 200 ms; an acknowledgement is put off for at most that. */
const patience = 1500;
/** More than the kernel needs beside the bytes, for windows are rounded. */
const spare = 128 << 10;
const lockReceive = 2;

/** Bytes sent and not acknowledged yet, with the end of the stream as one. */
export const unsentOf = (local: number): number =>
  new DataView(ioctlRead(local, SIOCOUTQ, 4).buffer).getInt32(0, true);

/**
 * What a receiver had no room for is sent again when the sender's time is up, which doubles each time. So much of it is
 * waited for, or not at all.
 */
const longestPatience = 10_000;

/** Until `sender`, one of ours, has tried again; ms. */
function patienceFor(sender: number | undefined): number {
  const told = sender === undefined ? undefined : getOption(sender, SOL.tcp, TCP_INFO);
  if (!told) return patience;
  const timeout = new DataView(told.buffer, told.byteOffset).getUint32(rtoInInfo, true) / 1000 + 300;
  return timeout > longestPatience ? patience : Math.max(patience, timeout);
}

/**
 * Let all that is on its way to a socket arrive. `unsent` tells how much that is; `sender` is ours of the other end.
 * Whether it has.
 */
export function settle(receiver: number, unsent: () => number, sender?: number): boolean {
  let rest = unsent();
  if (rest === 0) return true;
  let locked = ((numberOption(receiver, SOL.socket, SO.bufLock) ?? 0) & lockReceive) !== 0;
  const size = numberOption(receiver, SOL.socket, SO.rcvbuf)!;
  const clamp = numberOption(receiver, SOL.tcp, TCP_WINDOW_CLAMP)!;
  try {
    const end = Date.now() + patienceFor(sender);
    for (let turn = 1; Date.now() < end; nap(Math.min(turn++, 20))) {
      // An acknowledgement that is only put off.
      setOption(receiver, SOL.tcp, TCP_QUICKACK, 1);
      rest = unsent();
      if (rest === 0) return true;
      locked = widen(receiver, rest) || locked;
      rest = unsent();
      if (rest === 0) return true;
    }
    return false;
  } finally {
    if (locked) {
      restoreBuffer(receiver, size);
      if (clamp > 0) setOption(receiver, SOL.tcp, TCP_WINDOW_CLAMP, clamp);
    }
  }
}

/**
 * Room for so many more bytes. SO_RCVLOWAT enlarges a buffer that the kernel is free to choose, up to half of
 * net.ipv4.tcp_rmem's last number, and asks for no right; a look at the queue then tells the sender. (Were we killed
 * between the two calls, the program would wait for more than it asked for until the rest has come.)
 * A size that the program has set can't be given free before Linux 5.14 (SO_BUF_LOCK): then another is set, within
 * net.core.rmem_max. Whether that was so.
 */
function widen(receiver: number, more: number): boolean {
  const lock = numberOption(receiver, SOL.socket, SO.bufLock);
  if (lock !== undefined && (lock & lockReceive) !== 0)
    setOption(receiver, SOL.socket, SO.bufLock, lock & ~lockReceive);
  const wanted = Math.min(readable(receiver) + more + spare, 0x3fffffff);
  const stays = lock === undefined && !canGrow(receiver, wanted);
  if (stays) {
    restoreBuffer(receiver, 2 * wanted);
    setOption(receiver, SOL.tcp, TCP_WINDOW_CLAMP, wanted);
  } else if (lock !== undefined) {
    canGrow(receiver, wanted);
  }
  look(receiver, 1);
  return stays;
}

/** As it was, and locked again. */
function restoreBuffer(receiver: number, size: number): void {
  try {
    setOption(receiver, SOL.socket, SO.rcvbufforce, size >>> 1);
  } catch {
    setOption(receiver, SOL.socket, SO.rcvbuf, size >>> 1);
  }
}

/** MSG_PEEK of what is there; empty when there is nothing, without taking a pending error. */
function look(local: number, most: number): Uint8Array {
  if (readable(local) === 0) return new Uint8Array(0);
  const before = peekOffset(local);
  try {
    if (before >= 0) setPeekOffset(local, -1);
    return native().receiveMessage(local, most, MSG_PEEK | MSG_DONTWAIT)?.data ?? new Uint8Array(0);
  } finally {
    if (before >= 0) setPeekOffset(local, before);
  }
}

/** The whole queue of a socket, in pieces that fit into frames. */
export function peekQueue(file: OpenFile, context: DumpContext): Uint8Array[] {
  refuseUrgent(file, context);
  const total = readable(file.local);
  const data = look(file.local, total);
  if (data.length < total)
    context.notNow(file, 'an urgent byte (MSG_OOB) waits in it', 'try again when the program has read it');
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < data.length; at += maxData) pieces.push(data.subarray(at, at + maxData));
  return pieces;
}

/** Urgent data have a place in the stream that is not kept. */
function refuseUrgent(file: OpenFile, context: DumpContext): void {
  const marked = new DataView(ioctlRead(file.local, SIOCATMARK, 4).buffer).getInt32(0, true) !== 0;
  let urgent = marked;
  try {
    native().syscall(SYS.recvfrom, file.local, new Uint8Array(1), 1, MSG_OOB | MSG_PEEK | MSG_DONTWAIT, 0, 0);
    urgent = true;
  } catch (cause) {
    // EINVAL: there is none, or it stays in line; ENOTCONN: the connection is over.
    urgent ||= codeOf(cause) === 'EAGAIN';
  }
  if (urgent)
    context.notNow(file, 'an urgent byte (MSG_OOB) waits in it', 'try again when the program has read it');
}

/** Send all of it from our descriptor of one end; `receiver` is ours of the other. */
export function fillQueue(
  sender: number,
  receiver: number,
  contents: readonly { data: Uint8Array }[],
  context: RestoreContext,
): void {
  let left = contents.reduce((sum, { data }) => sum + data.length, 0);
  for (const { data } of contents) {
    let end = Date.now() + patience;
    for (let at = 0; at < data.length; ) {
      const sent = trySend(sender, data.subarray(at));
      if (sent > 0) {
        end = Date.now() + patience;
        at += sent;
        left -= sent;
        continue;
      }
      if (Date.now() > end) {
        context.refuse(
          `what waited in a TCP connection does not fit into it here: ${left} bytes are left`,
          "raise net.ipv4.tcp_rmem and net.ipv4.tcp_wmem to the old computer's values",
        );
      }
      widen(receiver, left + unsentOf(sender));
      nap(1);
    }
  }
}

/** Bytes that were taken; 0 when there is no room. */
export function trySend(sender: number, data: Uint8Array): number {
  try {
    return Number(native().syscall(SYS.sendto, sender, data, data.length, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0));
  } catch (cause) {
    if (codeOf(cause) === 'EAGAIN') return 0;
    throw cause;
  }
}
