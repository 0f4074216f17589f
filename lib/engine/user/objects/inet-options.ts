/**
 * Options of internet sockets: setsockopt(2). What differs from a new socket's is saved as the kernel says it; of what
 * a stream names, only what stands in this list is ever set.
 */
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { SYS } from '../abi.ts';
import type { RestoreContext } from './file-object.ts';
import { AF_INET6 } from './inet-address.ts';
import { codeOf, getOption } from './local-calls.ts';

export const SOL = { ip: 0, socket: 1, tcp: 6, udp: 17, ipv6: 41 } as const;
export const SO = {
  reuseaddr: 2,
  sndbuf: 7,
  rcvbuf: 8,
  linger: 13,
  rcvlowat: 18,
  sndbufforce: 32,
  rcvbufforce: 33,
  peekOff: 42,
  bufLock: 72,
} as const;
export const IP_FREEBIND = 15;
export const TCP_INFO = 11;

type Option = Readonly<{
  level: number;
  option: number;
  /** Behind everything that fills, binds and connects. */
  late?: true;
  /** Says something else once it is connected. */
  idleOnly?: true;
  /** Without meaning for TCP, which says something all the same and lets nobody set it. */
  udpOnly?: true;
}>;

const list = (level: number, ...options: number[]): Option[] => options.map((option) => ({ level, option }));
const late = (level: number, ...options: number[]): Option[] =>
  options.map((option) => ({ level, option, late: true }));
const idle = (level: number, ...options: number[]): Option[] =>
  options.map((option) => ({ level, option, idleOnly: true }));

const udp = (level: number, ...options: number[]): Option[] =>
  options.map((option) => ({ level, option, udpOnly: true }));

/** In the order in which they are set. TOS sets the priority too, so it comes before it. */
const options: readonly Option[] = [
  // TOS TTL OPTIONS RECVOPTS RETOPTS PKTINFO MTU_DISCOVER RECVERR RECVTTL RECVTOS PASSSEC TRANSPARENT
  // RECVORIGDSTADDR MINTTL CHECKSUM BIND_ADDRESS_NO_PORT RECVFRAGSIZE RECVERR_RFC4884 UNICAST_IF LOCAL_PORT_RANGE
  ...list(SOL.ip, 1, 2, 4, 6, 7, 8, 10, 11, 12, 13, 18, 19, 20, 21, 23, 24, 25, 26, 50, 51),
  // MULTICAST_IF _TTL _LOOP _ALL
  ...udp(SOL.ip, 32, 33, 34, 49),
  // UNICAST_HOPS MTU_DISCOVER RECVERR V6ONLY RECVERR_RFC4884 RECVPKTINFO RECVHOPLIMIT RECVRTHDR RECVHOPOPTS
  // RECVDSTOPTS RECVPATHMTU DONTFRAG RECVTCLASS TCLASS AUTOFLOWLABEL ADDR_PREFERENCES MINHOPCOUNT RECVORIGDSTADDR
  // TRANSPARENT UNICAST_IF RECVFRAGSIZE
  ...list(SOL.ipv6, 16, 23, 25, 26, 31, 49, 51, 56, 53, 58, 60, 62, 66, 67, 70),
  // MULTICAST_IF _HOPS _LOOP _ALL
  ...udp(SOL.ipv6, 17, 18, 19, 29),
  ...list(SOL.ipv6, 72, 73, 74, 75, 76, 77),
  // 2292PKTINFO 2292HOPOPTS 2292DSTOPTS 2292RTHDR 2292HOPLIMIT FLOWINFO FLOWINFO_SEND HOPOPTS RTHDRDSTOPTS RTHDR DSTOPTS
  ...list(SOL.ipv6, 2, 3, 4, 5, 8, 11, 33, 54, 55, 57, 59),
  // DONTROUTE BROADCAST KEEPALIVE OOBINLINE NO_CHECK PRIORITY REUSEPORT RCVTIMEO SNDTIMEO BINDTODEVICE TIMESTAMP
  // TIMESTAMPNS MARK TIMESTAMPING RXQ_OVFL SELECT_ERR_QUEUE BUSY_POLL MAX_PACING_RATE ZEROCOPY PREFER_BUSY_POLL
  // BUSY_POLL_BUDGET TXREHASH RCVMARK; and PASSSEC WIFI_STATUS TXTIME TIMESTAMP_NEW TIMESTAMPNS_NEW TIMESTAMPING_NEW
  // RESERVE_MEM RCVPRIORITY
  ...list(SOL.socket, 5, 6, 9, 10, 11, 12, 15, 20, 21, 25, 29, 35, 36, 37, 40, 45, 46, 47, 60),
  ...list(SOL.socket, 69, 70, 74, 75, 34, 41, 61, 63, 64, 65, 73, 82),
  // MAXSEG WINDOW_CLAMP FASTOPEN FASTOPEN_CONNECT
  ...idle(SOL.tcp, 2, 10, 23, 30),
  // NODELAY KEEPIDLE KEEPINTVL KEEPCNT SYNCNT LINGER2 CONGESTION THIN_LINEAR_TIMEOUTS THIN_DUPACK
  // USER_TIMEOUT NOTSENT_LOWAT SAVE_SYN FASTOPEN_NO_COOKIE INQ TX_DELAY
  ...list(SOL.tcp, 1, 4, 5, 6, 7, 8, 13, 16, 17, 18, 25, 27, 34, 36, 37),
  // SEGMENT GRO NO_CHECK6_TX NO_CHECK6_RX
  ...list(SOL.udp, 103, 104, 101, 102),
  // CORK DEFER_ACCEPT: what is filled in and who connects must not wait.
  ...late(SOL.tcp, 3, 9),
  ...late(SOL.socket, SO.rcvlowat, SO.linger, SO.peekOff),
  ...late(SOL.ip, IP_FREEBIND),
  ...late(SOL.socket, SO.reuseaddr),
];

/** Buffers have a rule of their own: a size that the kernel chose must not become one that somebody has set. */
const buffers = [
  { option: SO.sndbuf, force: SO.sndbufforce, lock: 1 },
  { option: SO.rcvbuf, force: SO.rcvbufforce, lock: 2 },
] as const;

const datagram = 2;

type SavedOption = NonNullable<Records['inet-socket']['options']>[number];

export function setOption(local: number, level: number, option: number, value: Uint8Array | number): void {
  const bytes = typeof value === 'number' ? new Uint8Array(new Int32Array([value]).buffer) : value;
  native().syscall(SYS.setsockopt, local, level, option, bytes, bytes.length);
}

export function numberOption(local: number, level: number, option: number): number | undefined {
  const value = getOption(local, level, option);
  return value && value.length >= 4
    ? new DataView(value.buffer, value.byteOffset).getInt32(0, true)
    : undefined;
}

export interface Kind {
  /** AF_INET or AF_INET6. */
  family: number;
  /** SOCK_STREAM 1, SOCK_DGRAM 2. */
  type: number;
}

/** What a new socket says, of all options that it has. */
export interface UsualOptions {
  options: readonly (Option & { usual: Uint8Array })[];
  buffers: readonly { option: number; lock: number; usual: Uint8Array }[];
}

export function usualOptions({ family, type }: Kind): UsualOptions {
  const fresh = Number(native().syscall(SYS.socket, family, type | 0o2000000, 0));
  try {
    return {
      options: options.flatMap((each) => {
        if (each.udpOnly && type !== datagram) return [];
        const usual = getOption(fresh, each.level, each.option);
        return usual === undefined ? [] : [{ ...each, usual }];
      }),
      buffers: buffers.map((each) => ({ ...each, usual: getOption(fresh, SOL.socket, each.option)! })),
    };
  } finally {
    native().syscall(SYS.close, fresh);
  }
}

/**
 * Let a receive buffer grow to so many bytes. False when it does not: the program has set its size, to which the
 * kernel cuts what it is asked for.
 */
export function canGrow(receiver: number, wanted: number): boolean {
  const before = numberOption(receiver, SOL.socket, SO.rcvlowat)!;
  const half = numberOption(receiver, SOL.socket, SO.rcvbuf)! >> 1;
  try {
    setOption(receiver, SOL.socket, SO.rcvlowat, wanted);
    return wanted <= half || numberOption(receiver, SOL.socket, SO.rcvlowat) !== half;
  } finally {
    setOption(receiver, SOL.socket, SO.rcvlowat, before);
  }
}

/**
 * Whether a program has set the size of a connection's buffer, where the kernel does not say (before Linux 5.14). It
 * chooses none below its usual one; a larger one of a sender it may have chosen itself.
 */
function seemsSet(local: number, option: number, usual: Uint8Array): boolean {
  const size = numberOption(local, SOL.socket, option)!;
  const least = new DataView(usual.buffer, usual.byteOffset).getInt32(0, true);
  if (size <= least) return size < least;
  return option === SO.rcvbuf && !canGrow(local, (size >> 1) + 1);
}

/** What was set. `connected`: a TCP connection, of which some say something else. */
export function readOptions(local: number, known: UsualOptions, connected: boolean): SavedOption[] {
  const saved: SavedOption[] = [];
  for (const { level, option, idleOnly, usual } of known.options) {
    if (idleOnly && connected) continue;
    const value = getOption(local, level, option);
    if (value && !Buffer.from(value).equals(usual)) saved.push({ level, option, value });
  }
  const locks = numberOption(local, SOL.socket, SO.bufLock);
  for (const { option, lock, usual } of known.buffers) {
    if (locks === undefined ? connected && !seemsSet(local, option, usual) : (locks & lock) === 0) continue;
    const value = getOption(local, SOL.socket, option);
    if (value && (locks !== undefined || !Buffer.from(value).equals(usual)))
      saved.push({ level: SOL.socket, option, value });
  }
  return saved;
}

/** Set what was saved: what comes before bind(2), or what comes last of all. */
export function applyOptions(
  local: number,
  record: Records['inet-socket'],
  when: 'early' | 'late',
  context: RestoreContext,
): void {
  const saved = record.options ?? [];
  const unknown = when === 'early' ? saved.find((each) => !isKnown(each)) : undefined;
  if (unknown)
    context.warn(
      `option ${unknown.option} of level ${unknown.level} of a socket is unknown to this podstream`,
    );
  for (const { level, option, late } of options) {
    if ((when === 'late') !== (late === true)) continue;
    const found = saved.find((each) => each.level === level && each.option === option);
    if (found) apply(local, found, context);
  }
  // Those of a connection would be in the way of what is queued.
  const connected = record.type === 'tcp' && record.state !== 'listening' && record.state !== 'unconnected';
  if ((when === 'late') === connected) {
    for (const { option, force } of buffers) {
      const found = saved.find((each) => each.level === SOL.socket && each.option === option);
      if (found && found.value.length >= 4) applyBuffer(local, option, force, found.value, context);
    }
  }
}

const isKnown = ({ level, option }: SavedOption): boolean =>
  options.some((each) => each.level === level && each.option === option) ||
  (level === SOL.socket && buffers.some((each) => each.option === option));

function apply(local: number, { level, option, value }: SavedOption, context: RestoreContext): void {
  try {
    setOption(local, level, option, value);
  } catch (cause) {
    // An accepted socket has some of its listener, and takes them no more.
    if (Buffer.from(getOption(local, level, option) ?? []).equals(value)) return;
    context.warn(`option ${option} of level ${level} of a socket can't be set here (${codeOf(cause)})`);
  }
}

/** The kernel doubles what it is told. */
function applyBuffer(
  local: number,
  option: number,
  force: number,
  value: Uint8Array,
  context: RestoreContext,
): void {
  const wanted = new DataView(value.buffer, value.byteOffset).getInt32(0, true);
  const half = Math.min(wanted >>> 1, 0x3fffffff);
  try {
    setOption(local, SOL.socket, force, half);
  } catch (cause) {
    if (codeOf(cause) !== 'EPERM') throw cause;
    setOption(local, SOL.socket, option, half);
    if (numberOption(local, SOL.socket, option)! < wanted)
      context.warn(`a socket gets a buffer smaller than ${wanted} bytes (net.core.rmem_max, wmem_max)`);
  }
}

/** Let a port be bound beside connections that have it, or still end. Taken back when all are bound. */
export function allowBind(local: number): void {
  setOption(local, SOL.socket, SO.reuseaddr, 1);
}

export const kindOf = (record: Records['inet-socket']): Kind => ({
  family: record.family === 'ipv4' ? 2 : AF_INET6,
  type: record.type === 'tcp' ? 1 : 2,
});
