/**
 * Datagrams that a UDP socket has received and nobody has read. They are sent again, each from the address it came
 * from: by the socket of the session that has it, or by one that has it for a moment. An address of another computer
 * nobody can send from, so what came from there is named as lost, as UDP may lose it at any time.
 */
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { SYS } from '../abi.ts';
import { describeProcess } from '../proc.ts';
import type { DumpContext, OpenFile, OutRecord, RestoreContext } from './file-object.ts';
import {
  describeAddress,
  familyOf,
  hostOf,
  isLoopback,
  isWildcard,
  keyOf,
  loopbackLike,
  ownAddress,
  peerAddress,
  portOf,
  toFamily,
  withPort,
} from './inet-address.ts';
import { allowBind } from './inet-options.ts';
import { closeLocal, codeOf, pollNow, queuedMemory, socketOption } from './local-calls.ts';
import { peekOffset, setPeekOffset } from './socket-queue.ts';

const MSG_PEEK = 2;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const POLLIN = 1;
const POLLERR = 8;
/** Most that one can hold, and more. */
const mostBytes = 64 << 10;

export function peekDatagrams(file: OpenFile, context: DumpContext): OutRecord[] {
  const polled = pollNow(file.local, POLLIN);
  if ((polled & POLLIN) === 0) return [];
  if ((polled & POLLERR) !== 0)
    context.notNow(
      file,
      'an error waits in it before its datagrams',
      'try again when the program has read it',
    );
  const found = peekAll(file.local);
  const who = `descriptor ${file.fd} of ${describeProcess(file.pid)}`;
  if (found.length === 0) context.loss(`a datagram without a byte that waits in ${who}`);
  const here = ownHosts(context);
  return found.flatMap(({ data, source }): OutRecord[] => {
    if (isLoopback(hostOf(source)) || here.has(hostOf(source)))
      return [{ name: 'content', meta: { file: file.id, message: true, source }, data }];
    context.loss(`a datagram of ${data.length} bytes from ${describeAddress(source)} that waits in ${who}`);
    return [];
  });
}

/** SO_PEEK_OFF goes from one to the next; it belongs to the socket and is put back. */
function peekAll(local: number): { data: Uint8Array; source: Uint8Array }[] {
  const before = peekOffset(local);
  const found: { data: Uint8Array; source: Uint8Array }[] = [];
  try {
    for (let at = 0; ; ) {
      setPeekOffset(local, at);
      const got = native().receiveMessage(local, mostBytes, MSG_PEEK | MSG_DONTWAIT);
      if (!got) return found;
      // A buffer for each, no longer than the datagram.
      found.push({ data: got.data.slice(), source: got.address });
      at += got.data.length;
    }
  } finally {
    setPeekOffset(local, before);
  }
}

/** Addresses of this computer that the session uses. */
function ownHosts(context: DumpContext): ReadonlySet<string> {
  return context.once('own internet addresses', () => {
    const hosts = context.files
      .filter(({ stat, local }) => stat.isSocket() && [2, 10].includes(socketOption(local, 39)))
      .map(({ local }) => hostOf(ownAddress(local)));
    return new Set(hosts.filter((host) => !isWildcard(host)));
  });
}

/** A UDP socket of the session that exists again: our descriptor of it, and its address. */
export interface Sender {
  local: number;
  key: string;
}

/** Send what waited in `receiver` again. `make` gives a new UDP socket of the session's network, of a family. */
export function fillDatagrams(
  receiver: number,
  contents: readonly { meta: Records['content']; data: Uint8Array }[],
  senders: readonly Sender[],
  make: (family: number) => number,
  context: RestoreContext,
): void {
  const own = ownAddress(receiver);
  for (const { meta, data } of contents) {
    const source = meta.source ?? loopbackLike(own);
    const before = queuedMemory(receiver);
    const known = senders.find(({ key }) => key === keyOf(source));
    const local = known ? known.local : makeSender(source, receiver, make, context);
    try {
      sendTo(local, data, targetOf(own, source, local));
    } catch (cause) {
      if (codeOf(cause) === undefined) throw cause;
    } finally {
      if (!known) closeLocal(local);
    }
    if (queuedMemory(receiver) === before)
      context.warn(
        `a datagram of ${data.length} bytes from ${describeAddress(source)}, which waited at ${describeAddress(own)}, is lost`,
      );
  }
}

/** Where it is found from the source's address, in the family of the sending socket. */
function targetOf(own: Uint8Array, source: Uint8Array, local: number): Uint8Array {
  const host = isWildcard(hostOf(own)) ? source : own;
  return toFamily(withPort(host, portOf(own)), familyOf(ownAddress(local))) ?? own;
}

function sendTo(local: number, data: Uint8Array, target: Uint8Array): void {
  native().syscall(SYS.sendto, local, data, data.length, MSG_DONTWAIT | MSG_NOSIGNAL, target, target.length);
}

/** A socket that has the source's address, or at least one of this computer. */
function makeSender(
  source: Uint8Array,
  receiver: number,
  make: (family: number) => number,
  context: RestoreContext,
): number {
  const local = make(familyOf(source));
  allowBind(local);
  for (const address of [source, withPort(source, 0), loopbackLike(source)]) {
    try {
      native().syscall(SYS.bind, local, address, address.length);
    } catch {
      continue;
    }
    const peer = peerAddress(receiver);
    if (address !== source && !peer)
      context.warn(
        `a datagram from ${describeAddress(source)} comes from another address here, which is taken`,
      );
    return local;
  }
  return local;
}
