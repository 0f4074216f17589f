/**
 * Connections that wait in a listening socket to be accepted. The kernel tells who has made them; what was sent
 * through one can't be looked at, because nobody has the end that received it.
 */
import type { Records } from '../../../image/record.ts';
import { AF, F, O, SYS } from '../abi.ts';
import type { DumpContext, OpenFile, RestoreContext } from './file-object.ts';
import { errnoName } from './local-calls.ts';
import { type DiagSocket, fileOf, unacceptedSockets, unixSockets } from './socket-diag.ts';
import { describe, putAddress, type Socket, typeNumbers } from './unix-names.ts';

/** In place of an id: the connection was closed before it was accepted. */
const closed = -1;
const seqpacket = 5;

/** Who waits in a listening socket, in order. */
export function readBacklog(
  file: OpenFile,
  socket: DiagSocket,
  context: DumpContext,
): Pick<Records['unix-socket'], 'waiting'> {
  if (socket.waiting === 0) return {};
  return { waiting: socket.clients.map((inode) => readClient(file, socket, inode, context)) };
}

function readClient(file: OpenFile, socket: DiagSocket, inode: number, context: DumpContext): number {
  const client = fileOf(inode, context);
  if (client) {
    const unread = unixSockets(file, context).get(inode)?.unread ?? 0;
    if (unread === 0) return client.id;
  } else if (inode === 0) {
    const name = Buffer.from(socket.name ?? []);
    const ends = unacceptedSockets(file, context).filter((end) => !end.peer && name.equals(end.name ?? name));
    // Of a message without a byte nothing would tell.
    if (socket.type !== seqpacket && ends.every(({ queued }) => queued === 0)) return closed;
  } else {
    return context.refuse(
      file,
      'a process outside the session waits for its connection to be accepted',
      'end that process first, or let the program accept the connection',
    );
  }
  return context.notNow(
    file,
    'something was sent through a connection that waits in it to be accepted',
    'try again when the program has accepted it',
  );
}

/** The listening socket of the session in which a connection waits. */
export function findListener(file: OpenFile, socket: DiagSocket, context: DumpContext): OpenFile {
  for (const each of unixSockets(file, context).values()) {
    const listener = each.clients.includes(socket.inode) ? fileOf(each.inode, context) : undefined;
    if (listener) return listener;
  }
  return context.refuse(
    file,
    'its connection waits to be accepted by a process outside the session',
    'let the program disconnect first, or run its partner in the same session',
  );
}

/** Connect again whoever waited in a listening socket of the builder that has its name now. */
export function connectWaiting(record: Socket, context: RestoreContext): void {
  const { builder } = context;
  for (const id of record.waiting ?? []) {
    const fd =
      id === closed
        ? Number(builder.call('socket', SYS.socket, AF.unix, typeNumbers[record.type], 0))
        : context.descriptor(id);
    builder.reset();
    const flags = builder.call('F_GETFL', SYS.fcntl, fd, F.getfl, 0);
    // Where it does not fit it must not wait for ever.
    const [, connected] = builder.run([
      [SYS.fcntl, fd, F.setfl, flags | BigInt(O.nonblock)],
      [SYS.connect, fd, ...putAddress(record.address ?? new Uint8Array(), context)],
      [SYS.fcntl, fd, F.setfl, flags],
    ]);
    if (connected! < 0n) {
      context.refuse(
        `a connection that waited at ${describe(record.address ?? new Uint8Array())} can't be made again (${errnoName(Number(-connected!))})`,
        'the image does not fit together: load it again',
      );
    }
    if (id === closed) builder.call('close', SYS.close, fd);
  }
}
