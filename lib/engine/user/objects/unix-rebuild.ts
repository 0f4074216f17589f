/** Unix sockets made again in the builder (see unix-socket.ts). */
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { AT_FDCWD, O, SYS } from '../abi.ts';
import { RemoteError, type Word } from '../remote.ts';
import type { RestoreContext } from './file-object.ts';
import { borrow, closeLocal, codeOf, errnoName, setSocketOption, socketOption } from './local-calls.ts';
import { setStatusFlags } from './paths.ts';
import { setPeekOffset } from './socket-queue.ts';

type Socket = Records['unix-socket'];
type Content = ReturnType<RestoreContext['contents']>[number];

const AF_UNIX = 1;
const typeNumbers = { stream: 1, dgram: 2, seqpacket: 5 } as const;
const SO = {
  reuseaddr: 2,
  sndbuf: 7,
  rcvbuf: 8,
  passcred: 16,
  rcvtimeo: 20,
  sndtimeo: 21,
  sndbufforce: 32,
  rcvbufforce: 33,
  passpidfd: 76,
} as const;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const SYS_unlink = 87;
const SYS_fchownat = 260;
const SYS_fchmodat = 268;
const EADDRINUSE = 98;
const ECONNREFUSED = 111;

interface State {
  /** Every socket record seen so far, in order. */
  records: Map<number, Socket>;
  /** Ends of pairs whose record is still to come, by its id. */
  waiting: Map<number, number>;
  finished: boolean;
}

const stateOf = (context: RestoreContext): State =>
  context.once('unix sockets', () => ({ records: new Map(), waiting: new Map(), finished: false }));

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
      ? makeOrphan(record, context)
      : Number(context.builder.call('socket', SYS.socket, AF_UNIX, typeNumbers[record.type], 0));
    setOptions(fd, record, context);
    return fd;
  }
  if (record.peerClosed) return makeSurvivor(record, context);
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

/** Messages with a sender's name or pid wait until names and pids exist. */
function isLate(content: Content): boolean {
  return content.meta.sender !== undefined || content.meta.credentials !== undefined;
}

/** A pair: ours, the other end. */
function makeConnection(record: Socket, context: RestoreContext): [number, number] {
  const name = record.accepted ? record.address : record.peerAddress;
  if (name === undefined || record.type === 'dgram') return makePair(record, context);
  const ends = inFolder(record, context, () => connectThrough(name, record, context));
  if (!ends) {
    context.warn(`a connection loses the name ${describe(name)} of its listener, which is taken here`);
    return makePair(record, context);
  }
  return record.accepted ? [ends.accepted, ends.client] : [ends.client, ends.accepted];
}

function makePair(record: Socket, context: RestoreContext): [number, number] {
  const { builder } = context;
  builder.reset();
  const address = builder.reserve(8);
  builder.call('socketpair', SYS.socketpair, AF_UNIX, typeNumbers[record.type], 0, address);
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
  const listener = Number(builder.call('socket', SYS.socket, AF_UNIX, type, 0));
  try {
    if (bindTo(listener, name, type, context) !== 0) return undefined;
    builder.call('listen', SYS.listen, listener, 1);
    const client = Number(builder.call('socket', SYS.socket, AF_UNIX, type, 0));
    builder.reset();
    builder.call('connect', SYS.connect, client, ...putAddress(name, context));
    const accepted = Number(builder.call('accept', SYS.accept, listener, 0, 0));
    unlinkName(name, context);
    return { client, accepted };
  } finally {
    builder.run([[SYS.close, listener]]);
  }
}

/** The end that is left of a connection whose other end was closed. */
function makeSurvivor(record: Socket, context: RestoreContext): number {
  const { builder } = context;
  const [fd, other] = makeConnection(record, context);
  setOptions(fd, record, context);
  const contents = context.contents(record.id);
  if (contents.some(isLate)) {
    context.warn(
      'messages that wait in a socket whose partner is gone lose the name and pid of their sender',
    );
  }
  fill(other, contents, context);
  if (record.resetPending && record.type !== 'dgram') {
    // A peer that closes with something unread is what makes the error.
    builder.reset();
    builder.call(
      'sendto',
      SYS.sendto,
      fd,
      builder.put(new Uint8Array(1)),
      1,
      MSG_DONTWAIT | MSG_NOSIGNAL,
      0,
      0,
    );
  }
  builder.call('close', SYS.close, other);
  return fd;
}

/** Datagrams that came from a partner which has turned elsewhere since. */
function isOrphanWithContent(record: Socket, context: RestoreContext): boolean {
  return record.type === 'dgram' && record.address === undefined && context.contents(record.id).length > 0;
}

function makeOrphan(record: Socket, context: RestoreContext): number {
  const { builder } = context;
  const [fd, other] = makePair(record, context);
  fill(other, context.contents(record.id), context);
  disconnect(fd, context);
  builder.call('close', SYS.close, other);
  return fd;
}

/** connect(2) to nobody. */
function disconnect(fd: number, context: RestoreContext): void {
  const { builder } = context;
  builder.reset();
  builder.call('connect', SYS.connect, fd, builder.put(new Uint8Array(16)), 2);
}

/** Put messages into a queue by sending them from the other end, a descriptor of the builder. */
function fill(other: number, contents: readonly Content[], context: RestoreContext): void {
  if (contents.length === 0) return;
  const sender = borrow(context.builderPid, other);
  try {
    const before = makeRoom(sender, contents);
    for (const { meta, data } of contents) send(sender, data, meta.message === true, context);
    if (before !== undefined) setBuffer(sender, 'sndbuf', before);
  } finally {
    closeLocal(sender);
  }
}

/** Let a sender hold as much as was under way; its own size comes back afterwards. Bytes as SO_SNDBUF reads. */
function makeRoom(sender: number, contents: readonly Content[]): number | undefined {
  const before = socketOption(sender, SO.sndbuf);
  // Each message costs a buffer of a power of two and its head.
  const wanted = contents.reduce((sum, { data }) => sum + 2 * data.length + 4096, 0);
  if (wanted <= before) return undefined;
  setBuffer(sender, 'sndbuf', wanted);
  return before;
}

/** SO_SNDBUF or SO_RCVBUF such that it reads as `value`: the kernel doubles what it is told. */
function setBuffer(local: number, which: 'sndbuf' | 'rcvbuf', value: number): void {
  if (socketOption(local, SO[which]) === value) return;
  const half = Math.min(value >>> 1, 0x3fffffff);
  try {
    setSocketOption(local, SO[`${which}force`], half);
  } catch (cause) {
    if (codeOf(cause) !== 'EPERM') throw cause;
    setSocketOption(local, SO[which], half);
  }
}

function send(sender: number, data: Uint8Array, whole: boolean, context: RestoreContext): void {
  for (let at = 0; whole ? at === 0 : at < data.length; ) {
    const piece = data.subarray(at);
    let sent: number;
    try {
      sent = Number(
        native().syscall(SYS.sendto, sender, piece, piece.length, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0),
      );
    } catch (cause) {
      refuseQueue(codeOf(cause) ?? 'error', context);
    }
    if (whole) return;
    at += sent;
  }
}

function refuseQueue(why: string, context: RestoreContext): never {
  context.refuse(
    `what waited in a unix socket does not fit into it here (${why})`,
    "raise net.core.wmem_max and net.unix.max_dgram_qlen to the old computer's values, or restart as root",
  );
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
  } finally {
    closeLocal(local);
  }
  setStatusFlags(fd, record.flags, context);
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
  const bind = (record: Socket) => inFolder(record, context, () => bindOwn(record, context));
  for (const record of records) if (record.unlinked) bind(record);
  for (const record of records) if (!record.unlinked) bind(record);
  for (const record of records) {
    if (record.state === 'listening') listen(record, context);
    inFolder(record, context, () => fillLate(record, state, context));
  }
  for (const record of records) {
    if (record.type === 'dgram' && record.state === 'connected') connectOneWay(record, state, context);
  }
  for (const record of records) close(record, context);
}

function listen(record: Socket, context: RestoreContext): void {
  const backlog = Math.min(record.backlog ?? 0, 0x7fffffff);
  context.builder.call('listen', SYS.listen, context.descriptor(record.id), backlog);
}

/** Shutdown and SO_PEEK_OFF, which would be in the way of filling queues. */
function close(record: Socket, context: RestoreContext): void {
  const fd = context.descriptor(record.id);
  const { readShutdown, writeShutdown } = record;
  if ((readShutdown || writeShutdown) && !record.peerClosed) {
    context.builder.run([[SYS.shutdown, fd, readShutdown ? (writeShutdown ? 2 : 0) : 1]]);
  }
  if (record.peekOffset === undefined) return;
  const local = borrow(context.builderPid, fd);
  try {
    setPeekOffset(local, record.peekOffset);
  } finally {
    closeLocal(local);
  }
}

/** Do what uses the record's name in the folder it is relative to. */
function inFolder<Result>(record: Socket, context: RestoreContext, body: () => Result): Result {
  if (record.folder === undefined) return body();
  const { builder } = context;
  builder.reset();
  const before = builder.call('open', SYS.openat, AT_FDCWD, builder.putString('.'), O.path | O.directory);
  try {
    const [entered] = builder.run([[SYS.chdir, builder.putString(record.folder)]]);
    if (entered! < 0n) {
      context.refuse(
        `the folder ${record.folder} of a socket's name can't be entered (${errnoName(Number(-entered!))})`,
        'bring the folder to this computer',
      );
    }
    return body();
  } finally {
    builder.run([
      [SYS.fchdir, before],
      [SYS.close, before],
    ]);
  }
}

/** bind(2) of a socket that was bound itself. */
function bindOwn(record: Socket, context: RestoreContext): void {
  const { address } = record;
  if (address === undefined || record.accepted) return;
  const { builder } = context;
  const errno = bindTo(context.descriptor(record.id), address, typeNumbers[record.type], context);
  if (errno !== 0 && record.unlinked && record.state !== 'listening') {
    context.warn(`a socket loses its name ${describe(address)}, which led nowhere and is taken here`);
    return;
  }
  if (errno !== 0) {
    context.refuse(
      `a socket of the session was bound to ${describe(address)}, which ${
        errno === EADDRINUSE ? 'something else has here' : `can't be had here (${errnoName(errno)})`
      }`,
      errno === EADDRINUSE
        ? 'end the program that has it, or remove the file'
        : 'make its folder, writable for the session',
    );
  }
  if (address[0] === 0) return;
  if (record.unlinked) {
    unlinkName(address, context);
    return;
  }
  builder.reset();
  const path = builder.putString(Buffer.from(address).toString('utf8'));
  const calls: Word[][] = [];
  if (record.fileUid !== undefined && record.fileGid !== undefined) {
    calls.push([SYS_fchownat, AT_FDCWD, path, record.fileUid, record.fileGid, 0x100]);
  }
  if (record.fileMode !== undefined) calls.push([SYS_fchmodat, AT_FDCWD, path, record.fileMode & 0o7777]);
  if ([...builder.run(calls)].some((result) => result < 0n)) {
    context.warn(`the socket file ${describe(address)} could not be given its owner and mode`);
  }
}

/** Bind, over the file that an ended program left behind if need be. 0, or the errno. */
function bindTo(fd: number, name: Uint8Array, type: number, context: RestoreContext): number {
  const { builder } = context;
  const attempt = () => {
    builder.reset();
    return Number(-builder.run([[SYS.bind, fd, ...putAddress(name, context)]])[0]!);
  };
  const errno = attempt();
  if (errno !== EADDRINUSE || name[0] === 0 || !isAbandoned(name, type, context)) return errno;
  unlinkName(name, context);
  return attempt();
}

/** A socket file that nobody listens at: connecting to it is refused, while any other file says something else. */
function isAbandoned(name: Uint8Array, type: number, context: RestoreContext): boolean {
  const { builder } = context;
  const probe = builder.call('socket', SYS.socket, AF_UNIX, type | O.nonblock, 0);
  try {
    builder.reset();
    const [result] = builder.run([[SYS.connect, probe, ...putAddress(name, context)]]);
    return result === BigInt(-ECONNREFUSED) && isSocketFile(name, context);
  } finally {
    builder.call('close', SYS.close, probe);
  }
}

/** connect(2) refuses other kinds of file with the same error. */
function isSocketFile(name: Uint8Array, context: RestoreContext): boolean {
  const { builder } = context;
  builder.reset();
  const path = builder.putString(Buffer.from(name).toString('utf8'));
  const room = builder.reserve(144);
  const SYS_newfstatat = 262;
  const [result] = builder.run([[SYS_newfstatat, AT_FDCWD, path, room, 0x100 /* AT_SYMLINK_NOFOLLOW */]]);
  if (result! < 0n) return false;
  const mode = new DataView(builder.read(room, 144).buffer).getUint32(24, true);
  return (mode & 0o170000) === 0o140000;
}

function unlinkName(name: Uint8Array, context: RestoreContext): void {
  if (name[0] === 0) return;
  const { builder } = context;
  builder.reset();
  builder.run([[SYS_unlink, builder.putString(Buffer.from(name).toString('utf8'))]]);
}

/** struct sockaddr_un in the builder, and its length. */
function putAddress(name: Uint8Array, context: RestoreContext): [bigint, number] {
  const path = name[0] !== 0;
  const bytes = new Uint8Array(2 + name.length + (path ? 1 : 0));
  bytes[0] = AF_UNIX;
  bytes.set(name, 2);
  return [context.builder.put(bytes), Math.min(bytes.length, 110)];
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
  if (contents.length === 0 || record.peerClosed || isOrphanWithContent(record, context)) return;
  if (isPaired(record)) {
    if (contents.some(isLate)) for (const content of contents) sendAs(record.peer!, content, context);
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
      : Number(builder.call('socket', SYS.socket, AF_UNIX, typeNumbers.dgram, 0));
    builder.reset();
    builder.call('connect', SYS.connect, from, ...putAddress(record.address, context));
    sendFrom(from, content, context);
    if (known) disconnect(from, context);
    else builder.call('close', SYS.close, from);
  }
}

function sendAs(sender: number, content: Content, context: RestoreContext): void {
  sendFrom(context.descriptor(sender), content, context);
}

/** One message from a connected socket of the builder, under the pid and user it came from. */
function sendFrom(fd: number, content: Content, context: RestoreContext): void {
  const { credentials } = content.meta;
  if (credentials?.length === 3 && sendWithCredentials(fd, content.data, credentials, context)) return;
  if (credentials) context.warn('a message that waits in a socket shows the wrong sender (SCM_CREDENTIALS)');
  const local = borrow(context.builderPid, fd);
  try {
    const before = makeRoom(local, [content]);
    send(local, content.data, content.meta.message === true, context);
    if (before !== undefined) setBuffer(local, 'sndbuf', before);
  } finally {
    closeLocal(local);
  }
}

/** sendmsg(2) with SCM_CREDENTIALS; false when the builder may not speak for that user. */
function sendWithCredentials(
  fd: number,
  data: Uint8Array,
  credentials: number[],
  context: RestoreContext,
): boolean {
  const { builder } = context;
  builder.reset();
  if (data.length + 256 > builder.room) return false;
  const control = new DataView(new ArrayBuffer(32));
  control.setBigUint64(0, 28n, true);
  control.setInt32(8, 1 /* SOL_SOCKET */, true);
  control.setInt32(12, 2 /* SCM_CREDENTIALS */, true);
  credentials.forEach((id, index) => {
    control.setUint32(16 + 4 * index, id, true);
  });
  const vector = new BigUint64Array([builder.put(data), BigInt(data.length)]);
  const header = new BigUint64Array(7);
  header[2] = builder.put(new Uint8Array(vector.buffer));
  header[3] = 1n;
  header[4] = builder.put(new Uint8Array(control.buffer));
  header[5] = 32n;
  const message = builder.put(new Uint8Array(header.buffer));
  const [sent] = builder.run([[SYS.sendmsg, fd, message, MSG_DONTWAIT | MSG_NOSIGNAL]]);
  return sent === BigInt(data.length);
}

function describe(name: Uint8Array): string {
  return name[0] === 0
    ? `@${Buffer.from(name.subarray(1)).toString('latin1')}`
    : Buffer.from(name).toString('utf8');
}
