/**
 * Multicast groups that a UDP socket has joined. The kernel lists those of the computer; of each it tells whether a
 * socket is in it (MCAST_MSFILTER).
 */
import { readFileSync } from 'node:fs';
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { SYS } from '../abi.ts';
import type { OpenFile, RestoreContext } from './file-object.ts';
import { AF_INET, AF_INET6, describeAddress, encode, familyOf } from './inet-address.ts';
import { SOL, setOption } from './inet-options.ts';
import { codeOf } from './local-calls.ts';

const MCAST_JOIN_GROUP = 42;
const MCAST_MSFILTER = 48;
const SIOCGIFINDEX = 0x8933;
const mostGroups = 256;

type Group = NonNullable<Records['inet-socket']['groups']>[number];

interface Membership {
  family: number;
  host: string;
  index: number;
  name: string;
}

/** Of every interface, all groups but those that each computer is in. */
function listMemberships(pid: number): Membership[] {
  return [...parseIgmp(readNet(pid, 'igmp')), ...parseIgmp6(readNet(pid, 'igmp6'))];
}

function readNet(pid: number, name: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/net/${name}`, 'latin1').split('\n');
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return [];
    throw cause;
  }
}

/** `2	eth0      :     1      V3`, and under it `				010000E0     1 0:00000000		0`. */
function parseIgmp(lines: readonly string[]): Membership[] {
  const found: Membership[] = [];
  let device: { index: number; name: string } | undefined;
  for (const line of lines) {
    const head = /^(\d+)\s+(\S+)\s*:/.exec(line);
    if (head) device = { index: Number(head[1]), name: head[2]! };
    const group = /^\s+([0-9A-F]{8})\s/.exec(line);
    if (!group || !device) continue;
    const host = Buffer.from(group[1]!, 'hex').swap32().toString('hex');
    if (host !== 'e0000001') found.push({ family: AF_INET, host, ...device });
  }
  return found;
}

/** `2    eth0            ff0200000000000000000000000000fb     1 00000004 0`. */
function parseIgmp6(lines: readonly string[]): Membership[] {
  return lines.flatMap((line) => {
    const match = /^(\d+)\s+(\S+)\s+([0-9a-f]{32})\s/.exec(line);
    if (!match || /^ff0[12]0{27}1$/.test(match[3]!)) return [];
    return [{ family: AF_INET6, host: match[3]!, index: Number(match[1]), name: match[2]! }];
  });
}

export function readGroups(file: OpenFile): Group[] {
  return listMemberships(file.pid)
    .filter((membership) => isMember(file.local, membership))
    .slice(0, mostGroups)
    .map(({ family, host, name }) => ({ address: encode(family, host, 0), interface: name }));
}

/** struct group_req is the head of struct group_filter: u32 interface, padding, struct sockaddr_storage. */
function groupRequest(index: number, address: Uint8Array, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  new DataView(bytes.buffer).setUint32(0, index, true);
  bytes.set(address, 8);
  return bytes;
}

function isMember(local: number, { family, host, index }: Membership): boolean {
  const bytes = groupRequest(index, encode(family, host, 0), 144 + 128);
  const size = new Uint8Array(new Int32Array([bytes.length]).buffer);
  const level = family === AF_INET ? SOL.ip : SOL.ipv6;
  try {
    native().syscall(SYS.getsockopt, local, level, MCAST_MSFILTER, bytes, size);
    return true;
  } catch {
    return false;
  }
}

export function joinGroups(local: number, groups: readonly Group[], context: RestoreContext): void {
  for (const { address, interface: name } of groups) {
    try {
      const level = familyOf(address) === AF_INET ? SOL.ip : SOL.ipv6;
      setOption(local, level, MCAST_JOIN_GROUP, groupRequest(indexOf(local, name), address, 136));
    } catch (cause) {
      context.warn(
        `a socket can't join the multicast group ${describeAddress(address)} on ${name} here (${codeOf(cause)})`,
      );
    }
  }
}

/** struct ifreq: 16 bytes of name, then what is asked. */
function indexOf(local: number, name: string): number {
  const request = new Uint8Array(40);
  request.set(Buffer.from(name).subarray(0, 15));
  native().syscall(SYS.ioctl, local, SIOCGIFINDEX, request);
  return new DataView(request.buffer).getInt32(16, true);
}
