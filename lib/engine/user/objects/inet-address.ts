/** Internet addresses as the system calls have them: struct sockaddr_in (16 bytes) and sockaddr_in6 (28 bytes). */
import { native } from '../../../../native/index.ts';
import { codeOf } from './local-calls.ts';

export const AF_INET = 2;
export const AF_INET6 = 10;

const mappedPrefix = '00000000000000000000ffff';
const SYS_getsockname = 51;
const SYS_getpeername = 52;

const viewOf = (address: Uint8Array) => new DataView(address.buffer, address.byteOffset, address.length);

export const familyOf = (address: Uint8Array): number => viewOf(address).getUint16(0, true);
export const portOf = (address: Uint8Array): number => viewOf(address).getUint16(2, false);

export function withPort(address: Uint8Array, port: number): Uint8Array {
  const copy = address.slice();
  viewOf(copy).setUint16(2, port, false);
  return copy;
}

/** The address alone, in hexadecimal; an IPv4 address in an IPv6 one (::ffff:1.2.3.4) is the IPv4 address. */
export function hostOf(address: Uint8Array): string {
  const host = familyOf(address) === AF_INET ? address.subarray(4, 8) : address.subarray(8, 24);
  return plainHost(Buffer.from(host).toString('hex'));
}

export const plainHost = (host: string): string =>
  host.length === 32 && host.startsWith(mappedPrefix) ? host.slice(24) : host;

/** The same for the same address and port, whichever family says it. */
export const keyOf = (address: Uint8Array): string => `${hostOf(address)}:${portOf(address)}`;

export const isLoopback = (host: string): boolean =>
  host.length === 8 ? host.startsWith('7f') : host === `${'0'.repeat(31)}1`;

export const isWildcard = (host: string): boolean => /^0*$/.test(host);

/** The same address in another family; undefined when that has none. */
export function toFamily(address: Uint8Array, family: number): Uint8Array | undefined {
  if (familyOf(address) === family) return address;
  const host = hostOf(address);
  if (family === AF_INET) return host.length === 8 ? encode(AF_INET, host, portOf(address)) : undefined;
  return encode(AF_INET6, host, portOf(address));
}

/** `host` as hostOf() gives it. */
export function encode(family: number, host: string, port: number): Uint8Array {
  const bytes = new Uint8Array(family === AF_INET ? 16 : 28);
  const view = viewOf(bytes);
  view.setUint16(0, family, true);
  view.setUint16(2, port, false);
  const whole = family === AF_INET6 && host.length === 8 ? mappedPrefix + host : host;
  bytes.set(Buffer.from(whole, 'hex'), family === AF_INET ? 4 : 8);
  return bytes;
}

/** Loopback, of the kind that can talk to `like`, any port. */
export function loopbackLike(like: Uint8Array): Uint8Array {
  return encode(familyOf(like), hostOf(like).length === 8 ? '7f000001' : `${'0'.repeat(31)}1`, 0);
}

export function describeAddress(address: Uint8Array): string {
  const host = hostOf(address);
  return host.length === 8
    ? `${[0, 2, 4, 6].map((at) => Number.parseInt(host.slice(at, at + 2), 16)).join('.')}:${portOf(address)}`
    : `[${new URL(`http://[${host.replace(/(.{4})(?=.)/g, '$1:')}]`).hostname.slice(1, -1)}]:${portOf(address)}`;
}

/** getsockname(2) of our descriptor. */
export const ownAddress = (local: number): Uint8Array => ask(SYS_getsockname, local)!;

/** getpeername(2) of our descriptor; undefined when it is not connected. */
export const peerAddress = (local: number): Uint8Array | undefined => ask(SYS_getpeername, local);

function ask(call: number, local: number): Uint8Array | undefined {
  const room = new Uint8Array(28);
  const length = new Uint8Array(new Int32Array([room.length]).buffer);
  try {
    native().syscall(call, local, room, length);
  } catch (cause) {
    if (codeOf(cause) === 'ENOTCONN') return undefined;
    throw cause;
  }
  return room.slice(0, new DataView(length.buffer).getInt32(0, true));
}
