/**
 * System V message queues: msgget(2). A pod has ids of its own, so all of them are the session's. MSG_COPY reads a
 * message by its place and leaves it there.
 */
import type { Records } from '../../../image/record.ts';
import { PodError } from '../../../stream/error.ts';
import { SYS } from '../abi.ts';
import { type Remote, RemoteError } from '../remote.ts';
import type { SessionView } from '../session-view.ts';
import type { OutRecord } from './file-object.ts';
import { errnoName } from './local-calls.ts';
import {
  askAny,
  IPC_CREAT,
  IPC_EXCL,
  listSysv,
  makeUnderNumber,
  type SysvKind,
  setPermissions,
} from './sysv-ipc.ts';

type Record = Records['sysv-queue'];

const IPC_NOWAIT = 0o4000;
const MSG_COPY = 0o40000;

const kind: SysvKind = {
  name: 'message queue',
  call: SYS.msgctl,
  before: [],
  info: 12,
  statAny: 13,
  structSize: 120,
  nextId: 'msg_next_id',
};
/** msg_qnum, msg_qbytes in struct msqid64_ds. */
const numberOffset = 80;
const bytesOffset = 88;
/** A frame takes so many messages, and so many bytes of them. */
const messagesAFrame = 1024;
const bytesAFrame = 512 << 10;

interface Message {
  type: bigint;
  data: Uint8Array;
}

/** The queues of a pod. */
export function dumpQueues(view: SessionView): OutRecord[] {
  const queues = view.within(view.alive[0]!.pid, (remote) => listSysv(kind, remote));
  return queues.flatMap(({ object, view: status }) => {
    const messages = askAny(view, kind, object, (remote) =>
      readMessages(object.id, Number(status.getBigUint64(numberOffset, true)), remote),
    );
    const meta = { ...object, capacity: status.getBigUint64(bytesOffset, true) };
    return packMessages(messages).map(({ types, lengths, data }) => ({
      name: 'sysv-queue' as const,
      meta: { ...meta, types, lengths },
      data,
    }));
  });
}

function readMessages(id: number, count: number, remote: Remote): Message[] {
  return Array.from({ length: count }, (_none, index) => {
    remote.reset();
    const room = remote.room - 64;
    const place = remote.reserve(room);
    const length = Number(
      remote.call('msgrcv', SYS.msgrcv, id, place, room - 8, index, MSG_COPY | IPC_NOWAIT),
    );
    const bytes = remote.read(place, length + 8);
    return { type: new DataView(bytes.buffer).getBigInt64(0, true), data: bytes.slice(8) };
  });
}

/** In pieces, of which each fits a frame; an empty queue is one piece too. */
function packMessages(
  messages: readonly Message[],
): { types: bigint[]; lengths: number[]; data: Uint8Array }[] {
  const pieces: Message[][] = [[]];
  let bytes = 0;
  for (const message of messages) {
    const full = pieces.at(-1)!.length === messagesAFrame || bytes + message.data.length > bytesAFrame;
    if (full) {
      pieces.push([]);
      bytes = 0;
    }
    pieces.at(-1)!.push(message);
    bytes += message.data.length;
  }
  return pieces.map((piece) => ({
    types: piece.map(({ type }) => type),
    lengths: piece.map(({ data }) => data.length),
    data: Buffer.concat(piece.map(({ data }) => data)),
  }));
}

export interface QueuePiece {
  record: Record;
  data: Uint8Array;
}

/** Make queues in the builder; the pieces of one follow each other. */
export function makeQueues(
  pieces: readonly QueuePiece[],
  builder: Remote,
  warn: (sentence: string) => void,
): void {
  const byId = new Map<number, QueuePiece[]>();
  for (const piece of pieces) byId.set(piece.record.id, [...(byId.get(piece.record.id) ?? []), piece]);
  // In the order of their numbers (createUnderNumber).
  for (const [, queue] of [...byId].sort(([a], [b]) => a - b)) makeQueue(queue, builder, warn);
}

function makeQueue(pieces: readonly QueuePiece[], builder: Remote, warn: (sentence: string) => void): void {
  const { record } = pieces[0]!;
  makeUnderNumber(kind, record, [SYS.msgget, record.key, IPC_CREAT | IPC_EXCL | 0o600], builder);
  const setCapacity = (view: DataView) => view.setBigUint64(bytesOffset, record.capacity, true);
  const held = pieces.reduce((sum, { data }) => sum + data.length, 0);
  // Its owner may have made it smaller than what lies in it.
  const enough = record.capacity < BigInt(held) ? BigInt(held) : record.capacity;
  const makeRoom = (view: DataView) => {
    if (view.getBigUint64(bytesOffset, true) < enough) view.setBigUint64(bytesOffset, enough, true);
  };
  setPermissions(kind, { ...record, mode: 0o600 }, builder, () => undefined, makeRoom);
  for (const { record: piece, data } of pieces) {
    let at = 0;
    piece.lengths.forEach((length, index) => {
      send(record.id, piece.types[index]!, data.subarray(at, at + length), builder);
      at += length;
    });
  }
  setPermissions(kind, record, builder, warn, setCapacity);
}

function send(id: number, type: bigint, data: Uint8Array, builder: Remote): void {
  const message = new Uint8Array(8 + data.length);
  new DataView(message.buffer).setBigInt64(0, type, true);
  message.set(data, 8);
  builder.reset();
  try {
    builder.call('msgsnd', SYS.msgsnd, id, builder.put(message), data.length, IPC_NOWAIT);
  } catch (cause) {
    if (!(cause instanceof RemoteError)) throw cause;
    throw new PodError(
      'cannot-restart',
      `System V message queue ${id} can't be filled again (${errnoName(cause.errno)})`,
      'see kernel.msgmnb and kernel.msgmax',
    );
  }
}
