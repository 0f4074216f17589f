/** /proc/sys/net of a network namespace: which settings differ from those of a new one, and setting them again. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inNetworkOf, inNewNetwork } from './elsewhere.ts';
import type { Setting } from './network.ts';

const top = '/proc/sys/net';
/** What passes, what is asked by reading, and what links tell themselves. */
const notSettings =
  /^(ipv4\/route\/flush|netfilter\/.*_count|ipv6\/conf\/.*\/(mtu|stable_secret)|ipv[46]\/conf\/.*\/mc_forwarding)$/;

/** Those of our own thread's network, readable and writable ones. */
function readAll(): Map<string, string> {
  const found = new Map<string, string>();
  const walk = (folder: string) => {
    for (const entry of readdirSync(join(top, folder), { withFileTypes: true })) {
      const name = folder === '' ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory()) walk(name);
      else if (!notSettings.test(name)) {
        try {
          found.set(name, readFileSync(join(top, name), 'latin1').replace(/\n$/, ''));
        } catch {
          // One that is only written, or that has no value yet.
        }
      }
    }
  };
  walk('');
  return found;
}

/** What an interface is given when it comes. */
const ofLink = /^(ipv[46]\/(?:conf|neigh))\/([^/]+)\/(.*)$/;

/** Throws EPERM when we may not enter it. */
export function changedSettings(pid: number): Setting[] {
  const found = inNetworkOf(pid, readAll);
  const usual = inNewNetwork(readAll);
  const expected = (name: string) => {
    const link = ofLink.exec(name);
    return usual.get(name) ?? (link ? usual.get(`${link[1]}/default/${link[3]}`) : undefined);
  };
  return [...found]
    .filter(([name, value]) => expected(name) !== undefined && expected(name) !== value)
    .map(([name, value]) => ({ name, value }));
}

/** Some set others: those for all interfaces come first, those of one last. */
const rank = ({ name }: Setting) =>
  name === 'ipv4/ip_forward'
    ? 0
    : /\/conf\/all\//.test(name)
      ? 1
      : /\/(conf|neigh)\/default\//.test(name)
        ? 2
        : 3;

/** Set them in the network of a process; calls `failed` for each that does not hold. */
export function applySettings(
  pid: number,
  settings: readonly Setting[],
  failed: (name: string, why: string) => void,
): void {
  if (settings.length === 0) return;
  inNetworkOf(pid, () => {
    for (const { name, value } of [...settings].sort((a, b) => rank(a) - rank(b))) {
      try {
        writeFileSync(join(top, name), `${value}\n`, { flag: 'r+' });
      } catch {
        // Seen below.
      }
    }
    for (const { name, value } of settings) {
      const now = ((): string | undefined => {
        try {
          return readFileSync(join(top, name), 'latin1').replace(/\n$/, '');
        } catch {
          return undefined;
        }
      })();
      if (now !== value) failed(name, now === undefined ? 'this kernel does not have it' : `it is ${now}`);
    }
  });
}
