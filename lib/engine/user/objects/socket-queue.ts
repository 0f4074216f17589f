/**
 * What a unix socket has received and nobody has read: looked at by MSG_PEEK, message by message where boundaries
 * count.
 *
 * A stream shows its whole queue in one call. Anything else needs SO_PEEK_OFF, which belongs to the socket and so
 * to the session; it is put back at once. (Were we killed in between, only MSG_PEEK of the program itself would
 * see a difference.)
 */
import { native, type ReceivedMessage } from '../../../../native/index.ts';
import { maxData } from '../../../stream/frame.ts';
import { MAP, PROT, pageSize, SYS } from '../abi.ts';
import { countHidden, forgetLook, markLookedAt, refuseHidden, refuseLookedAt } from './empty-messages.ts';
import type { DumpContext, OpenFile } from './file-object.ts';
import { closeLocal, codeOf, POLL, pollNow, readable, readOption, setSocketOption } from './local-calls.ts';

export interface Message {
  data: Uint8Array;
  /** Sender by SCM_CREDENTIALS, pid as we see it. */
  credentials: [pid: number, uid: number, gid: number] | undefined;
  /** Bound name of the sender (datagrams), empty when it has none. */
  sender: Uint8Array;
  /** Open files that came with it (SCM_RIGHTS). */
  rights: OpenFile[];
}

const SOL_SOCKET = 1;
const SO_PEEK_OFF = 42;
const MSG_OOB = 1;
const MSG_PEEK = 2;
const MSG_CTRUNC = 8;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const MSG_CMSG_CLOEXEC = 0x40000000;
const peek = MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
const SCM_RIGHTS = 1;
const SCM_CREDENTIALS = 2;
const SCM_PIDFD = 4;

/** SO_PEEK_OFF; -1 is unset. */
export function peekOffset(fd: number): number {
  return readOption(fd, SOL_SOCKET, SO_PEEK_OFF, 4)?.getInt32(0, true) ?? -1;
}

export function setPeekOffset(fd: number, offset: number): void {
  setSocketOption(fd, SO_PEEK_OFF, offset);
}

/** The queue of a stream socket; pieces differ in their credentials, or open files came with their first byte. */
export function peekStream(file: OpenFile, context: DumpContext): Message[] {
  const { local } = file;
  refuseUrgent(file, context);
  const total = readable(local);
  // An empty queue is not asked: the answer could be a pending error, which asking takes away.
  if (total === 0) return [];
  const before = peekOffset(local);
  const messages: Message[] = [];
  let moved = before >= 0;
  const moveTo = (at: number) => {
    if (moved || at > 0) setPeekOffset(local, at);
    moved ||= at > 0;
  };
  try {
    for (let at = 0; at < total; ) {
      moveTo(at);
      const got = native().receiveMessage(local, total - at, peek);
      if (!got || got.data.length === 0) break;
      const message = readMessage(got, file, context);
      const { data } = message;
      moveTo(at);
      const plain = message.rights.length > 0 ? bytesBeforeLast(local, data.length) : 0;
      if (plain > 0) messages.push({ ...message, data: data.subarray(0, plain), rights: [] });
      messages.push({ ...message, data: data.subarray(plain) });
      at += data.length;
    }
  } finally {
    if (moved) setPeekOffset(local, before);
  }
  return messages.flatMap(split);
}

/**
 * A look that shows open files ends with the bytes that brought them, and may begin with others that did not: which,
 * it does not say. But a buffer too short by one byte of memory takes only what was sent before the last.
 */
function bytesBeforeLast(local: number, length: number): number {
  const { mmap, munmap } = SYS;
  const room = Math.ceil(length / pageSize) * pageSize;
  const guarded = BigInt(room + pageSize);
  const flags = MAP.private | MAP.anonymous;
  const start = native().syscall(mmap, 0, guarded, PROT.read | PROT.write, flags, -1, 0);
  try {
    const end = start + BigInt(room);
    native().syscall(SYS.mprotect, end, pageSize, 0);
    const buffer = end - BigInt(length - 1);
    return Number(native().syscall(SYS.recvfrom, local, buffer, length, peek, 0, 0));
  } catch (cause) {
    if (codeOf(cause) !== 'EFAULT') throw cause;
    return 0;
  } finally {
    native().syscall(munmap, start, guarded);
  }
}

/** What is known of a socket whose queue holds messages. */
export interface Receiver {
  /** 2 datagram, 5 seqpacket. */
  type: number;
  /** Closed for receiving. */
  shut: boolean;
  /** What its only sender is charged with; undefined when there may be others, or he is gone. */
  unread: number | undefined;
}

const seqpacket = 5;

/** The queue of a datagram or seqpacket socket. */
export function peekMessages(file: OpenFile, receiver: Receiver, context: DumpContext): Message[] {
  const { local } = file;
  const { type, shut, unread } = receiver;
  const state = pollNow(local, POLL.in);
  if ((state & POLL.in) === 0) {
    forgetLook(file);
    return [];
  }
  if ((state & POLL.err) !== 0) {
    // Seqpacket with its peer gone: without data this is all there is to say, and restart brings it back.
    if (shut && readable(local) === 0) return [];
    context.refuse(
      file,
      'an error waits in it before its messages',
      'try again when the program has read it',
    );
  }
  if (unread === undefined) {
    refuseLookedAt(file, context);
    // Until the look is over: should we be killed, the next one knows.
    markLookedAt(file, true);
  }
  // A seqpacket socket that was shut down gives end of file for ever, which looks like messages without a byte: what
  // matters ends with the last byte.
  const end = shut && type === seqpacket ? readable(local) : Number.POSITIVE_INFINITY;
  // A program that looks without an offset sees, and hides, only the first.
  const first = unread === undefined && end > 0 ? lookAtFirst(file, context) : undefined;
  const rest = peekUntil(end, file, context);
  const messages = first ? [first, ...rest] : rest;
  if (unread === undefined) {
    markLookedAt(
      file,
      messages.some(({ data }) => data.length === 0),
    );
    return messages;
  }
  const lengths = messages.map(({ data }) => data.length);
  const hidden = countHidden(file, type, unread, lengths, context);
  if (hidden === 0) return messages;
  // Its place is known only when it is the first, and none that shows itself could be taken for it.
  if (hidden > 1 || lengths[0] === 0) refuseHidden(file, context);
  return [lookAtFirst(file, context) ?? refuseHidden(file, context), ...messages];
}

function peekUntil(end: number, file: OpenFile, context: DumpContext): Message[] {
  const { local } = file;
  const before = peekOffset(local);
  const messages: Message[] = [];
  let room = 8 << 10;
  try {
    for (let at = 0; at < end; ) {
      setPeekOffset(local, at);
      const got = native().receiveMessage(local, room, peek);
      if (!got) break;
      if ((got.flags & MSG_TRUNC) !== 0) {
        closeReceived(got);
        if (room >= maxData) {
          context.refuse(
            file,
            `a message of more than ${maxData} bytes waits in it`,
            'let the program read it first',
          );
        }
        room = Math.min(maxData, room * 8);
        continue;
      }
      messages.push(readMessage(got, file, context));
      at += got.data.length;
    }
  } finally {
    setPeekOffset(local, before);
  }
  return messages;
}

/** A look without SO_PEEK_OFF shows the first message, hidden or not. Undefined when it is not one without a byte. */
function lookAtFirst(file: OpenFile, context: DumpContext): Message | undefined {
  const before = peekOffset(file.local);
  try {
    setPeekOffset(file.local, -1);
    const got = native().receiveMessage(file.local, 1, peek);
    if (!got) return undefined;
    if (got.data.length === 0 && (got.flags & MSG_TRUNC) === 0) return readMessage(got, file, context);
    closeReceived(got);
    return undefined;
  } finally {
    setPeekOffset(file.local, before);
  }
}

/** A byte sent with MSG_OOB has a place in the queue that can't be seen. */
function refuseUrgent(file: OpenFile, context: DumpContext): void {
  try {
    native().syscall(SYS.recvfrom, file.local, new Uint8Array(1), 1, MSG_OOB | peek, 0, 0);
  } catch (cause) {
    const code = codeOf(cause);
    if (code === 'EINVAL' || code === 'EAGAIN' || code === 'EOPNOTSUPP' || code === 'ENOTSUP') return;
    throw cause;
  }
  context.refuse(file, 'an urgent byte (MSG_OOB) waits in it', 'try again when the program has read it');
}

function readMessage(got: ReceivedMessage, file: OpenFile, context: DumpContext): Message {
  if ((got.flags & MSG_CTRUNC) !== 0) {
    closeReceived(got);
    context.refuse(
      file,
      'more open files are on their way through it than pod-dump may have open',
      'raise the limit of open files (ulimit -n)',
    );
  }
  const rights: OpenFile[] = [];
  let credentials: Message['credentials'];
  for (const { type, body } of controls(got.control)) {
    if (type === SCM_CREDENTIALS) {
      credentials = [body.getInt32(0, true), body.getUint32(4, true), body.getUint32(8, true)];
    } else if (type === SCM_PIDFD) {
      for (const fd of numbersIn(body)) closeLocal(fd);
    } else if (type === SCM_RIGHTS) {
      for (const fd of numbersIn(body)) rights.push(context.adopt(fd, file));
    }
  }
  return { data: got.data, credentials, sender: got.address.slice(2), rights };
}

/** Descriptors in a control message; a pidfd may be an error instead. */
function numbersIn(body: DataView): number[] {
  const numbers: number[] = [];
  for (let at = 0; at + 4 <= body.byteLength; at += 4) numbers.push(body.getInt32(at, true));
  return numbers.filter((fd) => fd >= 0);
}

/** Looking at a message with descriptors gave us copies of them: close these. Returns how many SCM_RIGHTS held. */
function closeReceived(got: ReceivedMessage): number {
  let rights = 0;
  for (const { type, body } of controls(got.control)) {
    if (type !== SCM_RIGHTS && type !== SCM_PIDFD) continue;
    const fds = numbersIn(body);
    for (const fd of fds) closeLocal(fd);
    if (type === SCM_RIGHTS) rights += fds.length;
  }
  return rights;
}

/** Control messages of SOL_SOCKET: struct cmsghdr, u64 length, int level, int type. */
function* controls(bytes: Uint8Array): Generator<{ type: number; body: DataView }> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + 16 <= bytes.length; ) {
    const length = Number(view.getBigUint64(at, true));
    if (length < 16 || at + length > bytes.length) return;
    if (view.getInt32(at + 8, true) === SOL_SOCKET) {
      const type = view.getInt32(at + 12, true);
      yield { type, body: new DataView(bytes.buffer, bytes.byteOffset + at + 16, length - 16) };
    }
    at += (length + 7) & ~7;
  }
}

/** Pieces that fit into frames. Open files go with the first. */
function split(message: Message): Message[] {
  const pieces: Message[] = [];
  for (let at = 0; at < message.data.length; at += maxData) {
    const rights = at === 0 ? message.rights : [];
    pieces.push({ ...message, data: message.data.subarray(at, at + maxData), rights });
  }
  return pieces;
}
