/**
 * The network of a pod that has one of its own: a restart makes it with the loopback interface alone, so what the
 * session (root in it) has made beside that is lost, and said to be.
 */
import { readFileSync } from 'node:fs';

/** The kernel puts these into each new network when their modules are loaded. */
const everywhere = /^(lo|tunl0|gre0|gretap0|erspan0|ip_vti0|ip6_vti0|sit0|ip6tnl0|ip6gre0)$/;
const loopback6 = /^0{31}1 .* lo$/;

export function sayInterfaces(pid: number, loss: (sentence: string) => void): void {
  const read = (name: string) => {
    try {
      return readFileSync(`/proc/${pid}/net/${name}`, 'latin1').split('\n');
    } catch {
      // A kernel without IPv6.
      return [];
    }
  };
  const interfaces = read('dev')
    .flatMap((line) => /^\s*([^\s:]+):/.exec(line)?.[1] ?? [])
    .filter((name) => !everywhere.test(name));
  const addresses = [
    ...ownAddresses(read('fib_trie')),
    ...read('if_inet6').filter((line) => line !== '' && !loopback6.test(line)),
  ];
  if (interfaces.length > 0) loss(`the network interfaces ${interfaces.join(', ')} of the pod's own network`);
  else if (addresses.length > 0) loss("addresses given to the loopback interface of the pod's own network");
}

/** `           |-- 127.0.0.1` and under it `              /32 host LOCAL`: addresses of this computer. */
function ownAddresses(lines: readonly string[]): string[] {
  const found = lines.flatMap((line, index) => {
    const address = /\|-- (\S+)$/.exec(line)?.[1];
    return address !== undefined && /\/32 host LOCAL/.test(lines[index + 1] ?? '') ? [address] : [];
  });
  return found.filter((address) => address !== '127.0.0.1');
}
