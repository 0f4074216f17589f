/**
 * The network of a new pod, when it has one of its own: pid 1 has made a namespace with the loopback interface up and
 * waits; the rest is done from here, through a netlink socket that pid 1 has made in there, so that an ordinary user,
 * who may not enter it, can give back what a session had.
 */
import { native } from '../../native/index.ts';
import { type Barrier, raiseBarrier } from '../network/barrier.ts';
import { makeNetwork } from '../network/make-network.ts';
import { Netlink, protocols } from '../network/netlink.ts';
import { describeIp, type Network } from '../network/network.ts';
import { forwards, freeAddress, leadToPod, parseIp, refuseOwn, withWay } from '../network/own-network.ts';
import { readNetwork } from '../network/read-network.ts';
import { applySettings } from '../network/settings.ts';
import { type Failure, PodError } from '../stream/error.ts';

export const podNetworks = ['host', 'none', 'own'] as const;
export type PodNetwork = (typeof podNetworks)[number];

export interface NetworkOptions {
  /** Default: host. */
  net?: PodNetwork;
  /** own: IPv4 address; default: one that leads nowhere yet. */
  address?: string;
  /** As the image has it. */
  network?: Network;
  /** Nothing comes in through eth0 before letIn(): there are connections whose sockets are still to be made. */
  holdBack?: boolean;
  /** Told what is not as it should be. */
  warn?: (sentence: string) => void;
}

/** pid 1's descriptor of a route socket while it waits (native/pod-init/setup.c). */
const routeSocket = 10;
const SYS = { close: 3, pidfd_open: 434, pidfd_getfd: 438 } as const;

/** Before anything is made. */
export function checkNetwork(options: NetworkOptions, failure: Failure): void {
  const { net = 'host', address } = options;
  if (address !== undefined && net !== 'own')
    throw new PodError('usage', '--address is for a pod with --net own');
  if (address !== undefined && !parseIp(address))
    throw new PodError('usage', `${address} is not an IPv4 address that a pod can have`);
  if (net === 'own' && process.geteuid!() !== 0)
    throw new PodError(
      failure,
      "an ordinary user can't make a network that leads to the computer's (--net own)",
      failure === 'cannot-restart'
        ? 'restart as root'
        : 'run it as root, with --net none (the loopback interface alone), or in the network of the host',
    );
}

export interface MadeNetwork {
  /** When it has one of its own. */
  address?: string;
  letIn(): void;
  /** Nobody hears of its end. */
  cut(): void;
}

export function setUpNetwork(
  initPid: number,
  { net, address, network, holdBack = false, warn = () => undefined }: NetworkOptions,
  failure: Failure,
): MadeNetwork {
  let barrier: Barrier | undefined;
  const letIn = () => {
    barrier?.lower();
    barrier = undefined;
  };
  const cut = () => {
    barrier?.cut();
    barrier = undefined;
  };
  const inside = new Netlink(borrow(initPid, routeSocket)).strict();
  try {
    const own = net === 'own' ? leadIn(initPid, address, network) : undefined;
    if (own && holdBack) barrier = holdPackets(initPid);
    if (network) makeNetwork(inside, network, warn);
    else if (own) makeNetwork(inside, withWay(readNetwork(inside), own), warn);
    if (network)
      applySettings(initPid, network.settings, (name, why) =>
        warn(`the setting net/${name} of the session's network does not hold: ${why}`),
      );
    if (own && !forwards())
      warn(
        'this computer does not forward packets, so the pod reaches nothing else (sysctl net.ipv4.ip_forward=1 lets it out)',
      );
    return { ...(own ? { address: describeIp(own) } : {}), letIn, cut };
  } catch (cause) {
    cut();
    throw explain(cause, failure);
  } finally {
    inside.close();
  }
}

/** eth0 is still down. */
function holdPackets(initPid: number): Barrier {
  try {
    return raiseBarrier(initPid);
  } catch (cause) {
    throw new PodError(
      'other',
      `this computer can't hold packets back while connections are made again: ${(cause as Error).message}`,
      'nftables is needed, Linux 5.12 or newer; pod-restart --tcp reset gives the connections up',
      { cause },
    );
  }
}

function leadIn(initPid: number, chosen: string | undefined, network: Network | undefined): Uint8Array {
  const host = Netlink.here(protocols.route).strict();
  try {
    const given = chosen === undefined ? network?.address : parseIp(chosen);
    if (given) refuseOwn(host, given);
    const address = given ?? freeAddress(host);
    leadToPod(host, initPid, address);
    return address;
  } finally {
    host.close();
  }
}

function borrow(pid: number, fd: number): number {
  const pidfd = Number(native().syscall(SYS.pidfd_open, pid, 0));
  try {
    return Number(native().syscall(SYS.pidfd_getfd, pidfd, fd, 0));
  } finally {
    native().syscall(SYS.close, pidfd);
  }
}

function explain(cause: unknown, failure: Failure): PodError {
  if (cause instanceof PodError) return new PodError(failure, cause.message, cause.hint, { cause });
  const { code, message } = cause as NodeJS.ErrnoException;
  const hints: Record<string, string> = {
    EPERM: 'this root lacks CAP_NET_ADMIN or CAP_SYS_ADMIN here (a container?)',
    EOPNOTSUPP: 'this kernel lacks veth interfaces: modprobe veth',
  };
  return new PodError(failure, `the network of the pod can't be made: ${message}`, hints[code ?? ''], {
    cause,
  });
}
