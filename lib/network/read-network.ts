/**
 * What a network namespace has: links, addresses, routes; and what it has that is not kept, by name. The loopback
 * interface and eth0 are all that a pod is given; whatever else is there the session (root in it) has made.
 */
import { readFileSync } from 'node:fs';
import { attributes, type Message, type Netlink, number32, protocols, textOf } from './netlink.ts';
import {
  type Address,
  everywhere,
  families,
  IFA,
  IFF_UP,
  IFLA,
  IFLA_INFO,
  keyOf,
  type Link,
  type Network,
  type Route,
  RTA,
  RTM,
} from './network.ts';

export interface FoundNetwork extends Omit<Network, 'settings' | 'address'> {
  /** What is there and not kept, a phrase each. */
  unkept: string[];
  /** Kind of each interface: veth, bridge. */
  kinds: ReadonlyMap<string, string>;
}

const forever = 0xffffffff;
const RTM_F_CLONED = 0x200;
/** IFA_F_HOMEADDRESS, NOPREFIXROUTE, MCAUTOJOIN; how an address came and how far it is are the kernel's. */
const keptFlags = 0x10 | 0x200 | 0x400;
/** Those that it learns or makes by itself: redirect, kernel, router advertisement. */
const byItself: readonly number[] = [1, 2, 9];
const keptOfRoute: readonly number[] = Object.values(RTA);

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
const isZero = (bytes: Uint8Array) => bytes.every((byte) => byte === 0);

/** `route`: a netlink socket of that network. */
export function readNetwork(route: Netlink): FoundNetwork {
  const unkept: string[] = [];
  const names = new Map<number, string>();
  const kinds = new Map<string, string>();
  const links = route.list(RTM.getLink, new Uint8Array(16)).flatMap((message): Link[] => {
    const { index, link, kind } = readLink(message);
    names.set(index, link.name);
    kinds.set(link.name, kind);
    if (link.name === 'lo' || (link.name === 'eth0' && kind === 'veth')) return [link];
    if (!everywhere.test(link.name))
      unkept.push(`the interface ${link.name}${kind === '' ? '' : ` (${kind})`}`);
    return [];
  });
  const nameOf = (index: number | undefined) => (index === undefined ? undefined : names.get(index));
  const isKept = (link: string | undefined): link is 'lo' | 'eth0' => links.some(({ name }) => name === link);
  const addresses = route
    .list(RTM.getAddress, new Uint8Array(8))
    .flatMap((message) => readAddress(message, nameOf))
    .filter(({ link }) => isKept(link));
  const routes: Route[] = [];
  for (const message of [families.ipv4, families.ipv6].flatMap((family) =>
    listFamily(route, RTM.getRoute, family, 12),
  )) {
    const found = readRoute(message, nameOf);
    if (typeof found === 'string') unkept.push(found);
    // Those at other interfaces go with them.
    else if (found && (found.link === undefined || isKept(found.link))) routes.push(found);
  }
  return { links, addresses, routes, kinds, unkept: [...unkept, ...oddities(route, nameOf)] };
}

function readLink({ body }: Message): { index: number; link: Link; kind: string } {
  const found = attributes(body, 16);
  const view = viewOf(body);
  const hardware = found.get(IFLA.address);
  return {
    index: view.getInt32(4, true),
    kind: textOf(attributes(found.get(IFLA.info) ?? new Uint8Array(), 0).get(IFLA_INFO.kind)),
    link: {
      name: textOf(found.get(IFLA.name)) as Link['name'],
      up: (view.getUint32(8, true) & IFF_UP) !== 0,
      mtu: number32(found.get(IFLA.mtu)) ?? 0,
      ...(hardware?.length === 6 && !isZero(hardware) ? { hardware: hardware.slice() } : {}),
    },
  };
}

function readAddress({ body }: Message, nameOf: (index: number) => string | undefined): Address[] {
  const view = viewOf(body);
  const found = attributes(body, 8);
  const link = nameOf(view.getUint32(4, true));
  const ends = { local: found.get(IFA.local), address: found.get(IFA.address) };
  const own = ends.local ?? ends.address;
  if (link === undefined || !own) return [];
  const peer =
    ends.local && ends.address && !Buffer.from(ends.local).equals(ends.address) ? ends.address : undefined;
  const label = textOf(found.get(IFA.label));
  const broadcast = found.get(IFA.broadcast);
  const [preferred, valid] = [
    number32(found.get(IFA.cacheInfo)),
    number32(found.get(IFA.cacheInfo)?.subarray(4)),
  ];
  const flags = (number32(found.get(IFA.flags)) ?? view.getUint8(2)) & keptFlags;
  const metric = number32(found.get(IFA.metric)) ?? 0;
  return [
    {
      link: link as Address['link'],
      address: own.slice(),
      prefix: view.getUint8(1),
      scope: view.getUint8(3),
      ...(flags === 0 ? {} : { flags }),
      ...(peer ? { peer: peer.slice() } : {}),
      ...(broadcast ? { broadcast: broadcast.slice() } : {}),
      ...(label === '' || label === link ? {} : { label }),
      ...(metric === 0 ? {} : { metric }),
      ...(preferred === undefined || preferred === forever ? {} : { preferred }),
      ...(valid === undefined || valid === forever ? {} : { valid: Math.max(valid, 1) }),
    },
  ];
}

/** A phrase when it can't be kept. */
function readRoute(
  { body }: Message,
  nameOf: (index: number | undefined) => string | undefined,
): Route | string | undefined {
  const view = viewOf(body);
  const [family, prefix, source, tos, , protocol, scope, type] = body as unknown as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const flags = view.getUint32(8, true);
  if (byItself.includes(protocol) || (flags & RTM_F_CLONED) !== 0) return undefined;
  const found = attributes(body, 12);
  const [destination, gateway, from] = [RTA.destination, RTA.gateway, RTA.source].map((each) =>
    found.get(each)?.slice(),
  );
  const link = nameOf(number32(found.get(RTA.link)));
  const metric = number32(found.get(RTA.metric)) ?? 0;
  const route: Route = {
    family: family === families.ipv4 ? 'ipv4' : 'ipv6',
    prefix,
    ...(destination ? { destination } : {}),
    ...(link === undefined ? {} : { link: link as NonNullable<Route['link']> }),
    ...(gateway ? { gateway } : {}),
    ...(from ? { source: from } : {}),
    table: number32(found.get(RTA.table)) ?? view.getUint8(4),
    protocol,
    scope,
    type,
    ...(tos === 0 ? {} : { tos }),
    ...((flags & 4) === 0 ? {} : { onlink: true }),
    ...(metric === 0 ? {} : { metric }),
  };
  const preference = found.get(RTA.preference)?.[0] ?? 0;
  const odd =
    source !== 0 || preference !== 0 || [...found.keys()].some((each) => !keptOfRoute.includes(each));
  return odd ? `a route with more than a way (${keyOf({ destination, gateway, link })})` : route;
}

/** A dump of one address family; nothing where the kernel has no such thing. */
function listFamily(netlink: Netlink, type: number, family: number, size: number): Message[] {
  const body = new Uint8Array(size);
  body[0] = family;
  return listOrNothing(netlink, type, body);
}

function listOrNothing(netlink: Netlink, type: number, body: Uint8Array): Message[] {
  try {
    return netlink.list(type, body);
  } catch (cause) {
    const absent = ['EOPNOTSUPP', 'EAFNOSUPPORT', 'EPROTONOSUPPORT', 'ENOENT', 'EINVAL'];
    if (absent.includes((cause as NodeJS.ErrnoException).code ?? '')) return [];
    throw cause;
  }
}

const permanent = 0x80;
const proxy = 8;

function oddities(route: Netlink, nameOf: (index: number) => string | undefined): string[] {
  const found: string[] = [];
  const rules = [families.ipv4, families.ipv6].map((family) => listFamily(route, RTM.getRule, family, 12));
  if (rules.some((list, index) => list.length > 0 && !areUsual(list, index === 0 ? 3 : 2)))
    found.push('routing rules of its own (ip rule)');
  const neighbours = (flag: number) => {
    const body = new Uint8Array(12);
    body[10] = flag;
    return listOrNothing(route, RTM.getNeighbour, body);
  };
  if (
    neighbours(0).some(({ body }) => (viewOf(body).getUint16(8, true) & permanent) !== 0) ||
    neighbours(proxy).some(({ body }) => (body[10]! & proxy) !== 0)
  )
    found.push('fixed neighbours (ip neigh)');
  // The kernel's own have no number.
  for (const { body } of listOrNothing(route, RTM.getQdisc, new Uint8Array(20)))
    if (viewOf(body).getUint32(8, true) !== 0)
      found.push(
        `a queueing discipline (${textOf(attributes(body, 20).get(1))}) at ${nameOf(viewOf(body).getUint32(4, true))}`,
      );
  return found;
}

/** Numbers of a routing rule's attributes: that of its place, its table, and which tables it asks for. */
const FRA = { priority: 6, table: 15, suppressPrefix: 14, protocol: 21 } as const;
const usualRules = new Set(['0 255', '32766 254', '32767 253']);

function areUsual(rules: readonly Message[], count: number): boolean {
  return (
    rules.length === count &&
    rules.every(({ body }) => {
      const found = attributes(body, 12);
      const known = [...found.keys()].every((each) => (Object.values(FRA) as number[]).includes(each));
      const table = number32(found.get(FRA.table)) ?? body[4];
      return known && usualRules.has(`${number32(found.get(FRA.priority)) ?? 0} ${table}`);
    })
  );
}

const NFT_GETTABLE = (10 << 8) | 1;
const XFRM = { getState: 0x12, getPolicy: 0x15 } as const;

/** What only root may ask for. `open` gives a netlink socket of that network. */
export function readFilters(pid: number, open: (protocol: number) => Netlink): string[] {
  const ask = (protocol: number, questions: readonly (readonly [number, number])[]) => {
    let netlink: Netlink;
    try {
      netlink = open(protocol);
    } catch (cause) {
      // A kernel without it.
      if ((cause as NodeJS.ErrnoException).code === 'EPROTONOSUPPORT') return false;
      throw cause;
    }
    try {
      return questions.some(([type, size]) => listOrNothing(netlink, type, new Uint8Array(size)).length > 0);
    } finally {
      netlink.close();
    }
  };
  return [
    ...(ask(protocols.netfilter, [[NFT_GETTABLE, 4]]) ? ['tables of nftables'] : []),
    ...(['ip', 'ip6', 'arp'].some((name) => readOrEmpty(`/proc/${pid}/net/${name}_tables_names`) !== '')
      ? ['tables of iptables']
      : []),
    ...(ask(protocols.xfrm, [
      [XFRM.getState, 24],
      [XFRM.getPolicy, 64],
    ])
      ? ['IPsec (ip xfrm)']
      : []),
  ];
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
