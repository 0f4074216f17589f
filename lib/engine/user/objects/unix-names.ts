/** Names of unix sockets in the builder: bound, over what an ended program left behind, given back. */
import type { Records } from '../../../image/record.ts';
import { AF, AT_FDCWD, O, SYS } from '../abi.ts';
import type { Word } from '../remote.ts';
import type { RestoreContext } from './file-object.ts';
import { errnoName } from './local-calls.ts';

export type Socket = Records['unix-socket'];

export const typeNumbers = { stream: 1, dgram: 2, seqpacket: 5 } as const;
const SYS_unlink = 87;
const SYS_fchownat = 260;
const SYS_fchmodat = 268;
const EADDRINUSE = 98;
const ECONNREFUSED = 111;

/** Do what uses the record's name in the folder it is relative to. */
export function inFolder<Result>(record: Socket, context: RestoreContext, body: () => Result): Result {
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

/** bind(2) of a socket that was bound itself. Whether it has its name now. */
export function bindOwn(record: Socket, context: RestoreContext): boolean {
  const { address } = record;
  if (address === undefined || record.accepted) return false;
  const { builder } = context;
  const errno = bindTo(context.descriptor(record.id), address, typeNumbers[record.type], context);
  if (errno !== 0 && record.unlinked && record.state !== 'listening') {
    context.warn(`a socket loses its name ${describe(address)}, which led nowhere and is taken here`);
    return false;
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
  if (address[0] === 0 || record.unlinked) return true;
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
  return true;
}

/** Bind, over the file that an ended program left behind if need be. 0, or the errno. */
export function bindTo(fd: number, name: Uint8Array, type: number, context: RestoreContext): number {
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
  const probe = builder.call('socket', SYS.socket, AF.unix, type | O.nonblock, 0);
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

export function unlinkName(name: Uint8Array, context: RestoreContext): void {
  if (name[0] === 0) return;
  const { builder } = context;
  builder.reset();
  builder.run([[SYS_unlink, builder.putString(Buffer.from(name).toString('utf8'))]]);
}

/** struct sockaddr_un in the builder, and its length. */
export function putAddress(name: Uint8Array, context: RestoreContext): [bigint, number] {
  const path = name[0] !== 0;
  const bytes = new Uint8Array(2 + name.length + (path ? 1 : 0));
  bytes[0] = AF.unix;
  bytes.set(name, 2);
  return [context.builder.put(bytes), Math.min(bytes.length, 110)];
}

export function describe(name: Uint8Array): string {
  return name[0] === 0
    ? `@${Buffer.from(name.subarray(1)).toString('latin1')}`
    : Buffer.from(name).toString('utf8');
}
