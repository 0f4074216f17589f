/**
 * Nothing comes in for a while: every packet that reaches eth0 of a pod is dropped, so the kernel acknowledges nothing
 * that a stopped or half-made session would not know of, and answers nobody that a connection is unknown. TCP sends
 * again what got no answer.
 *
 * The table of nftables that does this belongs to our socket (Linux 5.12): however we end, it is gone with us.
 */
import { indexOf, linkMessage } from './make-network.ts';
import { attribute, join, Netlink, NLM, protocols, text } from './netlink.ts';
import { RTM } from './network.ts';

const subsystem = 10 << 8;
const NFT = { newTable: subsystem | 0, newChain: subsystem | 3 } as const;
const batch = { begin: 16, end: 17 } as const;
const familyNetdev = 5;
const ownedBySocket = 2;
const TABLE = { name: 1, flags: 2 } as const;
const CHAIN = { table: 1, name: 3, hook: 4, policy: 5, type: 7 } as const;
const HOOK = { number: 1, priority: 2, device: 3 } as const;
const ingress = 0;
const drop = 0;

const name = text('podstream');

function big32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, false);
  return bytes;
}

/** struct nfgenmsg. */
const head = (family: number, resource = 0) => Uint8Array.of(family, 0, 0, resource);

export interface Barrier {
  /** Let packets in again. */
  lower(): void;
  /** No eth0 any more: nothing comes in or goes out until the last process of that network is gone. */
  cut(): void;
}

/** Before the eth0 of a process's network. Throws when this kernel or user can't. */
export function raiseBarrier(pid: number): Barrier {
  const route = Netlink.of(pid, protocols.route);
  const netlink = Netlink.of(pid, protocols.netfilter);
  const lower = () => {
    netlink.close();
    route.close();
  };
  const table = join([
    head(familyNetdev),
    attribute(TABLE.name, name),
    attribute(TABLE.flags, big32(ownedBySocket)),
  ]);
  const hook = attribute(
    CHAIN.hook,
    attribute(HOOK.number, big32(ingress)),
    attribute(HOOK.priority, big32(0)),
    attribute(HOOK.device, text('eth0')),
  );
  const chain = join([
    head(familyNetdev),
    attribute(CHAIN.table, name),
    attribute(CHAIN.name, text('in')),
    hook,
    attribute(CHAIN.policy, big32(drop)),
    attribute(CHAIN.type, text('filter')),
  ]);
  const make = NLM.create | NLM.excl | NLM.ack;
  try {
    netlink.send([
      { type: batch.begin, flags: 0, body: head(0, 10) },
      { type: NFT.newTable, flags: make, body: table },
      { type: NFT.newChain, flags: make, body: chain },
      { type: batch.end, flags: 0, body: head(0, 10) },
    ]);
  } catch (cause) {
    lower();
    throw cause;
  }
  return {
    lower,
    cut: () => {
      route.change(RTM.delLink, 0, linkMessage(indexOf(route, 'eth0'), undefined));
      lower();
    },
  };
}
