/**
 * Queues of unix sockets filled again: each message is sent from the other end, with what it carried. Bytes alone are
 * sent by us, through descriptors of our own; what carries a sender's identity or open files, by the builder.
 */
import { native } from '../../../../native/index.ts';
import { SYS } from '../abi.ts';
import type { RestoreContext } from './file-object.ts';
import { borrow, closeLocal, codeOf, errnoName, setSocketOption, socketOption } from './local-calls.ts';

export type Content = ReturnType<RestoreContext['contents']>[number];

export const SO = { sndbuf: 7, rcvbuf: 8, sndbufforce: 32, rcvbufforce: 33 } as const;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

/** What carries a sender's name or pid, or open files, waits until names, pids and all files exist. */
export function isLate({ meta }: Content): boolean {
  return meta.sender !== undefined || meta.credentials !== undefined || meta.rights !== undefined;
}

/** Put messages into a queue by sending them from the other end, a descriptor of the builder. */
export function fill(other: number, contents: readonly Content[], context: RestoreContext): void {
  if (contents.length === 0) return;
  const sender = borrow(context.builderPid, other);
  try {
    const before = makeRoom(sender, contents);
    for (const content of contents) {
      const { meta, data } = content;
      if (meta.credentials === undefined && meta.rights === undefined) {
        send(sender, data, meta.message === true, context);
      } else {
        sendWithControl(other, content, context);
      }
    }
    if (before !== undefined) setBuffer(sender, 'sndbuf', before);
  } finally {
    closeLocal(sender);
  }
}

/** Let a sender hold as much as was under way; its own size comes back afterwards. Bytes as SO_SNDBUF reads. */
function makeRoom(sender: number, contents: readonly Content[]): number | undefined {
  const before = socketOption(sender, SO.sndbuf);
  // Each message costs a buffer of a power of two and its head.
  const wanted = contents.reduce((sum, { data }) => sum + 2 * data.length + 4096, 0);
  if (wanted <= before) return undefined;
  setBuffer(sender, 'sndbuf', wanted);
  return before;
}

/** SO_SNDBUF or SO_RCVBUF such that it reads as `value`: the kernel doubles what it is told. */
export function setBuffer(local: number, which: 'sndbuf' | 'rcvbuf', value: number): void {
  if (socketOption(local, SO[which]) === value) return;
  const half = Math.min(value >>> 1, 0x3fffffff);
  try {
    setSocketOption(local, SO[`${which}force`], half);
  } catch (cause) {
    if (codeOf(cause) !== 'EPERM') throw cause;
    setSocketOption(local, SO[which], half);
  }
}

function send(sender: number, data: Uint8Array, whole: boolean, context: RestoreContext): void {
  for (let at = 0; whole ? at === 0 : at < data.length; ) {
    const piece = data.subarray(at);
    let sent: number;
    try {
      sent = Number(
        native().syscall(SYS.sendto, sender, piece, piece.length, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0),
      );
    } catch (cause) {
      refuseQueue(codeOf(cause) ?? 'error', context);
    }
    if (whole) return;
    at += sent;
  }
}

function refuseQueue(why: string, context: RestoreContext): never {
  context.refuse(
    `what waited in a unix socket does not fit into it here (${why})`,
    "raise net.core.wmem_max and net.unix.max_dgram_qlen to the old computer's values, or restart as root",
  );
}

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const SCM_CREDENTIALS = 2;
const EPERM = 1;

/** One message from the builder, under the pid and user it came from, with the open files it carried. */
function sendWithControl(other: number, content: Content, context: RestoreContext): void {
  const { credentials, rights = [], message } = content.meta;
  const identity = credentials?.length === 3 ? controlMessage(SCM_CREDENTIALS, credentials) : noControl;
  const files = controlMessage(
    SCM_RIGHTS,
    rights.map((id) => context.descriptor(id)),
  );
  const room = context.builder.room - identity.length - files.length - 256;
  const { data } = content;
  if (message === true && data.length > room) refuseQueue('EMSGSIZE', context);
  let known = identity;
  for (let at = 0; at === 0 || at < data.length; ) {
    const piece = data.subarray(at, at + room);
    // Files travel with the first bytes, as they did.
    const carried = at === 0 ? files : noControl;
    let sent = sendPiece(other, piece, Buffer.concat([known, carried]), context);
    if (sent === -EPERM && known.length > 0) {
      context.warn('a message that waits in a socket shows the wrong sender (SCM_CREDENTIALS)');
      known = noControl;
      sent = sendPiece(other, piece, carried, context);
    }
    if (sent < 0) refuseQueue(errnoName(-sent), context);
    if (message === true) return;
    at += sent;
  }
}

const noControl = new Uint8Array();

/** struct cmsghdr with ints behind it; nothing for none. */
function controlMessage(type: number, words: readonly number[]): Uint8Array {
  if (words.length === 0) return noControl;
  const length = 16 + 4 * words.length;
  const control = new DataView(new ArrayBuffer((length + 7) & ~7));
  control.setBigUint64(0, BigInt(length), true);
  control.setInt32(8, SOL_SOCKET, true);
  control.setInt32(12, type, true);
  words.forEach((word, index) => {
    control.setUint32(16 + 4 * index, word, true);
  });
  return new Uint8Array(control.buffer);
}

/** sendmsg(2) in the builder: bytes sent, or a negative errno. */
function sendPiece(fd: number, data: Uint8Array, control: Uint8Array, context: RestoreContext): number {
  const { builder } = context;
  builder.reset();
  const vector = new BigUint64Array([builder.put(data), BigInt(data.length)]);
  const header = new BigUint64Array(7);
  header[2] = builder.put(new Uint8Array(vector.buffer));
  header[3] = 1n;
  if (control.length > 0) {
    header[4] = builder.put(control);
    header[5] = BigInt(control.length);
  }
  const message = builder.put(new Uint8Array(header.buffer));
  return Number(builder.run([[SYS.sendmsg, fd, message, MSG_DONTWAIT | MSG_NOSIGNAL]])[0]!);
}
