/**
 * Netlink: requests to the kernel as bytes, and its answers. netlink(7), rtnetlink(7). A socket belongs to the network
 * namespace it was made in, whoever uses it later.
 */
import { getSystemErrorName } from 'node:util';
import { native } from '../../native/index.ts';
import { inNetworkOf } from './elsewhere.ts';

const SYS = { close: 3, socket: 41, sendto: 44, recvfrom: 45, setsockopt: 54 } as const;
const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const SOL_NETLINK = 270;
const NETLINK_GET_STRICT_CHK = 12;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const headerSize = 16;
/** The kernel puts no more into one datagram of a dump. */
const mostAnswer = 64 << 10;

export const protocols = { route: 0, xfrm: 6, netfilter: 12 } as const;
export const NLM = {
  request: 1,
  multi: 2,
  ack: 4,
  dump: 0x300,
  replace: 0x100,
  excl: 0x200,
  create: 0x400,
} as const;

export interface Message {
  type: number;
  /** Behind the header. */
  body: Uint8Array;
}

export class Netlink {
  /** Our descriptor. */
  readonly fd: number;
  #sequence = 0;

  /** Takes the descriptor of a netlink socket. */
  constructor(fd: number) {
    this.fd = fd;
  }

  /** A socket of our own network. */
  static here(protocol: number): Netlink {
    return new Netlink(Number(native().syscall(SYS.socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)));
  }

  /** A socket of a process's network, which we must be allowed to enter (EPERM). */
  static of(pid: number | string, protocol: number): Netlink {
    return inNetworkOf(pid, () => Netlink.here(protocol));
  }

  close(): void {
    native().syscall(SYS.close, this.fd);
  }

  /** Have the kernel heed what a dump's request asks for (Linux 4.20). */
  strict(): this {
    const on = new Uint8Array(new Int32Array([1]).buffer);
    native().syscall(SYS.setsockopt, this.fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, on, on.length);
    return this;
  }

  /** Do something; throws an error whose code is the errno's name. */
  change(type: number, flags: number, body: Uint8Array): void {
    this.send([{ type, flags: flags | NLM.ack, body }]);
  }

  /** The one answer to a question. */
  ask(type: number, body: Uint8Array): Message {
    return this.#talk([{ type, flags: 0, body }], 'answer')[0]!;
  }

  /** All answers to a question. */
  list(type: number, body: Uint8Array): Message[] {
    return this.#talk([{ type, flags: NLM.dump, body }], 'done');
  }

  /** Several requests in one datagram, of which those that ask for it are acknowledged. */
  send(requests: readonly { type: number; flags: number; body: Uint8Array }[]): void {
    this.#talk(requests, requests.filter(({ flags }) => (flags & NLM.ack) !== 0).length);
  }

  #talk(
    requests: readonly { type: number; flags: number; body: Uint8Array }[],
    until: 'done' | 'answer' | number,
  ): Message[] {
    const bytes = join(
      requests.map(({ type, flags, body }) => {
        const header = new DataView(new ArrayBuffer(headerSize));
        header.setUint32(0, headerSize + body.length, true);
        header.setUint16(4, type, true);
        header.setUint16(6, flags | NLM.request, true);
        header.setUint32(8, ++this.#sequence, true);
        return padded(join([new Uint8Array(header.buffer), body]));
      }),
    );
    native().syscall(SYS.sendto, this.fd, bytes, bytes.length, 0, 0, 0);
    const found: Message[] = [];
    const buffer = new Uint8Array(mostAnswer);
    for (let left = typeof until === 'number' ? until : 1; left > 0; ) {
      const length = Number(native().syscall(SYS.recvfrom, this.fd, buffer, buffer.length, 0, 0, 0));
      const view = new DataView(buffer.buffer, 0, length);
      for (let at = 0; at + headerSize <= length; ) {
        const size = view.getUint32(at, true);
        const type = view.getUint16(at + 4, true);
        if (size < headerSize || at + size > length) throw new Error('netlink answers with half a message');
        if (type === NLMSG_ERROR || type === NLMSG_DONE) {
          // A dump's end has its error in the same place, if it has one.
          const errno = size >= headerSize + 4 ? -view.getInt32(at + headerSize, true) : 0;
          if (errno > 0)
            throw Object.assign(new Error(`netlink: ${getSystemErrorName(-errno)}`), {
              code: getSystemErrorName(-errno),
            });
          left -= 1;
        } else {
          found.push({ type, body: buffer.slice(at + headerSize, at + size) });
          if (until === 'answer') left -= 1;
        }
        at += (size + 3) & ~3;
      }
    }
    return found;
  }
}

export function join(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

function padded(bytes: Uint8Array): Uint8Array {
  const whole = new Uint8Array((bytes.length + 3) & ~3);
  whole.set(bytes);
  return whole;
}

/** struct rtattr or nlattr, with what fills it up. */
export function attribute(type: number, ...value: Uint8Array[]): Uint8Array {
  const content = join(value);
  const header = new DataView(new ArrayBuffer(4));
  header.setUint16(0, 4 + content.length, true);
  header.setUint16(2, type, true);
  return padded(join([new Uint8Array(header.buffer), content]));
}

export const u32 = (value: number): Uint8Array => new Uint8Array(new Uint32Array([value]).buffer);
export const text = (value: string): Uint8Array => new Uint8Array(Buffer.from(`${value}\0`, 'latin1'));

/** The attributes in a message behind its fixed part of `offset` bytes, by type. */
export function attributes(bytes: Uint8Array, offset: number): Map<number, Uint8Array> {
  const found = new Map<number, Uint8Array>();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = offset; at + 4 <= bytes.length; ) {
    const length = view.getUint16(at, true);
    if (length < 4 || at + length > bytes.length) break;
    // The two highest bits say how it is written.
    found.set(view.getUint16(at + 2, true) & 0x3fff, bytes.subarray(at + 4, at + length));
    at += (length + 3) & ~3;
  }
  return found;
}

export function number32(bytes: Uint8Array | undefined): number | undefined {
  return bytes && bytes.length >= 4
    ? new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)
    : undefined;
}

export const textOf = (bytes: Uint8Array | undefined): string =>
  bytes === undefined ? '' : Buffer.from(bytes).toString('latin1').replace(/\0.*$/s, '');
