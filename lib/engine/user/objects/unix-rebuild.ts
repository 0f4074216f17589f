/** Unix sockets made again in the builder (see unix-socket.ts). */
import { AF, SYS } from '../abi.ts';
import { RemoteError } from '../remote.ts';
import type { RestoreContext } from './file-object.ts';
import { borrow, closeLocal, codeOf, errnoName, setSocketOption } from './local-calls.ts';
import { setLocalFlags } from './paths.ts';
import type { SavedOption } from './socket-options.ts';
import { setPeekOffset } from './socket-queue.ts';
import { connectWaiting } from './unix-backlog.ts';
import { disconnect, makeConnection, makePair } from './unix-connection.ts';
import { fill, isLate, setBuffer } from './unix-fill.ts';
import {
  bindOwn,
  describe,
  inFolder,
  putAddress,
  type Socket,
  typeNumbers,
  unlinkName,
} from './unix-names.ts';

const SOL_SOCKET = 1;
const SO = { reuseaddr: 2, passcred: 16, rcvtimeo: 20, sndtimeo: 21, passpidfd: 76, passrights: 83 } as const;
/**
 * Options without a field of their own: BROADCAST KEEPALIVE OOBINLINE PRIORITY LINGER RCVLOWAT TIMESTAMP TIMESTAMPNS
 * PASSSEC MARK TIMESTAMPING RXQ_OVFL, TIMESTAMP_NEW TIMESTAMPNS_NEW TIMESTAMPING_NEW, RCVPRIORITY, INQ. A stream can set
 * nothing else.
 */
export const unixOptions: readonly { level: number; option: number }[] = [
  6, 9, 10, 12, 13, 18, 29, 34, 35, 36, 37, 40, 63, 64, 65, 82, 84,
].map((option) => ({ level: SOL_SOCKET, option }));
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

interface State {
  /** Every socket record seen so far, in order. */
  records: Map<number, Socket>;
  /** Ends of pairs whose record is still to come, by its id. */
  waiting: Map<number, number>;
  /** The other ends of sockets that lost theirs: they fill the queue before they go. */
  leaving: Map<number, number>;
  finished: boolean;
}

const stateOf = (context: RestoreContext): State =>
  context.once('unix sockets', () => ({
    records: new Map(),
    waiting: new Map(),
    leaving: new Map(),
    finished: false,
  }));

/** Make one socket, as far as nobody outside can find it. */
export function restoreSocket(record: Socket, context: RestoreContext): void {
  const state = stateOf(context);
  const fd = makeSocket(record, state, context);
  state.records.set(record.id, record);
  context.keep(record.id, fd);
}

function makeSocket(record: Socket, state: State, context: RestoreContext): number {
  const paired = isPaired(record);
  if (!paired && !record.peerClosed) {
    const fd = isOrphanWithContent(record, context)
      ? makeOrphan(record, state, context)
      : Number(context.builder.call('socket', SYS.socket, AF.unix, typeNumbers[record.type], 0));
    setOptions(fd, record, context);
    return fd;
  }
  if (record.peerClosed) return makeSurvivor(record, state, context);
  const ready = state.waiting.get(record.id);
  state.waiting.delete(record.id);
  const [fd, other] = ready === undefined ? makeConnection(record, context) : [ready, undefined];
  if (other !== undefined) state.waiting.set(record.peer!, other);
  const partner = other ?? context.descriptor(record.peer!);
  setOptions(fd, record, context);
  const contents = context.contents(record.id);
  if (!contents.some(isLate)) fill(partner, contents, context);
  return fd;
}

/** Both ends point at each other. A datagram socket with a destination only points there. */
function isPaired(record: Socket): boolean {
  if (record.peer === undefined) return false;
  return record.state === 'pair' || (record.state === 'connected' && record.type !== 'dgram');
}

/** The end that is left of a connection whose other end was closed. */
function makeSurvivor(record: Socket, state: State, context: RestoreContext): number {
  const [fd, other] = makeConnection(record, context);
  setOptions(fd, record, context);
  state.leaving.set(record.id, other);
  if (!context.contents(record.id).some(isLate)) leave(record, fd, state, context);
  return fd;
}

/** Datagrams that came from a partner which has turned elsewhere since. */
function isOrphanWithContent(record: Socket, context: RestoreContext): boolean {
  return record.type === 'dgram' && record.address === undefined && context.contents(record.id).length > 0;
}

function makeOrphan(record: Socket, state: State, context: RestoreContext): number {
  const [fd, other] = makePair(record, context);
  state.leaving.set(record.id, other);
  if (!context.contents(record.id).some(isLate)) leave(record, fd, state, context);
  return fd;
}

/** The other end sends what was not read yet and goes. */
function leave(record: Socket, fd: number, state: State, context: RestoreContext): void {
  const other = state.leaving.get(record.id);
  if (other === undefined) return;
  state.leaving.delete(record.id);
  const { builder } = context;
  fill(other, context.contents(record.id), context);
  if (!record.peerClosed) disconnect(fd, context);
  if (record.resetPending && record.type !== 'dgram') {
    // A peer that closes with something unread is what makes the error.
    builder.reset();
    const byte = builder.put(new Uint8Array(1));
    builder.call('sendto', SYS.sendto, fd, byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0);
  }
  builder.call('close', SYS.close, other);
}

/** Everything set by setsockopt(2) and fcntl(2). */
function setOptions(fd: number, record: Socket, context: RestoreContext): void {
  const local = borrow(context.builderPid, fd);
  try {
    if (record.sendBuffer !== undefined) setBuffer(local, 'sndbuf', record.sendBuffer);
    if (record.receiveBuffer !== undefined) setBuffer(local, 'rcvbuf', record.receiveBuffer);
    if (record.passCredentials) setSocketOption(local, SO.passcred, 1);
    if (record.passPidfd) setSocketOption(local, SO.passpidfd, 1);
    if (record.reuseAddress) setSocketOption(local, SO.reuseaddr, 1);
    if (record.receiveTimeoutUs) setSocketOption(local, SO.rcvtimeo, encodeTimeout(record.receiveTimeoutUs));
    if (record.sendTimeoutUs) setSocketOption(local, SO.sndtimeo, encodeTimeout(record.sendTimeoutUs));
    setLocalFlags(local, record.flags);
  } finally {
    closeLocal(local);
  }
}

/** struct timeval. */
function encodeTimeout(microseconds: bigint): Uint8Array {
  return new Uint8Array(new BigUint64Array([microseconds / 1_000_000n, microseconds % 1_000_000n]).buffer);
}

/** Names, destinations, late messages, closed directions: when every socket and every task exists. */
export function finishSockets(context: RestoreContext): void {
  const state = stateOf(context);
  if (state.finished) return;
  state.finished = true;
  const records = [...state.records.values()];
  // A name that leads nowhere any more gives way to one that does.
  const settle = (record: Socket) =>
    inFolder(record, context, () => {
      const bound = bindOwn(record, context);
      if (record.state === 'listening') {
        listen(record, context);
        connectWaiting(record, context);
      }
      if (bound && record.unlinked) unlinkName(record.address!, context);
    });
  for (const record of records) if (record.unlinked) settle(record);
  for (const record of records) if (!record.unlinked) settle(record);
  for (const record of records) inFolder(record, context, () => fillLate(record, state, context));
  for (const record of records) {
    if (record.type === 'dgram' && record.state === 'connected') connectOneWay(record, state, context);
  }
  for (const record of records) close(record, context);
}

function listen(record: Socket, context: RestoreContext): void {
  const backlog = Math.min(record.backlog ?? 0, 0x7fffffff);
  context.builder.call('listen', SYS.listen, context.descriptor(record.id), backlog);
}

/** Shutdown, SO_PEEK_OFF, SO_PASSRIGHTS and the like, which would be in the way of filling queues. */
function close(record: Socket, context: RestoreContext): void {
  const fd = context.descriptor(record.id);
  const { readShutdown, writeShutdown } = record;
  if ((readShutdown || writeShutdown) && !record.peerClosed) {
    context.builder.run([[SYS.shutdown, fd, readShutdown ? (writeShutdown ? 2 : 0) : 1]]);
  }
  if (record.peekOffset === undefined && !record.refuseRights && !record.options?.length) return;
  const local = borrow(context.builderPid, fd);
  try {
    if (record.peekOffset !== undefined) setPeekOffset(local, record.peekOffset);
    if (record.refuseRights) refuseRights(local, context);
    for (const each of record.options ?? []) setOther(local, each, context);
  } finally {
    closeLocal(local);
  }
}

function setOther(local: number, { level, option, value }: SavedOption, context: RestoreContext): void {
  if (!unixOptions.some((each) => each.level === level && each.option === option)) {
    context.warn(`option ${option} of level ${level} of a socket is unknown to this podstream`);
    return;
  }
  try {
    setSocketOption(local, option, value);
  } catch (cause) {
    context.warn(`option ${option} of a unix socket can't be set here (${codeOf(cause)})`);
  }
}

/** Linux 6.16 and later. */
function refuseRights(local: number, context: RestoreContext): void {
  try {
    setSocketOption(local, SO.passrights, 0);
  } catch {
    context.warn('a unix socket that would take no open files (SO_PASSRIGHTS) takes them on this kernel');
  }
}

function connectOneWay(record: Socket, state: State, context: RestoreContext): void {
  const { builder } = context;
  const peer = record.peer === undefined ? undefined : state.records.get(record.peer);
  const target = peer?.address;
  if (!peer || target === undefined) {
    context.refuse('a datagram socket sends to a socket that has no name', 'load the image again');
  }
  try {
    inFolder(peer, context, () => {
      builder.reset();
      builder.call('connect', SYS.connect, context.descriptor(record.id), ...putAddress(target, context));
    });
  } catch (cause) {
    if (!(cause instanceof RemoteError)) throw cause;
    context.refuse(
      `a datagram socket can't be connected to ${describe(target)} again (${errnoName(cause.errno)})`,
    );
  }
}

/** Messages whose sender shows, and those of a bound datagram socket, which come from anywhere. */
function fillLate(record: Socket, state: State, context: RestoreContext): void {
  const contents = context.contents(record.id);
  if (contents.length === 0) return;
  if (isPaired(record)) {
    if (contents.some(isLate)) fill(context.descriptor(record.peer!), contents, context);
    return;
  }
  if (record.peerClosed || isOrphanWithContent(record, context)) {
    leave(record, context.descriptor(record.id), state, context);
    return;
  }
  if (record.type !== 'dgram' || record.address === undefined) {
    context.refuse('the image has data for a socket that can hold none', 'load the image again');
  }
  const { builder } = context;
  for (const content of contents) {
    const sender = content.meta.sender;
    const known = sender !== undefined && state.records.has(sender);
    const from = known
      ? context.descriptor(sender)
      : Number(builder.call('socket', SYS.socket, AF.unix, typeNumbers.dgram, 0));
    builder.reset();
    builder.call('connect', SYS.connect, from, ...putAddress(record.address, context));
    fill(from, [content], context);
    if (known) disconnect(from, context);
    else builder.call('close', SYS.close, from);
  }
}
