/**
 * Multicast groups that a UDP socket has joined. The kernel lists those of the computer; of each it tells whether a
 * socket is in it, and which sources it hears there (MCAST_MSFILTER).
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
    .flatMap((membership) => {
      const filter = readFilter(file.local, membership);
      const { family, host, name } = membership;
      return filter ? [{ address: encode(family, host, 0), interface: name, ...filter }] : [];
    })
    .slice(0, mostGroups);
}

/**
 * struct group_req: u32 interface, padding, struct sockaddr_storage. struct group_filter goes on with the mode, the
 * number of sources, and these.
 */
const requestSize = 136;
const modeAt = 136;
const countAt = 140;
const sourcesAt = 144;
const sourceSize = 128;

function groupRequest(index: number, address: Uint8Array, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  new DataView(bytes.buffer).setUint32(0, index, true);
  bytes.set(address, 8);
  return bytes;
}

const levelOf = (family: number) => (family === AF_INET ? SOL.ip : SOL.ipv6);

/** Sources that it hears alone, or not, in a group; undefined when it is not in the group. */
function readFilter(
  local: number,
  { family, host, index }: Membership,
): Pick<Group, 'include' | 'sources'> | undefined {
  const ask = (room: number) => {
    const bytes = groupRequest(index, encode(family, host, 0), sourcesAt + room * sourceSize);
    const view = new DataView(bytes.buffer);
    view.setUint32(countAt, room, true);
    const size = new Uint8Array(new Int32Array([bytes.length]).buffer);
    native().syscall(SYS.getsockopt, local, levelOf(family), MCAST_MSFILTER, bytes, size);
    return { bytes, include: view.getUint32(modeAt, true) !== 0, count: view.getUint32(countAt, true) };
  };
  try {
    const { include, count } = ask(0);
    if (count === 0) return include ? { include, sources: [] } : {};
    const { bytes } = ask(count);
    const length = encode(family, host, 0).length;
    const sources = Array.from({ length: count }, (_none, at) =>
      bytes.slice(sourcesAt + at * sourceSize, sourcesAt + at * sourceSize + length),
    );
    return { ...(include ? { include } : {}), sources };
  } catch {
    return undefined;
  }
}

export function joinGroups(local: number, groups: readonly Group[], context: RestoreContext): void {
  for (const { address, interface: name, include, sources } of groups) {
    try {
      const level = levelOf(familyOf(address));
      const index = indexOf(local, name);
      setOption(local, level, MCAST_JOIN_GROUP, groupRequest(index, address, requestSize));
      if (!include && !sources) continue;
      const filter = groupRequest(index, address, sourcesAt + (sources ?? []).length * sourceSize);
      const view = new DataView(filter.buffer);
      view.setUint32(modeAt, include ? 1 : 0, true);
      view.setUint32(countAt, (sources ?? []).length, true);
      (sources ?? []).forEach((source, at) => {
        filter.set(source, sourcesAt + at * sourceSize);
      });
      setOption(local, level, MCAST_MSFILTER, filter);
    } catch (cause) {
      context.warn(
        `a socket can't join the multicast group ${describeAddress(address)} on ${name} here as it had (${codeOf(cause)})`,
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
