/**
 * A network made as an image has it, out of a new one: what is too much goes, what is missing comes, and then it is
 * looked whether all is as it was.
 */
import { nap } from '../../native/nap.ts';
import { attribute, attributes, join, type Netlink, NLM, text, u32 } from './netlink.ts';
import {
  type Address,
  addressKey,
  describeAddress,
  describeRoute,
  families,
  IFA,
  IFF_UP,
  IFLA,
  keyOf,
  type Link,
  type Network,
  type Route,
  RTA,
  RTM,
  sizeOf,
} from './network.ts';
import { readNetwork } from './read-network.ts';

/** What was asked for is not: a sentence each. */
type Say = (sentence: string) => void;

const IFA_F_NODAD = 2;
const forever = 0xffffffff;
const AF_INET6 = families.ipv6;
/** Numbers in the attributes of IPv6 in those of a link: addresses come from nowhere but us. */
const addressMode = { attribute: 8, ofHardware: 0, none: 1 } as const;

/** What a netlink request says that refuses it. */
function attempt(step: () => void, failed: (code: string) => void): void {
  try {
    step();
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === undefined) throw cause;
    failed(code);
  }
}

export const linkMessage = (index: number, up: boolean | undefined, ...rest: Uint8Array[]): Uint8Array => {
  const head = new DataView(new ArrayBuffer(16));
  head.setInt32(4, index, true);
  head.setUint32(8, up ? IFF_UP : 0, true);
  head.setUint32(12, up === undefined ? 0 : IFF_UP, true);
  return join([new Uint8Array(head.buffer), ...rest]);
};

/** Index of an interface. */
export function indexOf(netlink: Netlink, name: string): number {
  const { body } = netlink.ask(RTM.getLink, linkMessage(0, undefined, attribute(IFLA.name, text(name))));
  return new DataView(body.buffer, body.byteOffset).getInt32(4, true);
}

export function addressMessage(index: number, address: Address): Uint8Array {
  const { family, flags, head } = addressHead(index, address);
  const lifetimes = new Uint32Array([address.preferred ?? forever, address.valid ?? forever, 0, 0]);
  return join([
    head,
    attribute(IFA.local, address.address),
    attribute(IFA.address, address.peer ?? address.address),
    attribute(IFA.flags, u32(flags | (family === AF_INET6 ? IFA_F_NODAD : 0))),
    ...(address.broadcast ? [attribute(IFA.broadcast, address.broadcast)] : []),
    ...(address.label === undefined ? [] : [attribute(IFA.label, text(address.label))]),
    ...(address.metric === undefined ? [] : [attribute(IFA.metric, u32(address.metric))]),
    attribute(IFA.cacheInfo, new Uint8Array(lifetimes.buffer)),
  ]);
}

function addressHead(index: number, { address, prefix, scope, flags = 0 }: Address) {
  const family = address.length === sizeOf.ipv4 ? families.ipv4 : families.ipv6;
  const head = new DataView(new ArrayBuffer(8));
  head.setUint8(0, family);
  head.setUint8(1, prefix);
  head.setUint8(3, scope);
  head.setUint32(4, index, true);
  return { family, flags, head: new Uint8Array(head.buffer) };
}

export function routeMessage(route: Route, link: number | undefined): Uint8Array {
  const head = new Uint8Array(12);
  head.set([families[route.family], route.prefix, 0, route.tos ?? 0]);
  head.set([route.table < 256 ? route.table : 0, route.protocol, route.scope, route.type], 4);
  new DataView(head.buffer).setUint32(8, route.onlink ? 4 : 0, true);
  return join([
    head,
    attribute(RTA.table, u32(route.table)),
    ...(route.destination ? [attribute(RTA.destination, route.destination)] : []),
    ...(route.gateway ? [attribute(RTA.gateway, route.gateway)] : []),
    ...(route.source ? [attribute(RTA.source, route.source)] : []),
    ...(link === undefined ? [] : [attribute(RTA.link, u32(link))]),
    ...(route.metric === undefined ? [] : [attribute(RTA.metric, u32(route.metric))]),
  ]);
}

/** Addresses must not be there before we give them, nor wait until the kernel has asked whether they are free. */
function setAddressMode(netlink: Netlink, index: number, mode: number): void {
  const ofIpv6 = attribute(AF_INET6, attribute(addressMode.attribute, Uint8Array.of(mode)));
  // A kernel without IPv6 does not know it.
  attempt(
    () => netlink.change(RTM.newLink, 0, linkMessage(index, undefined, attribute(IFLA.perFamily, ofIpv6))),
    () => undefined,
  );
}

/** RFC 2863, as if_link(7) numbers it. */
const operationallyUp = 6;
const carrierPatience = 2000;

/**
 * An interface that was set up has its carrier a moment later, and only then the kernel gives it an address of IPv6:
 * until it is past that, it must not be allowed to. Whether the carrier came.
 */
function waitForCarrier(netlink: Netlink, index: number): boolean {
  for (const end = Date.now() + carrierPatience; Date.now() < end; nap(5)) {
    const { body } = netlink.ask(RTM.getLink, linkMessage(index, undefined));
    if (attributes(body, 16).get(IFLA.operationalState)?.[0] === operationallyUp) return true;
  }
  return false;
}

/** `netlink`: a route socket of the new network. Its eth0, if the image has one, is there. */
export function makeNetwork(netlink: Netlink, wanted: Omit<Network, 'settings'>, say: Say): void {
  const present = readNetwork(netlink);
  const indices = new Map(present.links.map(({ name }) => [name, indexOf(netlink, name)]));
  const indexFor = (link: Link['name'] | undefined) => (link === undefined ? undefined : indices.get(link));
  for (const link of wanted.links) {
    const index = indexFor(link.name);
    if (index !== undefined) setLink(netlink, index, link, say);
  }
  changeAddresses(netlink, present.addresses, wanted.addresses, indexFor, say);
  for (const link of wanted.links) {
    const index = indexFor(link.name);
    if (index === undefined || link.name === 'lo') continue;
    if (!link.up || waitForCarrier(netlink, index)) setAddressMode(netlink, index, addressMode.ofHardware);
  }
  changeRoutes(netlink, wanted.routes, indexFor, say);
  sayDifferences(readNetwork(netlink), wanted, say);
}

function setLink(netlink: Netlink, index: number, link: Link, say: Say): void {
  setAddressMode(netlink, index, addressMode.none);
  const parts = [
    attribute(IFLA.mtu, u32(link.mtu)),
    ...(link.hardware ? [attribute(IFLA.address, link.hardware)] : []),
  ];
  // Each for itself: a hardware address that can't be had is no reason for another MTU.
  for (const [up, part] of [
    ...parts.map((part) => [undefined, part] as const),
    [link.up, new Uint8Array()] as const,
  ])
    attempt(
      () => netlink.change(RTM.newLink, 0, linkMessage(index, up, part)),
      (code) => say(`the interface ${link.name} can't be set up as it was (${code})`),
    );
}

function changeAddresses(
  netlink: Netlink,
  present: readonly Address[],
  wanted: readonly Address[],
  indexFor: (link: Link['name']) => number | undefined,
  say: Say,
): void {
  const keep = new Set(wanted.map(addressKey));
  const there = new Set(present.map(addressKey));
  for (const address of present) {
    if (!keep.has(addressKey(address)))
      attempt(
        () => netlink.change(RTM.delAddress, 0, addressMessage(indexFor(address.link)!, address)),
        // It went with the first of its network.
        () => undefined,
      );
  }
  for (const address of wanted) {
    const index = indexFor(address.link);
    if (index === undefined || there.has(addressKey(address))) continue;
    attempt(
      () => netlink.change(RTM.newAddress, NLM.create | NLM.replace, addressMessage(index, address)),
      (code) => say(`${describeAddress(address)} can't be had in the session's network (${code})`),
    );
  }
}

function changeRoutes(
  netlink: Netlink,
  wanted: readonly Route[],
  indexFor: (link: Link['name'] | undefined) => number | undefined,
  say: Say,
): void {
  const keep = new Set(wanted.map(keyOf));
  const present = readNetwork(netlink).routes;
  for (const route of present) {
    if (!keep.has(keyOf(route)))
      attempt(
        () => netlink.change(RTM.delRoute, 0, routeMessage(route, indexFor(route.link))),
        () => undefined,
      );
  }
  const there = new Set(present.map(keyOf));
  // A gateway must be in reach already.
  const inOrder = [...wanted].sort(
    (a, b) => Number(a.gateway !== undefined) - Number(b.gateway !== undefined),
  );
  for (const route of inOrder) {
    if (there.has(keyOf(route))) continue;
    attempt(
      () => netlink.change(RTM.newRoute, NLM.create, routeMessage(route, indexFor(route.link))),
      (code) => say(`${describeRoute(route)} can't be had in the session's network (${code})`),
    );
  }
}

/** What is there and was not: what can't be made was said. */
function sayDifferences(
  now: ReturnType<typeof readNetwork>,
  wanted: Omit<Network, 'settings'>,
  say: Say,
): void {
  const addresses = new Set(wanted.addresses.map(addressKey));
  const routes = new Set(wanted.routes.map(keyOf));
  for (const address of now.addresses)
    if (!addresses.has(addressKey(address))) say(`the session's network now has ${describeAddress(address)}`);
  for (const route of now.routes)
    if (!routes.has(keyOf(route))) say(`the session's network now has ${describeRoute(route)}`);
  for (const link of wanted.links) {
    const found = now.links.find(({ name }) => name === link.name);
    if (!found) say(`the session's network has no ${link.name} any more`);
    else if (found.mtu !== link.mtu || found.up !== link.up)
      say(`the interface ${link.name} of the session's network is not as it was`);
  }
}
