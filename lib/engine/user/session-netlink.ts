/** A netlink socket of ours in the network of the session. */
import { readlinkSync } from 'node:fs';
import { Netlink } from '../../network/netlink.ts';
import { AF, O, SYS } from './abi.ts';
import { borrow, codeOf } from './objects/local-calls.ts';
import type { Remote } from './remote.ts';

type Within = <Result>(pid: number, body: (remote: Remote) => Result) => Result;

/** A netlink socket sees the network namespace that it was made in. */
export function openNetlink(pid: number, protocol: number, within: Within): number {
  if (readlinkSync(`/proc/${pid}/ns/net`) === readlinkSync('/proc/self/ns/net'))
    return Netlink.here(protocol).fd;
  try {
    return Netlink.of(pid, protocol).fd;
  } catch (cause) {
    if (codeOf(cause) !== 'EPERM') throw cause;
  }
  // An ordinary user may not enter the namespace of the pod, but the process itself is in it.
  return within(pid, (remote) => {
    const fd = Number(remote.call('socket', SYS.socket, AF.netlink, 3 | O.cloexec, protocol));
    try {
      return borrow(pid, fd);
    } finally {
      remote.call('close', SYS.close, fd);
    }
  });
}
