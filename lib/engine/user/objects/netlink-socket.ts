/**
 * netlink(7) sockets that ask the kernel about its network (route, sock-diag), or are told of changes (route, uevent:
 * what every browser, avahi or udev client has). The kernel keeps nothing for such a one but what is in the record:
 * its number, its groups, its options, and what it was told and has not read. An answer that waits in it will be read
 * in a moment, so the dump is put off for it; it can't be put into a socket again, because only a kernel sends as the
 * kernel.
 */
import { readFileSync } from 'node:fs';
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { AF, O, SYS } from '../abi.ts';
import { describeProcess } from '../proc.ts';
import type { DumpContext, FileObject, OpenFile, RestoreContext } from './file-object.ts';
import {
  borrow,
  closeLocal,
  errnoName,
  getOption,
  queuedMemory,
  readOption,
  socketOption,
} from './local-calls.ts';
import { armOwner, readOwner } from './owner.ts';
import { setStatusFlags } from './paths.ts';
import { changedOptions } from './socket-options.ts';
import { setBuffer } from './unix-fill.ts';

type Netlink = Records['netlink-socket'];

const SO = {
  type: 3,
  sndbuf: 7,
  rcvbuf: 8,
  attachFilter: 26,
  protocol: 38,
  domain: 39,
  lockFilter: 44,
} as const;
const SOL_SOCKET = 1;
const SOL_NETLINK = 270;
const ADD_MEMBERSHIP = 1;
const LIST_MEMBERSHIPS = 9;
const instructionSize = 8;
/** Room for all groups, bytes. */
const longest = 512;
const EADDRINUSE = 98;

const protocols = { route: 0, 'sock-diag': 4, uevent: 15 } as const;
const protocolNames = new Map<number, Netlink['protocol']>(
  Object.entries(protocols).map(([name, number]) => [number, name as Netlink['protocol']]),
);

/** Of the others the kernel keeps more than a socket tells. */
const others: Record<number, string> = {
  2: 'of programs among themselves (usersock)',
  3: 'firewall',
  5: 'netfilter log',
  6: 'IPsec (xfrm)',
  7: 'SELinux',
  8: 'iSCSI',
  9: 'audit',
  11: 'connector',
  12: 'netfilter',
  16: 'generic netlink',
  18: 'SCSI transport',
  20: 'RDMA',
  21: 'crypto',
};

/** What may be set; a stream can set nothing else. */
const options = [
  // PRIORITY RCVLOWAT PASSCRED RCVTIMEO SNDTIMEO TIMESTAMP TIMESTAMPNS RXQ_OVFL
  ...[12, 18, 16, 20, 21, 29, 35, 40].map((option) => ({ level: SOL_SOCKET, option })),
  // PKTINFO BROADCAST_ERROR NO_ENOBUFS LISTEN_ALL_NSID CAP_ACK EXT_ACK GET_STRICT_CHK
  ...[3, 4, 5, 8, 10, 11, 12].map((option) => ({ level: SOL_NETLINK, option })),
];

/** So often an unread message puts the dump off. */
const patience = 20;

/** What the kernel lists of a socket in /proc/net/netlink. */
function findRow(file: OpenFile): { unread: number; answering: boolean } | undefined {
  for (const line of readFileSync(`/proc/${file.pid}/net/netlink`, 'latin1').split('\n')) {
    const words = line.trim().split(/\s+/);
    if (words[9] === String(file.stat.ino)) return { unread: Number(words[4]), answering: words[6] !== '0' };
  }
  return undefined;
}

/** Multicast groups by number. */
function readGroups(file: OpenFile): number[] {
  const bits = getOption(file.local, SOL_NETLINK, LIST_MEMBERSHIPS, longest) ?? new Uint8Array();
  const groups: number[] = [];
  for (let group = 1; group <= 8 * bits.length; group++)
    if (((bits[(group - 1) >> 3]! >> ((group - 1) & 7)) & 1) !== 0) groups.push(group);
  return groups;
}

/** Its number: nl_pid of struct sockaddr_nl. */
function readPort(file: OpenFile): number {
  const name = new Uint8Array(12);
  native().syscall(SYS.getsockname, file.local, name, new Uint8Array(new Int32Array([12]).buffer));
  return new DataView(name.buffer).getUint32(4, true);
}

/** A filter (SO_ATTACH_FILTER); its length is counted in instructions. */
function readFilter(file: OpenFile, context: DumpContext): Pick<Netlink, 'filter' | 'filterLocked'> {
  const size = new Uint8Array(4);
  const ask = (bytes: Uint8Array) => {
    new DataView(size.buffer).setInt32(0, bytes.length / instructionSize, true);
    native().syscall(SYS.getsockopt, file.local, SOL_SOCKET, SO.attachFilter, bytes, size);
    return new DataView(size.buffer).getInt32(0, true);
  };
  try {
    const count = ask(new Uint8Array());
    if (count === 0) return {};
    const filter = new Uint8Array(count * instructionSize);
    ask(filter);
    return { filter, ...(socketOption(file.local, SO.lockFilter) ? { filterLocked: true } : {}) };
  } catch {
    return context.refuse(
      file,
      'its filter is a BPF program, which can not be read',
      'let the program close it first',
    );
  }
}

/** What it has not read: an answer comes at once, so wait; of news there may always be some. */
function settle(file: OpenFile, port: number, groups: readonly number[], context: DumpContext): void {
  // Without a number it is in no list, and has asked nothing yet; but it may have heard news.
  const unlisted = port === 0 ? { unread: queuedMemory(file.local), answering: false } : undefined;
  const row =
    findRow(file) ??
    unlisted ??
    context.refuse(
      file,
      'it belongs to another network namespace',
      'close it, or run the whole session in one network',
    );
  if (row.unread === 0 && !row.answering) return;
  const why = 'an answer of the kernel waits in it';
  const hint = 'try again when the program has read it';
  if (context.putOff < patience) context.notNow(file, why, hint);
  if (groups.length === 0 || row.answering) context.refuse(file, why, hint);
  context.loss(
    `news of network or devices that descriptor ${file.fd} of ${describeProcess(file.pid)} had not read yet`,
  );
}

export const netlinkSocket: FileObject = {
  records: ['netlink-socket'],
  coverage:
    'sockets of the protocols route, sock-diag and uevent: number, groups, options, filter. The dump waits a moment for answers not yet read, and is refused when they stay; news not yet read are lost and named as a loss. Its number may be taken where others share the network, then it gets another one, with a warning. Refused: all other protocols, filters in the newer BPF',

  matches: (file) =>
    file.stat.isSocket() && (file.flags & O.path) === 0 && socketOption(file.local, SO.domain) === AF.netlink,

  dump(file, context) {
    const number = socketOption(file.local, SO.protocol);
    const protocol = protocolNames.get(number);
    if (protocol === undefined) {
      return context.refuse(
        file,
        `it is a netlink socket (${others[number] ?? `protocol ${number}`}), of which the kernel of this computer keeps more than it tells`,
        'let the program close it first',
      );
    }
    const type = socketOption(file.local, SO.type);
    const groups = readGroups(file);
    const port = readPort(file);
    settle(file, port, groups, context);
    const saved = changedOptions(file.local, { domain: AF.netlink, type, protocol: number }, options);
    return [
      {
        name: 'netlink-socket',
        meta: {
          id: file.id,
          flags: file.flags,
          type: type === 3 ? 'raw' : 'dgram',
          protocol,
          ...(port === 0 ? {} : { port }),
          ...(groups.length === 0 ? {} : { groups }),
          sendBuffer: socketOption(file.local, SO.sndbuf),
          receiveBuffer: socketOption(file.local, SO.rcvbuf),
          ...(saved.length === 0 ? {} : { options: saved }),
          ...readFilter(file, context),
          ...readOwner(file, context),
        },
      },
    ];
  },

  restore(_name, meta, context) {
    const record = meta as Netlink;
    const { builder } = context;
    const type = record.type === 'raw' ? 3 : 2;
    const fd = Number(builder.call('socket', SYS.socket, AF.netlink, type, protocols[record.protocol]));
    setOptions(fd, record, context);
    attachFilter(fd, record, context);
    bind(fd, record, context);
    for (const group of record.groups ?? []) join(fd, group, record, context);
    setStatusFlags(fd, record.flags, context);
    context.keep(record.id, fd);
  },

  arm(_name, meta, context) {
    const record = meta as Netlink;
    armOwner(record.id, record.owner, context);
  },
};

function setOptions(fd: number, record: Netlink, context: RestoreContext): void {
  const local = borrow(context.builderPid, fd);
  try {
    if (record.sendBuffer !== undefined) setBuffer(local, 'sndbuf', record.sendBuffer);
    if (record.receiveBuffer !== undefined) setBuffer(local, 'rcvbuf', record.receiveBuffer);
    const size = readOption(local, SOL_SOCKET, SO.rcvbuf, 4)?.getInt32(0, true) ?? 0;
    if (size < (record.receiveBuffer ?? 0))
      context.warn(`a netlink socket gets a buffer of ${size} bytes instead of ${record.receiveBuffer}`);
  } finally {
    closeLocal(local);
  }
  for (const { level, option, value } of record.options ?? []) {
    const known = options.some((each) => each.level === level && each.option === option);
    const errno = known ? set(fd, level, option, value, context) : 92;
    if (errno !== 0)
      context.warn(`option ${option} of a netlink socket can't be set here (${errnoName(errno)})`);
  }
}

/** 0, or the errno. */
function set(fd: number, level: number, option: number, value: Uint8Array, context: RestoreContext): number {
  const { builder } = context;
  builder.reset();
  const address = builder.put(value);
  return Number(-builder.run([[SYS.setsockopt, fd, level, option, address, value.length]])[0]!);
}

/** struct sock_fprog: how many instructions, and where they are. */
function attachFilter(fd: number, record: Netlink, context: RestoreContext): void {
  const { filter } = record;
  if (filter === undefined) return;
  const { builder } = context;
  builder.reset();
  const program = new DataView(new ArrayBuffer(16));
  program.setUint16(0, filter.length / instructionSize, true);
  program.setBigUint64(8, BigInt(builder.put(filter)), true);
  const address = builder.put(new Uint8Array(program.buffer));
  const [result] = builder.run([[SYS.setsockopt, fd, SOL_SOCKET, SO.attachFilter, address, 16]]);
  if (result! < 0n)
    context.refuse(
      `the filter of a netlink socket is not accepted (${errnoName(Number(-result!))})`,
      'the image does not fit together: load it again',
    );
  if (record.filterLocked) set(fd, SOL_SOCKET, SO.lockFilter, Uint8Array.of(1, 0, 0, 0), context);
}

/** Where the session shares the network of others, one of them may have its number. */
function bind(fd: number, record: Netlink, context: RestoreContext): void {
  if (record.port === undefined) return;
  const { builder } = context;
  const attempt = (port: number) => {
    builder.reset();
    const name = new DataView(new ArrayBuffer(12));
    name.setUint16(0, AF.netlink, true);
    name.setUint32(4, port, true);
    const address = builder.put(new Uint8Array(name.buffer));
    return Number(-builder.run([[SYS.bind, fd, address, 12]])[0]!);
  };
  let errno = attempt(record.port);
  if (errno === EADDRINUSE) {
    context.warn(
      `a netlink socket had the number ${record.port}, which another program has here: it gets a new one`,
    );
    errno = attempt(0);
  }
  if (errno !== 0)
    context.refuse(
      `a netlink socket can't be bound (${errnoName(errno)})`,
      'the image does not fit together: load it again',
    );
}

function join(fd: number, group: number, record: Netlink, context: RestoreContext): void {
  const errno = set(fd, SOL_NETLINK, ADD_MEMBERSHIP, new Uint8Array(new Int32Array([group]).buffer), context);
  if (errno !== 0)
    context.refuse(
      `a netlink socket can't hear group ${group} of ${record.protocol} here (${errnoName(errno)})`,
      'this kernel lacks the group, or only root may hear it: restart as root',
    );
}
