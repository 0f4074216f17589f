/** The network of a pod as an image has it, and the numbers of rtnetlink(7) that say it. */
import type { Records } from '../image/record.ts';

export type Network = NonNullable<Records['pod']['network']>;
export type Link = Network['links'][number];
export type Address = Network['addresses'][number];
export type Route = Network['routes'][number];
export type Setting = Network['settings'][number];

export const RTM = {
  newLink: 16,
  delLink: 17,
  getLink: 18,
  newAddress: 20,
  delAddress: 21,
  getAddress: 22,
  newRoute: 24,
  delRoute: 25,
  getRoute: 26,
  getNeighbour: 30,
  getRule: 34,
  getQdisc: 38,
} as const;

export const IFLA = {
  address: 1,
  name: 3,
  mtu: 4,
  master: 10,
  operationalState: 16,
  info: 18,
  netPid: 19,
  perFamily: 26,
} as const;
export const IFLA_INFO = { kind: 1, data: 2 } as const;
export const IFA = {
  address: 1,
  local: 2,
  label: 3,
  broadcast: 4,
  cacheInfo: 6,
  flags: 8,
  metric: 9,
  protocol: 11,
} as const;
export const RTA = {
  destination: 1,
  link: 4,
  gateway: 5,
  metric: 6,
  source: 7,
  cacheInfo: 12,
  table: 15,
  preference: 20,
} as const;

export const IFF_UP = 1;
export const families = { ipv4: 2, ipv6: 10 } as const;
export const sizeOf = { ipv4: 4, ipv6: 16 } as const;

/** The kernel puts these into each new network when their modules are loaded. */
export const everywhere = /^(tunl0|gre0|gretap0|erspan0|ip_vti0|ip6_vti0|sit0|ip6tnl0|ip6gre0)$/;

export function describeIp(address: Uint8Array): string {
  if (address.length === 4) return [...address].join('.');
  const words = Buffer.from(address)
    .toString('hex')
    .replace(/(.{4})(?=.)/g, '$1:');
  return new URL(`http://[${words}]`).hostname.slice(1, -1);
}

export const describeAddress = ({ address, prefix, link }: Address): string =>
  `${describeIp(address)}/${prefix} of ${link}`;

export const describeRoute = ({ destination, prefix, gateway, link, table }: Route): string =>
  `the route to ${destination ? `${describeIp(destination)}/${prefix}` : 'everywhere'}${
    gateway ? ` through ${describeIp(gateway)}` : ''
  }${link ? ` at ${link}` : ''}${table === 254 ? '' : ` in table ${table}`}`;

/** The same for what is the same. */
export const keyOf = (value: object): string =>
  JSON.stringify(
    Object.entries(value)
      .filter(([, each]) => each !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, each]) => [name, each instanceof Uint8Array ? Buffer.from(each).toString('hex') : each]),
  );

/** Of an address, without what passes and what only says how it came. */
export const addressKey = ({ preferred, valid, ...rest }: Address): string =>
  keyOf({ ...rest, passes: valid !== undefined, unwanted: preferred === 0 });
