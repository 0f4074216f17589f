/** What the kernel tells of unix sockets: sock_diag(7). /proc/net/unix knows no peers. */
import { readlinkSync } from 'node:fs';
import { PodError } from '../../../stream/error.ts';
import { AF } from '../abi.ts';
import type { DumpContext, OpenFile } from './file-object.ts';
import { codeOf } from './local-calls.ts';
import { askSockets, attributesOf } from './netlink-diag.ts';

/** A unix socket as the kernel sees it. */
export interface DiagSocket {
  inode: number;
  /** 1 stream, 2 dgram, 5 seqpacket. */
  type: number;
  listening: boolean;
  /** Bound name as in sun_path: a path without its NUL, or a NUL and an abstract name. */
  name: Uint8Array | undefined;
  /** Bound to a path: inode and device (12 bits of major over 20 of minor) of the socket file. */
  node: { inode: number; device: number } | undefined;
  /** Inode of the peer; 0 when it was closed; undefined when there never was one. */
  peer: number | undefined;
  /** Listening: connections that wait to be accepted. */
  waiting: number;
  /** Listening: inodes of their other ends, in order; 0 for one that was closed. */
  clients: readonly number[];
  /** Not listening: bytes it has to read; of a datagram socket, of its first message. */
  queued: number;
  /** Not listening: memory of what it sent and nobody has read (SIOCOUTQ). */
  unread: number;
  /** Listening: listen(2)'s backlog. */
  backlog: number;
  /** RCV_SHUTDOWN 1, SEND_SHUTDOWN 2. */
  shutdown: number;
}

/** UDIAG_SHOW_NAME, VFS, PEER, ICONS, RQLEN. */
const show = 0x01 | 0x02 | 0x04 | 0x08 | 0x10;
const attribute = { name: 0, vfs: 1, peer: 2, clients: 3, queue: 4, shutdown: 6 } as const;
const listening = 10;

/** Unix sockets of a network namespace. */
interface Sockets {
  byInode: ReadonlyMap<number, DiagSocket>;
  /** The ends of connections that nobody has accepted yet: they have no inode. */
  unaccepted: readonly DiagSocket[];
}

/** All unix sockets of the process's network namespace, by inode. */
export function unixSockets(file: OpenFile, context: DumpContext): ReadonlyMap<number, DiagSocket> {
  return listSockets(file, context).byInode;
}

/** The ends of connections that wait to be accepted: which of them belongs where, their `peer` and `name` tell. */
export function unacceptedSockets(file: OpenFile, context: DumpContext): readonly DiagSocket[] {
  return listSockets(file, context).unaccepted;
}

/** The session's open file of a socket. */
export function fileOf(inode: number, context: DumpContext): OpenFile | undefined {
  return context.filesOf(BigInt(inode)).find((each) => each.stat.isSocket());
}

function listSockets(file: OpenFile, context: DumpContext): Sockets {
  const namespace = context.once(`network of ${file.pid}`, () => readlinkSync(`/proc/${file.pid}/ns/net`));
  return context.once(`unix sockets of ${namespace}`, () => {
    try {
      return readAll(file.pid, context);
    } catch (cause) {
      if (codeOf(cause) !== 'ENOENT' && codeOf(cause) !== 'EINVAL') throw cause;
      throw new PodError(
        'cannot-checkpoint',
        'this kernel does not tell which unix sockets belong together',
        'load its module unix_diag (modprobe unix_diag), or use a kernel with CONFIG_UNIX_DIAG',
        { cause },
      );
    }
  });
}

function readAll(pid: number, context: DumpContext): Sockets {
  const question = new DataView(new ArrayBuffer(24));
  question.setUint8(0, AF.unix);
  question.setUint32(4, 0xffffffff, true);
  question.setUint32(12, show, true);
  question.setUint32(16, 0xffffffff, true);
  question.setUint32(20, 0xffffffff, true);
  const sockets = askSockets(pid, new Uint8Array(question.buffer), context).map(parseSocket);
  return {
    byInode: new Map(sockets.filter(({ inode }) => inode !== 0).map((socket) => [socket.inode, socket])),
    unaccepted: sockets.filter(({ inode }) => inode === 0),
  };
}

/** struct unix_diag_msg and its attributes. */
function parseSocket(bytes: Uint8Array): DiagSocket {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const socket: DiagSocket = {
    inode: view.getUint32(4, true),
    type: view.getUint8(1),
    listening: view.getUint8(2) === listening,
    name: undefined,
    node: undefined,
    peer: undefined,
    waiting: 0,
    clients: [],
    queued: 0,
    unread: 0,
    backlog: 0,
    shutdown: 0,
  };
  for (const { type, body } of attributesOf(bytes, 16)) {
    const word = (at: number) => new DataView(body.buffer, body.byteOffset, body.length).getUint32(at, true);
    switch (type) {
      case attribute.name:
        socket.name = body.slice();
        break;
      case attribute.vfs:
        socket.node = { inode: word(0), device: word(4) };
        break;
      case attribute.peer:
        socket.peer = word(0);
        break;
      case attribute.queue:
        if (socket.listening) {
          socket.waiting = word(0);
          socket.backlog = word(4);
        } else {
          socket.queued = word(0);
          socket.unread = word(4);
        }
        break;
      case attribute.clients:
        socket.clients = Array.from({ length: body.length >> 2 }, (_none, index) => word(4 * index));
        break;
      case attribute.shutdown:
        socket.shutdown = body[0]!;
        break;
    }
  }
  return socket;
}
