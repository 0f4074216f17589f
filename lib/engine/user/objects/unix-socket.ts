/**
 * unix(7) sockets with all their partners in the session.
 *
 * A connection is made again in the builder as a pair, each queue filled through the other end; when one end came
 * out of accept(2), through a listener of the same name that lives for a moment, so that both ends keep their
 * names. What other sockets find by name (bind, listen, datagram destinations) comes last, before the tasks run:
 * until then nobody outside sees the session.
 *
 * Open files on their way (SCM_RIGHTS) stay in their place between the bytes, those of sockets that are on their way
 * themselves too; a listening socket keeps the connections that wait in it, as long as nothing was sent through them.
 */
import { type BigIntStats, lstatSync, readlinkSync } from 'node:fs';
import type { Records } from '../../../image/record.ts';
import { AF, O } from '../abi.ts';
import type { DumpContext, FileObject, OpenFile, OutRecord } from './file-object.ts';
import { hasPacketFilter, pollNow, readOption, socketOption } from './local-calls.ts';
import { armOwner, readOwner } from './owner.ts';
import { belowRoot } from './paths.ts';
import { type DiagSocket, fileOf, unixSockets } from './socket-diag.ts';
import { changedOptions } from './socket-options.ts';
import { type Message, peekMessages, peekOffset, peekStream } from './socket-queue.ts';
import { findListener, readBacklog } from './unix-backlog.ts';
import { finishSockets, restoreSocket, unixOptions } from './unix-rebuild.ts';

const SO = {
  type: 3,
  domain: 39,
  sndbuf: 7,
  rcvbuf: 8,
  passcred: 16,
  peercred: 17,
  reuseaddr: 2,
  passpidfd: 76,
  passrights: 83,
} as const;
const SO_RCVTIMEO = 20;
const SO_SNDTIMEO = 21;
const SOL_SOCKET = 1;
const POLLERR = 8;
const shutBoth = 3;
const typeNames: Record<number, Records['unix-socket']['type']> = { 1: 'stream', 2: 'dgram', 5: 'seqpacket' };

/** Who is at the other end, for a message. */
function describeName(name: Uint8Array | undefined): string | undefined {
  if (!name || name.length === 0) return undefined;
  const text = Buffer.from(name).toString('utf8').replace(/\0+$/, '');
  return text.startsWith('\0') ? `@${text.slice(1)}` : text;
}

/** What can be done about some well-known partners. */
function hintFor(name: string | undefined): string {
  if (name?.includes('X11-unix'))
    return 'X programs need their display: run them in a pod with a display of its own';
  if (name?.includes('wayland')) return 'run the program without the display of this computer';
  if (name?.includes('bus'))
    return 'run the program without the message bus (unset DBUS_SESSION_BUS_ADDRESS)';
  if (name === '/dev/log' || name?.includes('journal'))
    return 'let the program log to a file or to its standard error';
  return 'let the program disconnect first, or run its partner in the same session';
}

function readCommon(file: OpenFile, context: DumpContext): Partial<Records['unix-socket']> {
  const { local } = file;
  if (hasPacketFilter(local))
    context.refuse(file, 'a packet filter (BPF) is attached to it', 'run the program without it');
  const timeout = (option: number) => {
    const view = readOption(local, SOL_SOCKET, option, 16);
    return view ? view.getBigInt64(0, true) * 1_000_000n + view.getBigInt64(8, true) : 0n;
  };
  const receiveTimeoutUs = timeout(SO_RCVTIMEO);
  const sendTimeoutUs = timeout(SO_SNDTIMEO);
  const offset = peekOffset(local);
  const kind = { domain: AF.unix, type: socketOption(local, SO.type), protocol: 0 };
  const options = changedOptions(local, kind, unixOptions);
  return {
    ...(options.length > 0 ? { options } : {}),
    sendBuffer: socketOption(local, SO.sndbuf),
    receiveBuffer: socketOption(local, SO.rcvbuf),
    ...(socketOption(local, SO.passcred) ? { passCredentials: true } : {}),
    ...(socketOption(local, SO.passpidfd) ? { passPidfd: true } : {}),
    ...(readOption(local, SOL_SOCKET, SO.passrights, 4)?.getInt32(0, true) === 0
      ? { refuseRights: true }
      : {}),
    ...(socketOption(local, SO.reuseaddr) ? { reuseAddress: true } : {}),
    ...(receiveTimeoutUs ? { receiveTimeoutUs } : {}),
    ...(sendTimeoutUs ? { sendTimeoutUs } : {}),
    ...(offset >= 0 ? { peekOffset: offset } : {}),
  };
}

/** SO_PEERCRED with the session's pids. */
function readPeerCredentials(file: OpenFile, context: DumpContext): { peerCredentials?: number[] } {
  const view = readOption(file.local, SOL_SOCKET, SO.peercred, 12);
  const pid = view?.getInt32(0, true) ?? 0;
  if (!view || pid === 0) return {};
  return {
    peerCredentials: [context.innerPid(pid), view.getInt32(4, true), view.getInt32(8, true)],
  };
}

/** The bound name: an abstract one whole, a path with what its socket file looks like. */
function readName(file: OpenFile, socket: DiagSocket, context: DumpContext): Partial<Records['unix-socket']> {
  const { name } = socket;
  if (!name || name.length === 0) return {};
  if (name[0] === 0) return { address: name };
  const address = trimPath(name);
  const path = Buffer.from(address).toString('utf8');
  const place = findNode(file, path, socket, context);
  if (!place) return { address, unlinked: true, ...folderOf(path, readFolder(file.pid)) };
  const { folder, stat } = place;
  return {
    address,
    fileMode: Number(stat.mode),
    fileUid: Number(stat.uid),
    fileGid: Number(stat.gid),
    ...folderOf(path, folder),
  };
}

/** Where the socket file lies; undefined when it is gone, as a server that ends cleanly leaves it. */
function findNode(
  file: OpenFile,
  path: string,
  socket: DiagSocket,
  context: DumpContext,
): { folder: string; stat: BigIntStats } | undefined {
  // A relative name belongs to the folder somebody was in at the time, and most likely still is.
  const pids = [file.pid, ...context.files.map((each) => each.pid)];
  const folders = path.startsWith('/') ? [''] : [...new Set(pids.map(readFolder))];
  for (const folder of folders) {
    try {
      const stat = lstatSync(`/proc/${file.pid}/root${folder}/${path}`, { bigint: true });
      if (socket.node && stat.ino === BigInt(socket.node.inode)) return { folder, stat };
    } catch {
      // Not there.
    }
  }
  return undefined;
}

/** Working directory of a process, in its own root. */
function readFolder(pid: number): string {
  return belowRoot(pid, readlinkSync(`/proc/${pid}/cwd`));
}

const folderOf = (path: string, folder: string) => (path.startsWith('/') ? {} : { folder });

/** A path comes with its closing NUL. */
function trimPath(name: Uint8Array): Uint8Array {
  const end = name[0] === 0 ? -1 : name.indexOf(0);
  return end < 0 ? name : name.slice(0, end);
}

function findSocket(file: OpenFile, context: DumpContext): DiagSocket {
  const socket = unixSockets(file, context).get(Number(file.stat.ino));
  return socket ?? context.refuse(file, 'the kernel does not list it', 'try again');
}

/** State and partner. */
function readState(
  file: OpenFile,
  socket: DiagSocket,
  context: DumpContext,
): Partial<Records['unix-socket']> {
  if (socket.listening) {
    return { state: 'listening', backlog: socket.backlog, ...readBacklog(file, socket, context) };
  }
  if (socket.peer === undefined) return { state: 'unconnected' };
  const dgram = typeNames[socket.type] === 'dgram';
  if (socket.peer === 0) {
    if (!dgram && socket.shutdown !== shutBoth)
      return { state: 'connected', awaits: findListener(file, socket, context).id };
    return { state: 'pair', peerClosed: true, ...readReset(file) };
  }
  const partner = fileOf(socket.peer, context);
  const other = unixSockets(file, context).get(socket.peer);
  if (!partner || !other) {
    const name = describeName(other?.name) ?? describeName(socket.name);
    return context.refuse(
      file,
      `its other end${name === undefined ? '' : ` (${name})`} is held by a process outside the session`,
      hintFor(name),
    );
  }
  if (other.peer === socket.inode) {
    const accepted = dgram ? {} : readAccepted(file, socket, other, context);
    return { state: Object.keys(accepted).length > 0 ? 'connected' : 'pair', peer: partner.id, ...accepted };
  }
  if (!other.name?.length) {
    context.refuse(file, 'it sends to a socket that has no name', 'let the program connect both ways');
  }
  return { state: 'connected', peer: partner.id };
}

/** Which end of a connection came out of accept(2): the one that bears the name of the listener. */
function readAccepted(
  file: OpenFile,
  socket: DiagSocket,
  other: DiagSocket,
  context: DumpContext,
): Partial<Records['unix-socket']> {
  const mine = trimPath(socket.name ?? new Uint8Array());
  const theirs = trimPath(other.name ?? new Uint8Array());
  if (mine.length === 0 && theirs.length === 0) return {};
  if (mine.length > 0 && theirs.length > 0) {
    const names = [...unixSockets(file, context).values()]
      .filter((each) => each.listening && each.name)
      .map((each) => Buffer.from(trimPath(each.name!)).toString('latin1'));
    const isListener = (name: Uint8Array) => names.includes(Buffer.from(name).toString('latin1'));
    if (isListener(mine) === isListener(theirs)) {
      context.refuse(
        file,
        `both ends of its connection have names (${describeName(mine)}, ${describeName(theirs)}) and it can't be told which one listened`,
        'keep the listening socket open',
      );
    }
    return isListener(mine) ? { accepted: true } : { peerAddress: theirs, ...folderOfPeer(file, theirs) };
  }
  return mine.length > 0 ? { accepted: true } : { peerAddress: theirs, ...folderOfPeer(file, theirs) };
}

/** For a relative name of the listener any folder does: the name is only borrowed for a moment. */
function folderOfPeer(file: OpenFile, name: Uint8Array): { folder?: string } {
  return name[0] === 0 || name[0] === 0x2f ? {} : { folder: readFolder(file.pid) };
}

/** The peer closed with unread data: the next call fails with ECONNRESET, which asking for would take away. */
function readReset(file: OpenFile): { resetPending?: boolean } {
  return (pollNow(file.local, 0) & POLLERR) !== 0 ? { resetPending: true } : {};
}

function contentRecord(
  id: number,
  message: Message,
  whole: boolean,
  sender: number | undefined,
  context: DumpContext,
): OutRecord {
  const { credentials } = message;
  return {
    name: 'content',
    meta: {
      file: id,
      ...(whole ? { message: true } : {}),
      ...(credentials
        ? { credentials: [context.innerPid(credentials[0]), credentials[1], credentials[2]] }
        : {}),
      ...(sender === undefined ? {} : { sender }),
      ...(message.rights.length > 0 ? { rights: message.rights.map(({ id }) => id) } : {}),
    },
    data: message.data,
  };
}

/** The open file of the socket that a queued datagram came from, when it has a name that can be answered. */
function findSender(file: OpenFile, message: Message, context: DumpContext): number | undefined {
  if (message.sender.length === 0) return undefined;
  const wanted = Buffer.from(trimPath(message.sender)).toString('latin1');
  for (const socket of unixSockets(file, context).values()) {
    if (!socket.name || Buffer.from(trimPath(socket.name)).toString('latin1') !== wanted) continue;
    const sender = fileOf(socket.inode, context);
    if (sender) return sender.id;
  }
  return context.refuse(
    file,
    `a message waits in it from ${describeName(message.sender)}, which is outside the session or closed`,
    'try again when the program has read it',
  );
}

/** What the only socket that can send to this one is charged with for messages that nobody has read. */
function readUnread(file: OpenFile, socket: DiagSocket, context: DumpContext): number | undefined {
  const other = unixSockets(file, context).get(socket.peer ?? 0);
  if (other?.peer !== socket.inode) return undefined;
  return typeNames[socket.type] === 'dgram' && socket.name?.length ? undefined : other.unread;
}

/** What waits in it: looked at once, because looking is not without traces (socket-queue.ts). */
function readQueue(file: OpenFile, context: DumpContext): Message[] {
  return context.once(`queue of socket ${file.id}`, () => {
    const socket = findSocket(file, context);
    if (socket.listening) return [];
    if (typeNames[socket.type] !== 'stream') {
      const shut = (socket.shutdown & 1) !== 0;
      return peekMessages(
        file,
        { type: socket.type, shut, unread: readUnread(file, socket, context) },
        context,
      );
    }
    return socket.peer === undefined ? [] : peekStream(file, context);
  });
}

export const unixSocket: FileObject = {
  records: ['unix-socket'],
  coverage:
    "stream, datagram and seqpacket sockets with both ends inside: names, queued data with message boundaries, credentials and the open files that travel with them (SCM_RIGHTS, nested too), half-closed and closed ends, buffer sizes, time-outs and other options; listening ones with the connections that wait to be accepted, as long as nothing was sent through these. Refused: a partner outside the session, urgent data, packet filters, a message without a byte that an earlier dump of the running session (or MSG_PEEK) has hidden and whose place nobody can tell. SO_PEERCRED shows the pod's first process afterwards",

  matches: (file) =>
    file.stat.isSocket() && (file.flags & O.path) === 0 && socketOption(file.local, SO.domain) === AF.unix,

  discover(file, context) {
    readQueue(file, context);
  },

  dump(file, context) {
    const socket = findSocket(file, context);
    const type = typeNames[socket.type];
    if (type === undefined) return context.refuse(file, `it is a unix socket of unknown type ${socket.type}`);
    const state = readState(file, socket, context);
    const shut = (socket.shutdown & 1) !== 0;
    const messages = readQueue(file, context);
    const name = readName(file, socket, context);
    const meta = {
      id: file.id,
      flags: file.flags,
      type,
      state: 'unconnected',
      ...readCommon(file, context),
      ...name,
      ...state,
      ...(shut ? { readShutdown: true } : {}),
      ...((socket.shutdown & 2) !== 0 ? { writeShutdown: true } : {}),
      ...readPeerCredentials(file, context),
      ...readOwner(file, context),
    } as Records['unix-socket'];
    const contents = messages.map((message) =>
      contentRecord(
        file.id,
        message,
        type !== 'stream',
        type === 'dgram' ? findSender(file, message, context) : undefined,
        context,
      ),
    );
    return [{ name: 'unix-socket', meta }, ...contents];
  },

  restore(_name, meta, context) {
    restoreSocket(meta as Records['unix-socket'], context);
  },

  arm(_name, meta, context) {
    const record = meta as Records['unix-socket'];
    finishSockets(context);
    armOwner(record.id, record.owner, context);
  },
};
