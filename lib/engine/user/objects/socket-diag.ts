/** What the kernel tells of unix sockets: sock_diag(7). /proc/net/unix knows no peers. */
import { readlinkSync } from 'node:fs';
import { native } from '../../../../native/index.ts';
import { PodError } from '../../../stream/error.ts';
import { AF, SYS } from '../abi.ts';
import { openNetlink } from '../session-netlink.ts';
import type { DumpContext, OpenFile } from './file-object.ts';
import { closeLocal, codeOf } from './local-calls.ts';

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

const SOCK_DIAG_BY_FAMILY = 20;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_REQUEST = 1;
const NLM_F_DUMP = 0x300;
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
  return context.files.find((each) => each.stat.isSocket() && Number(each.stat.ino) === inode);
}

function listSockets(file: OpenFile, context: DumpContext): Sockets {
  const namespace = readlinkSync(`/proc/${file.pid}/ns/net`);
  return context.once(`unix sockets of ${namespace}`, () => {
    const netlink = openNetlink(file.pid, 4 /* NETLINK_SOCK_DIAG */, context.within);
    try {
      return readAll(netlink);
    } catch (cause) {
      if (codeOf(cause) !== 'ENOENT' && codeOf(cause) !== 'EINVAL') throw cause;
      throw new PodError(
        'cannot-checkpoint',
        'this kernel does not tell which unix sockets belong together',
        'load its module unix_diag (modprobe unix_diag), or use a kernel with CONFIG_UNIX_DIAG',
        { cause },
      );
    } finally {
      closeLocal(netlink);
    }
  });
}

function readAll(netlink: number): Sockets {
  const request = new DataView(new ArrayBuffer(40));
  request.setUint32(0, 40, true);
  request.setUint16(4, SOCK_DIAG_BY_FAMILY, true);
  request.setUint16(6, NLM_F_REQUEST | NLM_F_DUMP, true);
  request.setUint32(8, 1, true);
  request.setUint8(16, AF.unix);
  request.setUint32(20, 0xffffffff, true);
  request.setUint32(28, show, true);
  request.setUint32(32, 0xffffffff, true);
  request.setUint32(36, 0xffffffff, true);
  native().syscall(SYS.sendto, netlink, new Uint8Array(request.buffer), 40, 0, 0, 0);
  const sockets: DiagSocket[] = [];
  const buffer = new Uint8Array(64 << 10);
  for (;;) {
    const length = Number(native().syscall(SYS.recvfrom, netlink, buffer, buffer.length, 0, 0, 0));
    if (!takeMessages(buffer.subarray(0, length), sockets)) continue;
    return {
      byInode: new Map(sockets.filter(({ inode }) => inode !== 0).map((socket) => [socket.inode, socket])),
      unaccepted: sockets.filter(({ inode }) => inode === 0),
    };
  }
}

/** Take the messages of one datagram; true behind the last. */
function takeMessages(bytes: Uint8Array, sockets: DiagSocket[]): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + 16 <= bytes.length; ) {
    const length = view.getUint32(at, true);
    const type = view.getUint16(at + 4, true);
    if (type === NLMSG_DONE) return true;
    if (type === NLMSG_ERROR) {
      const errno = -view.getInt32(at + 16, true);
      throw Object.assign(new Error('sock_diag failed'), { code: errno === 2 ? 'ENOENT' : 'EINVAL' });
    }
    sockets.push(parseSocket(bytes.subarray(at + 16, at + length)));
    at += (length + 3) & ~3;
  }
  return false;
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
  for (let at = 16; at + 4 <= bytes.length; ) {
    const length = view.getUint16(at, true);
    if (length < 4) break;
    const body = at + 4;
    switch (view.getUint16(at + 2, true)) {
      case attribute.name:
        socket.name = bytes.slice(body, at + length);
        break;
      case attribute.vfs:
        socket.node = { inode: view.getUint32(body, true), device: view.getUint32(body + 4, true) };
        break;
      case attribute.peer:
        socket.peer = view.getUint32(body, true);
        break;
      case attribute.queue:
        if (socket.listening) {
          socket.waiting = view.getUint32(body, true);
          socket.backlog = view.getUint32(body + 4, true);
        } else {
          socket.queued = view.getUint32(body, true);
          socket.unread = view.getUint32(body + 4, true);
        }
        break;
      case attribute.clients:
        socket.clients = Array.from({ length: (length - 4) >> 2 }, (_none, index) =>
          view.getUint32(body + 4 * index, true),
        );
        break;
      case attribute.shutdown:
        socket.shutdown = view.getUint8(body);
        break;
    }
    at += (length + 3) & ~3;
  }
  return socket;
}
