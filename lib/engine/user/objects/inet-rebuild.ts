/**
 * Internet sockets made again in the builder (see inet-socket.ts). A socket must be made by the builder, in the network
 * of the pod; everything else is done through a descriptor of our own. Ports are bound at once, so that one that is
 * taken here is known before anything else is made; nobody outside gets an answer before the tasks run.
 */
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { O, SYS } from '../abi.ts';
import type { RestoreContext } from './file-object.ts';
import { describeAddress, keyOf, ownAddress } from './inet-address.ts';
import { bindOwn, makeSocket } from './inet-bind.ts';
import { allowBind, applyOptions, IP_FREEBIND, kindOf, SO, SOL, setOption } from './inet-options.ts';
import { borrow, closeLocal, codeOf, withLocal } from './local-calls.ts';
import { setStatusFlags } from './paths.ts';
import { makeKept } from './tcp-keep.ts';
import { connectBlocked, makeConnection, makeFailed, makeSurvivor, shutDown } from './tcp-rebuild.ts';
import { joinGroups } from './udp-groups.ts';
import { fillDatagrams } from './udp-queue.ts';

type Socket = Records['inet-socket'];

interface State {
  records: Socket[];
  /** Connections whose other end has not come yet, by its id. */
  halves: Map<number, Socket>;
  finished: boolean;
}

const stateOf = (context: RestoreContext): State =>
  context.once('internet sockets', () => ({ records: [], halves: new Map(), finished: false }));

export function restoreInet(given: Socket, context: RestoreContext): void {
  const state = stateOf(context);
  const record = given.kept && context.resetsConnections ? giveUp(given, context) : given;
  state.records.push(record);
  if (record.kept) {
    context.keep(record.id, makeKept(record, record.kept, context));
    return;
  }
  if (record.peer !== undefined) {
    const other = state.halves.get(record.id);
    if (!other) {
      state.halves.set(record.peer, record);
      return;
    }
    state.halves.delete(record.id);
    const [mine, others] = makeConnection(record, other, context);
    context.keep(record.id, mine);
    context.keep(other.id, others);
    return;
  }
  if (record.type === 'tcp' && (record.state === 'refused' || record.state === 'failed'))
    context.keep(record.id, makeFailed(record, context));
  else if (record.type === 'tcp' && ['connected', 'closed', 'reset'].includes(record.state))
    context.keep(record.id, makeSurvivor(record, context));
  else context.keep(record.id, makePlain(record, context));
}

/** It could go on, but not here. */
function giveUp({ kept: _, peerAddress, ...record }: Socket, context: RestoreContext): Socket {
  context.warn(
    `the connection from ${describeAddress(record.address!)} to ${describeAddress(peerAddress!)} is as if reset by its peer`,
  );
  return { ...record, state: 'reset' };
}

/** What is at most bound. */
function makePlain(record: Socket, context: RestoreContext): number {
  const { family, type } = kindOf(record);
  const fd = makeSocket(family, type, context);
  withLocal(fd, context, (local) => {
    applyOptions(local, record, 'early', context);
    allowBind(local);
    if (record.address) bindOwn(local, record, context);
    if (record.groups) joinGroups(local, record.groups, context);
  });
  return fd;
}

/** Names, destinations, queues of datagrams: when every socket exists. */
export function finishInet(context: RestoreContext): void {
  const state = stateOf(context);
  if (state.finished) return;
  state.finished = true;
  const { records } = state;
  const each = (wanted: (record: Socket) => boolean, body: (local: number, record: Socket) => void) => {
    for (const record of records.filter(wanted))
      withLocal(context.descriptor(record.id), context, (local) => body(local, record));
  };
  const isTcp = (name: Socket['state']) => (record: Socket) => record.type === 'tcp' && record.state === name;
  each(isTcp('listening'), (local, record) => listen(local, record, context));
  each(isTcp('waiting'), (local, record) => {
    connectBlocked(local, record, true, context);
    shutDown(local, record);
  });
  each(isTcp('connecting'), (local, record) => connectBlocked(local, record, false, context));
  const isUdp = ({ type }: Socket) => type === 'udp';
  each(
    (record) => isUdp(record) && record.peerAddress !== undefined,
    (local, record) => connectUdp(local, record, context),
  );
  refill(records.filter(isUdp), context);
  each(isUdp, shutDown);
  each(
    // Those that are kept are not whole before they leave repair.
    ({ kept }) => kept === undefined,
    (local, record) => {
      // Both were on for the restart's sake.
      setOption(local, SOL.ip, IP_FREEBIND, 0);
      setOption(local, SOL.socket, SO.reuseaddr, 0);
      applyOptions(local, record, 'late', context);
    },
  );
  for (const { id, flags } of records) setStatusFlags(context.descriptor(id), flags, context);
}

function listen(local: number, record: Socket, context: RestoreContext): void {
  try {
    native().syscall(SYS.listen, local, Math.min(record.backlog ?? 0, 0x7fffffff));
  } catch (cause) {
    context.refuse(
      `the session can't listen at ${describeAddress(ownAddress(local))} here (${codeOf(cause)})`,
      'end the program that listens there',
    );
  }
}

function connectUdp(local: number, { peerAddress }: Socket, context: RestoreContext): void {
  try {
    native().syscall(SYS.connect, local, peerAddress!, peerAddress!.length);
  } catch (cause) {
    context.warn(
      `a UDP socket of the session can't be connected to ${describeAddress(peerAddress!)} here (${codeOf(cause)})`,
    );
  }
}

function refill(records: readonly Socket[], context: RestoreContext): void {
  const full = records.filter(({ id }) => context.contents(id).length > 0);
  if (full.length === 0) return;
  const senders = records.flatMap((record) => {
    const local = borrow(context.builderPid, context.descriptor(record.id));
    return [{ local, key: keyOf(ownAddress(local)) }];
  });
  try {
    for (const record of full) {
      withLocal(context.descriptor(record.id), context, (local) => {
        fillDatagrams(
          local,
          context.contents(record.id),
          senders,
          (family) => lend(family, context),
          context,
        );
      });
    }
  } finally {
    for (const { local } of senders) closeLocal(local);
  }
}

/** A UDP socket of the pod's network that only we have. */
function lend(family: number, context: RestoreContext): number {
  const fd = makeSocket(family, 2 | O.cloexec, context);
  try {
    return borrow(context.builderPid, fd);
  } finally {
    context.builder.call('close', SYS.close, fd);
  }
}
