/** Extended attributes, and times, of what lies at a path; attributes also of an open file. */
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { PodError } from '../../../stream/error.ts';
import { AT_FDCWD, SYS } from '../abi.ts';
import { codeOf } from '../objects/local-calls.ts';

export type PlacedFile = NonNullable<Records['place']['files']>[number];
export type Attributes = NonNullable<PlacedFile['attributes']>;

/** Labels of security modules belong to the machine. */
const carried = /^(user\.|trusted\.|security\.capability$|system\.posix_acl_(access|default)$)/;
const mostBytes = 65536;

export const cString = (text: string): Uint8Array => Buffer.from(`${text}\0`);

/** Those of the file system that can be carried, of a path or a descriptor of ours. `name` is for people. */
export function readAttributes(place: string | number, name: string): Attributes | undefined {
  const { what, calls } = callsFor(place);
  const list = new Uint8Array(mostBytes);
  let length: number;
  try {
    length = Number(native().syscall(calls.list, what, list, list.length));
  } catch (cause) {
    if (codeOf(cause) === 'EOPNOTSUPP') return undefined;
    throw cause;
  }
  if (length === 0) return undefined;
  const found: Attributes = [];
  const names = Buffer.from(list.buffer, 0, length).toString('latin1').split('\0');
  for (const raw of names) {
    const key = Buffer.from(raw, 'latin1').toString('utf8');
    if (!carried.test(key)) continue;
    if (key.includes('\ufffd'))
      throw new PodError('cannot-checkpoint', `${name} has an attribute whose name is not UTF-8`);
    const value = new Uint8Array(mostBytes);
    const bytes = Number(native().syscall(calls.get, what, cString(key), value, value.length));
    found.push({ name: key, value: value.slice(0, bytes) });
  }
  return found.length > 0 ? found : undefined;
}

export function setAttributes(place: string | number, attributes: Attributes): void {
  const { what, calls } = callsFor(place);
  for (const { name, value } of attributes)
    native().syscall(calls.set, what, cString(name), value, value.length, 0);
}

const ofPath = { list: SYS.llistxattr, get: SYS.lgetxattr, set: SYS.lsetxattr } as const;
const ofDescriptor = { list: SYS.flistxattr, get: SYS.fgetxattr, set: SYS.fsetxattr } as const;

const callsFor = (place: string | number) =>
  typeof place === 'number' ? { what: place, calls: ofDescriptor } : { what: cString(place), calls: ofPath };

/** utimensat(2), of a link itself. */
export function setTimes(path: string, atimeNs: bigint, mtimeNs: bigint): void {
  const times = [atimeNs, mtimeNs].flatMap(splitSeconds);
  const bytes = new Uint8Array(BigInt64Array.from(times).buffer);
  native().syscall(SYS.utimensat, AT_FDCWD, cString(path), bytes, 0x100 /* AT_SYMLINK_NOFOLLOW */);
}

/** Seconds, and nanoseconds that are never negative. */
export function splitSeconds(ns: bigint): [bigint, bigint] {
  const second = 1_000_000_000n;
  const rest = ((ns % second) + second) % second;
  return [(ns - rest) / second, rest];
}
