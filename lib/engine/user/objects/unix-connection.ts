/** Connections of unix sockets made again in the builder: both ends, or one and what it had to read. */
import { AF, SYS } from '../abi.ts';
import type { RestoreContext } from './file-object.ts';
import {
  bindTo,
  describe,
  inFolder,
  putAddress,
  type Socket,
  typeNumbers,
  unlinkName,
} from './unix-names.ts';

/** A pair: ours, the other end. */
export function makeConnection(record: Socket, context: RestoreContext): [number, number] {
  const name = record.accepted ? record.address : record.peerAddress;
  if (name === undefined || record.type === 'dgram') return makePair(record, context);
  const ends = inFolder(record, context, () => connectThrough(name, record, context));
  if (!ends) {
    context.warn(`a connection loses the name ${describe(name)} of its listener, which is taken here`);
    return makePair(record, context);
  }
  return record.accepted ? [ends.accepted, ends.client] : [ends.client, ends.accepted];
}

export function makePair(record: Socket, context: RestoreContext): [number, number] {
  const { builder } = context;
  builder.reset();
  const address = builder.reserve(8);
  builder.call('socketpair', SYS.socketpair, AF.unix, typeNumbers[record.type], 0, address);
  const ends = new Int32Array(builder.read(address, 8).buffer);
  return [ends[0]!, ends[1]!];
}

/** Connect through a listener that exists for a moment; undefined when its name can't be had. */
function connectThrough(
  name: Uint8Array,
  record: Socket,
  context: RestoreContext,
): { client: number; accepted: number } | undefined {
  const { builder } = context;
  const type = typeNumbers[record.type];
  const listener = Number(builder.call('socket', SYS.socket, AF.unix, type, 0));
  try {
    if (bindTo(listener, name, type, context) !== 0) return undefined;
    builder.call('listen', SYS.listen, listener, 1);
    const client = Number(builder.call('socket', SYS.socket, AF.unix, type, 0));
    builder.reset();
    builder.call('connect', SYS.connect, client, ...putAddress(name, context));
    const accepted = Number(builder.call('accept', SYS.accept, listener, 0, 0));
    unlinkName(name, context);
    return { client, accepted };
  } finally {
    builder.run([[SYS.close, listener]]);
  }
}

/** connect(2) to nobody. */
export function disconnect(fd: number, context: RestoreContext): void {
  const { builder } = context;
  builder.reset();
  builder.call('connect', SYS.connect, fd, builder.put(new Uint8Array(16)), 2);
}
