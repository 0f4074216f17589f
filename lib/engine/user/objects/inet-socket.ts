/**
 * TCP and UDP sockets, IPv4 and IPv6.
 *
 * A TCP connection with both ends in the session is made again by bind, connect and accept, and what was under way is
 * sent again (tcp-rebuild.ts): that needs no right over the network, takes its options from the kernel it is on, and
 * nothing that is not seen through the system calls is invented. TCP_REPAIR would keep sequence numbers that nobody
 * sees, and only for root. A connection to somewhere else can't go on by itself: it is restored as one that its peer
 * has reset, and said to be lost. What was received from there and not read yet is kept. Only where the pod's address
 * goes along, and it was asked for, the connection does too (tcp-keep.ts).
 */
import { nap } from '../../../../native/nap.ts';
import type { Records } from '../../../image/record.ts';
import { O } from '../abi.ts';
import { describeProcess } from '../proc.ts';
import type { DumpContext, FileObject, OpenFile, OutRecord } from './file-object.ts';
import {
  AF_INET,
  AF_INET6,
  describeAddress,
  encode,
  hostOf,
  isLoopback,
  isWildcard,
  keyOf,
  ownAddress,
  peerAddress,
  portOf,
} from './inet-address.ts';
import { isSigned, isUdpShutForWriting } from './inet-diag.ts';
import { numberOption, readOptions, SO, SOL, setOption, TCP_INFO, usualOptions } from './inet-options.ts';
import { finishInet, restoreInet } from './inet-rebuild.ts';
import { type Row, readTable, TCP } from './inet-table.ts';
import { getOption, hasPacketFilter, POLL, pollNow, socketOption } from './local-calls.ts';
import { armOwner, readOwner } from './owner.ts';
import { readKept } from './tcp-keep.ts';
import { peekQueue, settle, unsentOf } from './tcp-queue.ts';
import { readGroups } from './udp-groups.ts';
import { peekDatagrams } from './udp-queue.ts';

const SO_TYPE = 3;
const SO_PROTOCOL = 38;
const SO_DOMAIN = 39;
const TCP_ULP = 31;
const TCP_AO_INFO = 40;
const UDP_CORK = 1;
const UDP_ENCAP = 100;
const protocols: Record<number, Records['inet-socket']['type']> = { 6: 'tcp', 17: 'udp' };
/** A raw socket (3) may be of any protocol. */
const types: Record<string, number> = { tcp: 1, udp: 2 };
/** Offsets in struct tcp_info. */
const info = { state: 0, maxBacklog: 28, rtt: 68 } as const;

type Socket = Records['inet-socket'];
type State = Partial<Socket>;

function isInternet(file: OpenFile): boolean {
  const domain = socketOption(file.local, SO_DOMAIN);
  return (
    (domain === AF_INET || domain === AF_INET6) &&
    socketOption(file.local, SO_TYPE) === types[protocols[socketOption(file.local, SO_PROTOCOL)]!]
  );
}

const typeOf = (file: OpenFile) => protocols[socketOption(file.local, SO_PROTOCOL)]!;

/** TCP_INFO: its first byte is the state. */
function tcpInfo(file: OpenFile): { state: number; maxBacklog: number; everConnected: boolean } {
  const bytes = new Uint8Array(104);
  bytes.set(getOption(file.local, SOL.tcp, TCP_INFO, bytes.length)!);
  const view = new DataView(bytes.buffer);
  return {
    state: bytes[info.state]!,
    maxBacklog: view.getUint32(info.maxBacklog, true),
    // A round trip was measured by whoever has seen an answer.
    everConnected: view.getUint32(info.rtt, true) !== 0,
  };
}

/** The other sockets of its network, as they are now: connections change while they are looked at. */
const tableOf = (file: OpenFile, context: DumpContext, protocol: 'tcp' | 'udp'): Row[] =>
  context.once(`${protocol} sockets of process ${file.pid}`, () => readTable(file.pid, protocol));

/** TCP sockets of the session by their two addresses. */
function connections(context: DumpContext): ReadonlyMap<string, OpenFile> {
  return context.once('tcp connections', () => {
    const found = new Map<string, OpenFile>();
    for (const file of context.files) {
      if (!inetSocket.matches(file) || typeOf(file) !== 'tcp') continue;
      const peer = peerAddress(file.local);
      if (peer) found.set(`${keyOf(ownAddress(file.local))} ${keyOf(peer)}`, file);
    }
    return found;
  });
}

const inodes = (context: DumpContext): ReadonlySet<number> =>
  context.once('socket inodes', () => new Set(context.files.map(({ stat }) => Number(stat.ino))));

/** Whether a listening socket of the session takes what comes to an address. */
function listensAt(key: string, file: OpenFile, context: DumpContext): boolean {
  const port = key.slice(key.lastIndexOf(':'));
  return tableOf(file, context, 'tcp').some(
    ({ state, local, inode }) =>
      state === TCP.listen &&
      inodes(context).has(inode) &&
      (local === key || (local.endsWith(port) && isWildcard(local.slice(0, -port.length)))),
  );
}

const describeFile = (file: OpenFile) => `descriptor ${file.fd} of ${describeProcess(file.pid)}`;

interface Found {
  state: State;
  content: Uint8Array[];
  /** Of a connection that is kept: sent and not acknowledged. */
  sent?: Uint8Array[];
}

function readTcp(file: OpenFile, context: DumpContext): Found {
  const { state, maxBacklog, everConnected } = tcpInfo(file);
  const address = ownAddress(file.local);
  const bound: State = portOf(address) === 0 ? {} : { address };
  switch (state) {
    case TCP.listen:
      sayOutsideBacklog(file, context);
      return { state: { ...bound, state: 'listening', backlog: maxBacklog }, content: [] };
    case TCP.synSent:
      if (unsentOf(file.local) > 1)
        context.notNow(file, 'data wait in it for its connection', 'try again when it is connected');
      return { state: { ...bound, state: 'connecting', ...destination(file, context) }, content: [] };
    case TCP.close: {
      const polled = pollNow(file.local, POLL.rdhup);
      if ((polled & POLL.rdhup) === 0) return { state: { ...bound, state: 'unconnected' }, content: [] };
      const failed = (polled & POLL.err) !== 0;
      if (!everConnected) return { state: { ...bound, state: failed ? 'refused' : 'failed' }, content: [] };
      return {
        state: { ...bound, state: failed ? 'reset' : 'closed' },
        content: peekQueue(file, context),
      };
    }
    case TCP.synReceived:
      return context.notNow(file, 'it is just being connected', 'try again in a moment');
    default:
      if ((pollNow(file.local, 0) & POLL.err) !== 0)
        context.loss(
          `an error or a notice (MSG_ERRQUEUE) that waits in a TCP connection at ${describeAddress(address)} (${describeFile(file)})`,
        );
      return readConnection(file, state, address, context);
  }
}

/** Where it is being connected to: getpeername(2) does not tell yet. */
function destination(file: OpenFile, context: DumpContext): State {
  const row = tableOf(file, context, 'tcp').find(({ inode }) => inode === Number(file.stat.ino));
  if (!row) return context.notNow(file, 'it is just being connected', 'try again in a moment');
  const colon = row.remote.lastIndexOf(':');
  return {
    peerAddress: encode(
      socketOption(file.local, SO_DOMAIN),
      row.remote.slice(0, colon),
      Number(row.remote.slice(colon + 1)),
    ),
  };
}

const sentEnd: readonly number[] = [TCP.finWait1, TCP.finWait2, TCP.closing, TCP.lastAck, TCP.timeWait];
const receivedEnd: readonly number[] = [TCP.closeWait, TCP.closing, TCP.lastAck, TCP.timeWait];

function readConnection(file: OpenFile, state: number, address: Uint8Array, context: DumpContext): Found {
  const peer = peerAddress(file.local);
  if (!peer) return context.notNow(file, 'its connection is just ending', 'try again in a moment');
  const [here, there] = [keyOf(address), keyOf(peer)];
  if (here === there)
    return context.refuse(file, 'it is connected to itself', 'let the program close it before the dump');
  const partner = connections(context).get(`${there} ${here}`);
  const findRow = (table: readonly Row[]) =>
    table.find(({ local, remote }) => local === there && remote === here);
  const shut = (now: number): State => ({
    ...((pollNow(file.local, POLL.rdhup) & POLL.rdhup) !== 0 && !receivedEnd.includes(now)
      ? { readShutdown: true }
      : {}),
    ...(sentEnd.includes(now) ? { writeShutdown: true } : {}),
  });
  const ends: State = { address, peerAddress: peer, state: 'connected' };
  if (partner) {
    arrive(file, () => unsentOf(partner.local), context, partner.local);
    context.beforeEnd(file, forget);
    return {
      state: { ...ends, ...shut(tcpInfo(file).state), peer: partner.id },
      content: peekQueue(file, context),
    };
  }
  const row = findRow(tableOf(file, context, 'tcp'));
  const unaccepted: readonly number[] = [TCP.established, TCP.closeWait, TCP.synReceived];
  if (row?.inode === 0 && unaccepted.includes(row.state) && listensAt(there, file, context)) {
    // The end of the stream counts as one.
    if (row.unread > (row.state === TCP.closeWait ? 1 : 0) || unsentOf(file.local) > 0)
      context.notNow(
        file,
        `something was sent through it, and its listener at ${describeAddress(peer)} has not accepted it yet`,
        'try again when the program has accepted it',
      );
    return { state: { ...ends, state: 'waiting', ...shut(state) }, content: [] };
  }
  const isHere = isLoopback(hostOf(peer)) || hostOf(peer) === hostOf(address);
  const left = row?.inode === 0 && !unaccepted.includes(row.state);
  if (left || (!row && isHere && receivedEnd.includes(state))) {
    arrive(file, () => (left ? (findRow(readTable(file.pid, 'tcp'))?.unsent ?? 0) : 0), context);
    return {
      state: { ...ends, ...shut(tcpInfo(file).state), peerClosed: true },
      content: peekQueue(file, context),
    };
  }
  return readOutside(file, state, ends, context, shut(state));
}

/** RST in place of a goodbye: nobody is left who would wait a minute for stray packets, and the ports are free. */
function forget(local: number): void {
  setOption(local, SOL.socket, SO.linger, new Uint8Array(new Int32Array([1, 0]).buffer));
}

function arrive(file: OpenFile, unsent: () => number, context: DumpContext, sender?: number): void {
  if (settle(file.local, unsent, sender)) return;
  context.notNow(
    file,
    `${unsent()} bytes are on their way to it that its buffer does not take`,
    'try again when the program has read some, or raise net.ipv4.tcp_rmem',
  );
}

/** A program that was told of the end of the stream may not hear it again, so such a connection is not kept. */
const keepable: readonly number[] = [TCP.established, TCP.finWait1, TCP.finWait2];

/** What the other end has said until now is kept; the connection only where it was asked for. */
function readOutside(file: OpenFile, state: number, ends: State, context: DumpContext, shut: State): Found {
  if (context.keepsConnections && keepable.includes(state) && !file.inFlight) {
    const content = peekQueue(file, context);
    const unread = content.reduce((sum, { length }) => sum + length, 0);
    const { kept, sent } = readKept(file.local, unread, sentEnd.includes(state));
    return { state: { ...ends, ...shut, kept }, content, sent };
  }
  const unsent = Math.max(0, unsentOf(file.local) - (sentEnd.includes(state) ? 1 : 0));
  context.loss(
    `the connection from ${describeAddress(ends.address!)} to ${describeAddress(ends.peerAddress!)} outside (${describeFile(file)}), which will be as if reset by its peer${
      unsent > 0 ? `, with ${unsent} bytes that were not acknowledged` : ''
    }`,
  );
  const content = peekQueue(file, context);
  // All has come that will ever come: the program sees the end, and the reset when it writes.
  if (receivedEnd.includes(state)) return { state: { ...ends, ...shut, peerClosed: true }, content };
  return { state: { address: ends.address!, state: 'reset' }, content };
}

/** Who waits in a listening socket and is not of the session. Those of the session speak for themselves. */
function sayOutsideBacklog(file: OpenFile, context: DumpContext): void {
  const own = tableOf(file, context, 'tcp').find(({ inode }) => inode === Number(file.stat.ino));
  if (!own)
    context.refuse(
      file,
      'it belongs to another network namespace',
      'close it, or run the whole session in one network',
    );
  if (own.unread === 0) return;
  const inside = connections(context);
  const port = own.local.slice(own.local.lastIndexOf(':'));
  const outside = tableOf(file, context, 'tcp').filter(
    ({ inode, state, local, remote }) =>
      inode === 0 &&
      (state === TCP.established || state === TCP.closeWait) &&
      (local === own.local || (isWildcard(own.local.slice(0, -port.length)) && local.endsWith(port))) &&
      !inside.has(`${remote} ${local}`),
  );
  if (outside.length > 0)
    context.loss(
      `${outside.length} connections from outside or already closed that wait to be accepted at ${describeAddress(ownAddress(file.local))} (${describeFile(file)})`,
    );
}

function readUdp(file: OpenFile, context: DumpContext): Found & { datagrams: OutRecord[] } {
  const address = ownAddress(file.local);
  const peer = peerAddress(file.local);
  const polled = pollNow(file.local, POLL.rdhup | POLL.in);
  const shut: State = {
    ...((polled & POLL.rdhup) !== 0 ? { readShutdown: true } : {}),
    ...((polled & POLL.hup) !== 0 || isUdpShutForWriting(file, context) ? { writeShutdown: true } : {}),
  };
  if (numberOption(file.local, SOL.udp, UDP_CORK))
    context.notNow(file, 'a datagram is just being put together in it (UDP_CORK)', 'try again in a moment');
  if (!hasSent(file.local))
    context.notNow(
      file,
      `${unsentOf(file.local)} bytes of memory hold what it has not sent yet, or a datagram that is just being put together (MSG_MORE)`,
      'try again in a moment',
    );
  if (numberOption(file.local, SOL.udp, UDP_ENCAP))
    context.refuse(file, 'it carries a tunnel of the kernel (UDP_ENCAP)', 'end the tunnel first');
  if ((polled & POLL.err) !== 0)
    context.loss(
      `an error that waits in a UDP socket at ${describeAddress(address)} (${describeFile(file)})`,
    );
  const groups = readGroups(file);
  return {
    state: {
      state: peer ? 'connected' : 'unconnected',
      ...(portOf(address) === 0 ? {} : { address }),
      ...(peer ? { peerAddress: peer } : {}),
      ...(groups.length > 0 ? { groups } : {}),
      ...shut,
    },
    content: [],
    datagrams: peekDatagrams(file, context),
  };
}

/** What waits for a network card is gone in a moment; what waits for the rest of its datagram is not. */
function hasSent(local: number): boolean {
  for (let tries = 0; tries < 20; tries++) {
    if (unsentOf(local) === 0) return true;
    nap(1);
  }
  return false;
}

function refuseOdd(file: OpenFile, context: DumpContext): void {
  const ulp = getOption(file.local, SOL.tcp, TCP_ULP);
  const name = ulp && Buffer.from(ulp).toString('latin1').replace(/\0.*/s, '');
  if (name && typeOf(file) === 'tcp')
    context.refuse(
      file,
      `the kernel encrypts it (${name}), with keys that can not be read back`,
      'run the program without kernel TLS',
    );
  if (typeOf(file) === 'tcp' && (isSigned(file, context) || getOption(file.local, SOL.tcp, TCP_AO_INFO)))
    context.refuse(
      file,
      'its packets are signed (TCP_MD5SIG, TCP-AO), with keys that can not be read back',
      'let the program close it before the dump',
    );
  if (hasPacketFilter(file.local))
    context.refuse(file, 'a packet filter (BPF) is attached to it', 'run the program without it');
}

export const inetSocket: FileObject = {
  records: ['inet-socket'],
  coverage:
    'TCP and UDP sockets, IPv4 and IPv6, with their addresses and options (what is set with setsockopt(2), multicast groups and their sources too). TCP: listening ones; connections with both ends in the session, with what is under way in both directions, half closed and closed ends; connections of the session that wait to be accepted, as long as nothing was sent through them; one that is just being connected is connected anew. A connection to outside is restored as if reset by its peer, with what it had received, or, with `--tcp keep` and a network of its own, goes on; it, connections from outside that wait to be accepted, and bytes that were not acknowledged are named as losses. UDP: datagrams not yet read with their source, when that is on the same computer, others are named as lost; of datagrams without a byte only the first dump of a running session knows. Refused: urgent data, kernel TLS, packets that are signed (TCP_MD5SIG, of which the kernel tells only root), packet filters, tunnels, and other protocols over IP',

  matches: (file) => file.stat.isSocket() && (file.flags & O.path) === 0 && isInternet(file),

  dump(file, context) {
    refuseOdd(file, context);
    const type = typeOf(file);
    const family = socketOption(file.local, SO_DOMAIN);
    const found = type === 'tcp' ? readTcp(file, context) : readUdp(file, context);
    const connected = type === 'tcp' && !['unconnected', 'listening'].includes(found.state.state!);
    const kind = { family, type: socketOption(file.local, SO_TYPE) };
    const usual = context.once(`a new socket ${family} ${kind.type}`, () => usualOptions(kind));
    const options = readOptions(file.local, usual, connected);
    const meta = {
      id: file.id,
      flags: file.flags,
      family: family === AF_INET ? 'ipv4' : 'ipv6',
      type,
      ...found.state,
      ...(options.length > 0 ? { options } : {}),
      ...readOwner(file, context),
    } as Socket;
    return [
      { name: 'inet-socket', meta },
      ...found.content.map((data): OutRecord => ({ name: 'content', meta: { file: file.id }, data })),
      ...(found.sent ?? []).map(
        (data): OutRecord => ({ name: 'content', meta: { file: file.id, sent: true }, data }),
      ),
      ...('datagrams' in found ? (found.datagrams as OutRecord[]) : []),
    ];
  },

  restore(_name, meta, context) {
    restoreInet(meta as Socket, context);
  },

  arm(_name, meta, context) {
    const record = meta as Socket;
    finishInet(context);
    armOwner(record.id, record.owner, context);
  },
};
