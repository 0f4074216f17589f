/** The network of a pod that has one of its own: what a restart must make in it. */
import { Netlink, protocols } from '../../network/netlink.ts';
import type { Network } from '../../network/network.ts';
import { parseIp } from '../../network/own-network.ts';
import { readFilters, readNetwork } from '../../network/read-network.ts';
import { changedSettings } from '../../network/settings.ts';
import { PodError } from '../../stream/error.ts';
import type { DumpTarget } from '../engine.ts';
import { openNetlink } from './session-netlink.ts';
import type { SessionView } from './session-view.ts';

/** Of each list: what the schema allows. */
const most = { addresses: 128, routes: 256, settings: 256 } as const;
/** Of all together, as JSON: what fits into a frame's meta. */
const mostBytes = 48_000;

/** Undefined when a new network is the same. */
export function dumpNetwork(target: DumpTarget, view: SessionView): Network | undefined {
  const { net } = target;
  if (net === undefined || net === 'host') return undefined;
  const { pid } = view.alive[0]!;
  const socket = new Netlink(
    openNetlink(pid, protocols.route, (asked, body) => view.within(asked, body)),
  ).strict();
  const found = (() => {
    try {
      return readNetwork(socket);
    } finally {
      socket.close();
    }
  })();
  const { filters, settings } = ofRoot(pid);
  const unkept = [...found.unkept, ...filters];
  if (net === 'none' && found.links.some(({ name }) => name !== 'lo')) unkept.push('the interface eth0');
  if (net === 'own' && found.links.every(({ name }) => name !== 'eth0'))
    unkept.push('another name for eth0, or no such interface any more');
  const { links, addresses, routes } = found;
  for (const [name, list] of Object.entries({ addresses, routes, settings }))
    if (list.length > most[name as keyof typeof most]) unkept.push(`${list.length} ${name}`);
  const network: Network = { links, addresses, routes, settings };
  if (JSON.stringify(network).length > mostBytes)
    unkept.push('more addresses, routes and settings than an image holds');
  if (unkept.length > 0)
    throw new PodError(
      'cannot-checkpoint',
      `the network of the pod has ${unkept.join(', ')}, which would be lost`,
      'take it away before the dump (ip, nft, tc), and give it to the pod again after the restart',
    );
  if (net === 'own') return { ...network, address: parseIp(target.address!)! };
  return isNew(network) ? undefined : network;
}

/** Of its own network an ordinary user's session can change nothing, for it has no rights over it. */
function ofRoot(pid: number): { filters: string[]; settings: Network['settings'] } {
  try {
    return {
      filters: readFilters(pid, (protocol) => Netlink.of(pid, protocol)),
      settings: changedSettings(pid),
    };
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EPERM') throw cause;
    return { filters: [], settings: [] };
  }
}

const loopback = { address4: '7f000001', address6: `${'0'.repeat(31)}1`, mtu: 65536 } as const;

/** The loopback interface is up and has its two addresses, and that is all. */
function isNew({ links, addresses, routes, settings }: Network): boolean {
  const hosts = addresses.map(({ address, prefix }) => `${Buffer.from(address).toString('hex')}/${prefix}`);
  const usual = [`${loopback.address4}/8`, `${loopback.address6}/128`];
  return (
    routes.length === 0 &&
    settings.length === 0 &&
    links.every(({ up, mtu }) => up && mtu === loopback.mtu) &&
    hosts.includes(usual[0]!) &&
    hosts.every((host) => usual.includes(host))
  );
}
