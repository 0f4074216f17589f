/**
 * The network of a pod that leads to the host: eth0 inside, podPID on the host. The address has no neighbours, so any
 * one can be chosen and taken along; all goes through the host's end, which has the same address for every pod. The
 * route to the pod is made only if there is none, which is what keeps two pods from one address.
 */
import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { nap } from '../../native/nap.ts';
import { isDeadState, readProcessStat, statField } from '../runtime/process-stat.ts';
import { PodError } from '../stream/error.ts';
import { addressMessage, indexOf, linkMessage, routeMessage } from './make-network.ts';
import { attribute, attributes, type Netlink, NLM, number32, text, textOf, u32 } from './netlink.ts';
import { describeIp, families, IFLA, IFLA_INFO, type Network, type Route, RTA, RTM } from './network.ts';

export const hostEnd = Uint8Array.of(169, 254, 213, 1);
/** Addresses for who asks for none: 10.213.0.0/16. */
const pool = [10, 213] as const;
const VETH_INFO_PEER = 1;
const mainTable = 254;
const scopes = { universe: 0, link: 253 } as const;
const protocolStatic = 4;
const tries = 200;

const route = (rest: Partial<Route>): Route => ({
  family: 'ipv4',
  prefix: 32,
  table: mainTable,
  protocol: protocolStatic,
  scope: scopes.link,
  type: 1,
  ...rest,
});

/** The host's name of its end. */
export const hostLink = (initPid: number): string => `pod${initPid}`;

/** What a new pod has at its eth0, in addition to what is there. */
export function withWay(found: Omit<Network, 'settings'>, address: Uint8Array): Omit<Network, 'settings'> {
  return {
    links: found.links.map((link) => ({ ...link, up: true })),
    addresses: [...found.addresses, { link: 'eth0', address, prefix: 32, scope: scopes.universe }],
    routes: [
      ...found.routes,
      route({ link: 'eth0', destination: hostEnd }),
      route({ link: 'eth0', prefix: 0, gateway: hostEnd, scope: scopes.universe }),
    ],
  };
}

/** Lead an address to the pod; its eth0 is there then, down and without an address. */
export function leadToPod(host: Netlink, initPid: number, address: Uint8Array): void {
  const name = hostLink(initPid);
  const peer = linkMessage(
    0,
    undefined,
    attribute(IFLA.name, text('eth0')),
    attribute(IFLA.netPid, u32(initPid)),
  );
  host.change(
    RTM.newLink,
    NLM.create | NLM.excl,
    linkMessage(
      0,
      undefined,
      attribute(IFLA.name, text(name)),
      attribute(
        IFLA.info,
        attribute(IFLA_INFO.kind, text('veth')),
        attribute(IFLA_INFO.data, attribute(VETH_INFO_PEER, peer)),
      ),
    ),
  );
  const index = indexOf(host, name);
  try {
    const end = { link: 'eth0', address: hostEnd, prefix: 32, scope: scopes.link } as const;
    host.change(RTM.newAddress, NLM.create, addressMessage(index, end));
    host.change(RTM.newLink, 0, linkMessage(index, true));
    leadAddress(host, index, address);
  } catch (cause) {
    host.change(RTM.delLink, 0, linkMessage(index, undefined));
    throw cause;
  }
}

/** Of a pod that has just ended the kernel removes what it had in its time; so do we. */
const patience = 5000;

function leadAddress(host: Netlink, index: number, address: Uint8Array): void {
  for (const end = Date.now() + patience; ; nap(20)) {
    try {
      host.change(RTM.newRoute, NLM.create | NLM.excl, routeMessage(route({ destination: address }), index));
      return;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause;
      const holder = holderOf(host, address);
      if (holder !== 'ended' || Date.now() > end)
        throw taken(address, holder === 'pod' ? 'another pod' : 'a route of this computer (ip route)');
    }
  }
}

/** To whom the route to an address leads. */
function holderOf(host: Netlink, address: Uint8Array): 'pod' | 'ended' | 'other' {
  const routes = listRoutes(host);
  const found = routes.find(
    ({ destination, prefix }) => prefix === 32 && describeIp(destination) === describeIp(address),
  );
  // It went between the two questions.
  if (!found) return 'ended';
  const link = host
    .list(RTM.getLink, linkMessage(0, undefined))
    .find(({ body }) => new DataView(body.buffer, body.byteOffset).getInt32(4, true) === found.link);
  if (!link) return 'ended';
  const pid = /^pod(\d+)$/.exec(textOf(attributes(link.body, 16).get(IFLA.name)))?.[1];
  if (pid === undefined) return 'other';
  try {
    return readFileSync(`/proc/${pid}/comm`, 'latin1').trim() === 'pod-init' && !isGone(pid)
      ? 'pod'
      : 'ended';
  } catch {
    return 'ended';
  }
}

const isGone = (pid: string) => isDeadState(statField(readProcessStat(`/proc/${pid}/stat`).fields, 3));

function taken(address: Uint8Array, by: string): PodError {
  return new PodError(
    'other',
    `the address ${describeIp(address)} is taken here by ${by}`,
    'end the pod that has it (pod-ps, pod-kill), or give this computer another address',
  );
}

/** An address that the host has no way to yet but the one to everywhere. */
export function freeAddress(host: Netlink): Uint8Array {
  for (let left = tries; left > 0; left--) {
    const address = Uint8Array.of(...pool, randomInt(256), randomInt(1, 255));
    if (wayTo(host, address) === 'none') return address;
  }
  throw new PodError(
    'other',
    `every address of ${pool.join('.')}.0.0/16 leads somewhere on this computer`,
    'choose one with --address',
  );
}

/** Throws when the computer itself has an address. */
export function refuseOwn(host: Netlink, address: Uint8Array): void {
  if (wayTo(host, address) === 'local') throw taken(address, 'this computer itself');
}

const typeLocal = 2;
const localTable = 255;

/** Where the host sends what is for an address. */
function wayTo(host: Netlink, address: Uint8Array): 'local' | 'some' | 'none' {
  for (const { type, table, prefix, destination } of listRoutes(host)) {
    if (prefix === 0 || !covers(destination, prefix, address)) continue;
    return type === typeLocal && table === localTable ? 'local' : 'some';
  }
  return 'none';
}

interface HostRoute {
  prefix: number;
  destination: Uint8Array;
  type: number;
  table: number;
  /** Index of the interface. */
  link: number;
}

function listRoutes(host: Netlink): HostRoute[] {
  return host.list(RTM.getRoute, Uint8Array.of(families.ipv4, ...new Uint8Array(11))).map(({ body }) => {
    const found = attributes(body, 12);
    return {
      prefix: body[1]!,
      destination: found.get(RTA.destination) ?? new Uint8Array(4),
      type: body[7]!,
      table: number32(found.get(RTA.table)) ?? body[4]!,
      link: number32(found.get(RTA.link)) ?? 0,
    };
  });
}

function covers(network: Uint8Array, prefix: number, address: Uint8Array): boolean {
  const [a, b] = [network, address].map((each) =>
    new DataView(each.buffer, each.byteOffset).getUint32(0, false),
  );
  const mask = prefix === 0 ? 0 : (~0 << (32 - prefix)) >>> 0;
  return (a! & mask) >>> 0 === (b! & mask) >>> 0;
}

/** `10.0.0.5`; undefined when it is no address that a pod can have. */
export function parseIp(address: string): Uint8Array | undefined {
  const parts = address.split('.');
  if (parts.length !== 4 || parts.some((part) => !/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255))
    return undefined;
  const bytes = Uint8Array.from(parts.map(Number));
  // Not this network, loopback, multicast and above.
  return bytes[0] === 0 || bytes[0] === 127 || bytes[0]! >= 224 ? undefined : bytes;
}

/** Whether the host sends on what a pod sends it. */
export function forwards(): boolean {
  try {
    return readFileSync('/proc/sys/net/ipv4/ip_forward', 'latin1').trim() === '1';
  } catch {
    return false;
  }
}
