/** Internet sockets made in the builder, their addresses bound again, and who has one that is taken. */
import { readdirSync, readlinkSync } from 'node:fs';
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { SYS } from '../abi.ts';
import { describeProcess } from '../proc.ts';
import type { RestoreContext } from './file-object.ts';
import { describeAddress, portOf, withPort } from './inet-address.ts';
import { IP_FREEBIND, SOL, setOption } from './inet-options.ts';
import { readTable, TCP } from './inet-table.ts';
import { codeOf } from './local-calls.ts';

type Socket = Records['inet-socket'];

/** A new socket of the builder: its number there. */
export function makeSocket(family: number, type: number, context: RestoreContext): number {
  try {
    return Number(context.builder.call('socket', SYS.socket, family, type, 0));
  } catch (cause) {
    return context.refuse(
      `the session has ${family === 2 ? 'IPv4' : 'IPv6'} sockets, which can't be made here (${(cause as Error).message})`,
      family === 2 ? undefined : 'enable IPv6 on this computer',
    );
  }
}

/** bind(2) with our descriptor; the errno's name when it fails. */
export function tryBind(local: number, address: Uint8Array): string | undefined {
  try {
    native().syscall(SYS.bind, local, address, address.length);
    return undefined;
  } catch (cause) {
    const code = codeOf(cause);
    if (code === undefined) throw cause;
    return code;
  }
}

/**
 * Give a socket the address it had. One that this computer does not have is bound all the same: so it is with a running
 * program whose computer loses an address, and it may come back.
 */
export function bindOwn(local: number, record: Socket, context: RestoreContext): void {
  const address = record.address!;
  let code = tryBind(local, address);
  if (code === undefined) return;
  if (code === 'EADDRNOTAVAIL') {
    setOption(local, SOL.ip, IP_FREEBIND, 1);
    code = tryBind(local, address);
    if (code === undefined) {
      context.warn(
        `this computer does not have the address ${describeAddress(address)}: a socket of the session has it without being reached`,
      );
      return;
    }
  }
  // A number that the kernel has chosen for a socket that only asks others.
  const asks = record.state === 'connecting' || record.state === 'waiting' || record.state === 'connected';
  if (asks && tryBind(local, withPort(address, 0)) === undefined) {
    context.warn(
      `a socket of the session gets another port in place of ${describeAddress(address)}, which is taken`,
    );
    return;
  }
  refuseAddress(record, code, context);
}

function refuseAddress(record: Socket, code: string, context: RestoreContext): never {
  const address = describeAddress(record.address!);
  const name = record.type === 'tcp' ? 'TCP' : 'UDP';
  if (code === 'EADDRINUSE') {
    const holder = findHolder(record, context);
    context.refuse(
      `${name} port ${portOf(record.address!)} (${address}), which the session has, is taken here${holder === undefined ? '' : ` by ${holder}`}`,
      holder === undefined
        ? 'wait a minute for connections that have just ended, or ask root who has it (ss -anp)'
        : 'end that program first, or run the session in a network of its own (pod-run --net)',
    );
  }
  context.refuse(
    `the session can't have ${name} port ${portOf(record.address!)} (${address}) here (${code})`,
    code === 'EACCES'
      ? 'restart as root, or lower net.ipv4.ip_unprivileged_port_start'
      : 'give this computer the address (ip addr add)',
  );
}

/** Who has a port, as far as we may look: `nginx (pid 12)`. */
function findHolder(record: Socket, context: RestoreContext): string | undefined {
  const port = `:${portOf(record.address!)}`;
  const table = readTable(context.builderPid, record.type);
  const rows = table.filter(({ local, inode }) => local.endsWith(port) && inode !== 0);
  rows.sort((a, b) => Number(b.state === TCP.listen) - Number(a.state === TCP.listen));
  const inode = rows[0]?.inode;
  if (inode === undefined) return undefined;
  for (const pid of readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name))) {
    if (hasSocket(pid, inode)) return describeProcess(Number(pid));
  }
  return 'a program of another user';
}

function hasSocket(pid: string, inode: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some(
      (fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`,
    );
  } catch {
    return false;
  }
}
