/**
 * TCP connections made again in the builder: both ends, or one that outlives its other end. The end that is made second
 * comes out of accept(2) of a listening socket that lives for a moment at its address.
 */
import { native } from '../../../../native/index.ts';
import { nap } from '../../../../native/nap.ts';
import type { Records } from '../../../image/record.ts';
import { O, SYS } from '../abi.ts';
import type { RestoreContext } from './file-object.ts';
import {
  describeAddress,
  familyOf,
  keyOf,
  loopbackLike,
  ownAddress,
  peerAddress,
  toFamily,
  withPort,
} from './inet-address.ts';
import { makeSocket, tryBind } from './inet-bind.ts';
import { allowBind, applyOptions, kindOf, SO, SOL, setOption } from './inet-options.ts';
import { borrow, closeLocal, codeOf, POLL, pollNow, socketOption, withLocal } from './local-calls.ts';
import { fillQueue, settle, unsentOf } from './tcp-queue.ts';

type Socket = Records['inet-socket'];

const stream = 1;
const SO_ERROR = 4;
const EAGAIN = 11;
/** ms that a connection inside this computer may take. */
const patience = 5000;

interface End {
  /** The builder's descriptor. */
  fd: number;
  /** Ours. */
  local: number;
}

/** Both ends, with what is under way between them. */
export function makeConnection(one: Socket, other: Socket, context: RestoreContext): [number, number] {
  const [client, accepted] = join(one, other, false, context);
  try {
    fillQueue(client.local, accepted.local, context.contents(other.id), context);
    fillQueue(accepted.local, client.local, context.contents(one.id), context);
    shutDown(client.local, one);
    shutDown(accepted.local, other);
    return [client.fd, accepted.fd];
  } finally {
    closeLocal(client.local);
    closeLocal(accepted.local);
  }
}

/** One end; the other has sent what was not read yet, and is gone in the way that the record tells. */
export function makeSurvivor(record: Socket, context: RestoreContext): number {
  const own = record.address ?? loopbackLike(encodeAny(record));
  const peer = record.peerAddress ?? withPort(own, 0);
  const partner: Socket = {
    id: record.id,
    flags: 0,
    family: familyOf(peer) === 2 ? 'ipv4' : 'ipv6',
    type: 'tcp',
    state: 'connected',
    address: peer,
    peerAddress: own,
  };
  const [gone, left] = join(partner, { ...record, address: own }, true, context);
  try {
    const received = context.contents(record.id).filter(({ meta }) => !meta.sent);
    fillQueue(gone.local, left.local, received, context);
    if (record.state === 'reset') {
      settle(left.local, () => unsentOf(gone.local));
      setOption(gone.local, SOL.socket, SO.linger, new Uint8Array(new Int32Array([1, 0]).buffer));
    }
  } finally {
    closeLocal(gone.local);
    context.builder.call('close', SYS.close, gone.fd);
  }
  if (record.state === 'closed') native().syscall(SYS.shutdown, left.local, 1);
  else if (record.state === 'connected') shutDown(left.local, record);
  closeLocal(left.local);
  return left.fd;
}

/** An address of the family, to begin with. */
const encodeAny = (record: Socket): Uint8Array => {
  const bytes = new Uint8Array(record.family === 'ipv4' ? 16 : 28);
  new DataView(bytes.buffer).setUint16(0, kindOf(record).family, true);
  return bytes;
};

/** A socket whose connect(2) has failed: nobody listens at an address that is held for so long. */
export function makeFailed(record: Socket, context: RestoreContext): number {
  const { family } = kindOf(record);
  const fd = makeSocket(family, stream, context);
  const deaf = makeSocket(family, stream, context);
  try {
    withLocal(deaf, context, (local) => {
      tryBind(local, loopbackLike(encodeAny(record)));
      withLocal(fd, context, (failed) => {
        applyOptions(failed, record, 'early', context);
        startConnect(failed, ownAddress(local));
        waitFor(() => (pollNow(failed, POLL.out) & POLL.out) !== 0);
        if (record.state === 'failed') socketOption(failed, SO_ERROR);
      });
    });
  } finally {
    context.builder.call('close', SYS.close, deaf);
  }
  return fd;
}

/** SHUT_RD, SHUT_WR or both. */
export function shutDown(local: number, { readShutdown, writeShutdown }: Socket): void {
  if (!readShutdown && !writeShutdown) return;
  try {
    native().syscall(SYS.shutdown, local, readShutdown ? (writeShutdown ? 2 : 0) : 1);
  } catch (cause) {
    // Of an unconnected UDP socket: it is shut down all the same.
    if (codeOf(cause) !== 'ENOTCONN') throw cause;
  }
}

/** Client and accepted end of a connection. `quiet`: nobody is left who knows the first one's address. */
function join(first: Socket, second: Socket, quiet: boolean, context: RestoreContext): [End, End] {
  const listener = makeEnd(second, context);
  try {
    place(listener.local, second, false, context);
    native().syscall(SYS.listen, listener.local, 8);
    const client = connectEnd(first, second, listener, quiet, context);
    const fd = acceptFrom(listener, keyOf(ownAddress(client.local)), context);
    const accepted = { fd, local: borrow(context.builderPid, fd) };
    applyOptions(accepted.local, second, 'early', context);
    return [client, accepted];
  } finally {
    closeLocal(listener.local);
    context.builder.call('close', SYS.close, listener.fd);
  }
}

function makeEnd(record: Socket, context: RestoreContext): End {
  const fd = makeSocket(kindOf(record).family, stream, context);
  const local = borrow(context.builderPid, fd);
  applyOptions(local, record, 'early', context);
  allowBind(local);
  return { fd, local };
}

/** Connect to the listening socket from the address that the end had, or from another one when it can't be had. */
function connectEnd(
  record: Socket,
  other: Socket,
  listener: End,
  quiet: boolean,
  context: RestoreContext,
): End {
  const target = ownAddress(listener.local);
  // When the listening end had to move to another address, so has this one.
  const moved =
    other.address !== undefined && keyOf(target).split(':')[0] !== keyOf(other.address).split(':')[0];
  for (const exact of moved ? [false] : [true, false]) {
    const end = makeEnd(record, context);
    if (exact) place(end.local, record, quiet, context);
    else if (!quiet && !moved) sayMoved(record, context);
    const to = toFamily(target, kindOf(record).family) ?? target;
    startConnect(end.local, to);
    if (waitFor(() => pollNow(end.local, POLL.out) !== 0) && peerAddress(end.local)) return end;
    closeLocal(end.local);
    context.builder.call('close', SYS.close, end.fd);
  }
  return context.refuse(
    `the connection from ${describeAddress(record.address!)} to ${describeAddress(target)} inside the session can't be made again`,
    'a firewall of this computer may forbid it: allow connections on the loopback interface',
  );
}

const sayMoved = (record: Socket, context: RestoreContext) =>
  context.warn(
    `a connection inside the session gets another address in place of ${describeAddress(record.address!)}, which can't be had here`,
  );

/** Bind to the address the record tells, or to one nearby. */
function place(local: number, record: Socket, quiet: boolean, context: RestoreContext): void {
  const address = record.address!;
  if (tryBind(local, address) === undefined) return;
  if (!quiet) sayMoved(record, context);
  if (tryBind(local, withPort(address, 0)) === undefined) return;
  tryBind(local, loopbackLike(address));
}

/** connect(2) without waiting; what comes of it, poll(2) tells. */
function startConnect(local: number, to: Uint8Array): string | undefined {
  return withoutBlocking(local, () => {
    try {
      native().syscall(SYS.connect, local, to, to.length);
      return undefined;
    } catch (cause) {
      const code = codeOf(cause);
      if (code === undefined) throw cause;
      return code === 'EINPROGRESS' ? undefined : code;
    }
  });
}

const SYS_fcntl = SYS.fcntl;
const F_GETFL = 3;
const F_SETFL = 4;

function withoutBlocking<Result>(local: number, body: () => Result): Result {
  const flags = Number(native().syscall(SYS_fcntl, local, F_GETFL, 0));
  native().syscall(SYS_fcntl, local, F_SETFL, flags | O.nonblock);
  try {
    return body();
  } finally {
    native().syscall(SYS_fcntl, local, F_SETFL, flags);
  }
}

function waitFor(happened: () => boolean): boolean {
  for (const end = Date.now() + patience; !happened(); nap(1)) if (Date.now() > end) return false;
  return true;
}

/** The connection from `key`; whoever else has found the listening socket in its moment is sent away. */
function acceptFrom(listener: End, key: string, context: RestoreContext): number {
  let accepted: number | undefined;
  withoutBlocking(listener.local, () =>
    waitFor(() => {
      const [result] = context.builder.run([[SYS.accept, listener.fd, 0, 0]]);
      if (result === BigInt(-EAGAIN)) return false;
      if (result! < 0n) return false;
      const fd = Number(result);
      const peer = withLocal(fd, context, peerAddress);
      if (peer && keyOf(peer) === key) {
        accepted = fd;
        return true;
      }
      context.builder.call('close', SYS.close, fd);
      return false;
    }),
  );
  return (
    accepted ??
    context.refuse(
      `a connection inside the session can't be made again: ${key} is not accepted`,
      'a firewall of this computer may forbid it: allow connections on the loopback interface',
    )
  );
}

/** A connect(2) of the session that had not been answered, or whose listener had not accepted it. */
export function connectBlocked(local: number, record: Socket, must: boolean, context: RestoreContext): void {
  const to = record.peerAddress!;
  const code = startConnect(local, to);
  if (!must) {
    if (code !== undefined)
      context.warn(`a connection to ${describeAddress(to)} that was being made can't be made here (${code})`);
    return;
  }
  if (code === undefined && waitFor(() => pollNow(local, POLL.out) !== 0) && peerAddress(local)) return;
  context.refuse(
    `the connection to ${describeAddress(to)} that waits to be accepted in the session can't be made again${code === undefined ? '' : ` (${code})`}`,
    'a firewall of this computer may forbid it: allow connections on the loopback interface',
  );
}
