/**
 * Every TCP or UDP socket of a network namespace, from /proc/PID/net: what needs no module, no right, and shows also
 * those that nobody has open any more, or not yet.
 */
import { readFileSync } from 'node:fs';
import { plainHost } from './inet-address.ts';
import { codeOf } from './local-calls.ts';

/** States of TCP: <net/tcp_states.h>. */
export const TCP = {
  established: 1,
  synSent: 2,
  synReceived: 3,
  finWait1: 4,
  finWait2: 5,
  timeWait: 6,
  close: 7,
  closeWait: 8,
  lastAck: 9,
  listen: 10,
  closing: 11,
} as const;

export interface Row {
  /** As keyOf() gives them. */
  local: string;
  remote: string;
  state: number;
  /** Bytes sent and not acknowledged, with the end of the stream as one. */
  unsent: number;
  /** Bytes received and not read, with the end of the stream as one. */
  unread: number;
  /** 0: no process has it, or it waits to be accepted. */
  inode: number;
}

/** `protocol` tcp or udp. `process`: a pid, self or thread-self, whose network it is. */
export function readTable(process: number | string, protocol: 'tcp' | 'udp'): Row[] {
  return [protocol, `${protocol}6`].flatMap((name) => {
    try {
      return readFileSync(`/proc/${process}/net/${name}`, 'latin1').split('\n').slice(1).flatMap(parseRow);
    } catch (cause) {
      // Without IPv6 there is no table of it.
      if (codeOf(cause) === 'ENOENT') return [];
      throw cause;
    }
  });
}

function parseRow(line: string): Row[] {
  const words = line.trim().split(/\s+/);
  if (words.length < 10) return [];
  const [unsent, unread] = words[4]!.split(':').map((text) => Number.parseInt(text, 16));
  return [
    {
      local: parseEndpoint(words[1]!),
      remote: parseEndpoint(words[2]!),
      state: Number.parseInt(words[3]!, 16),
      unsent: unsent!,
      unread: unread!,
      inode: Number(words[9]),
    },
  ];
}

/** `0100007F:1F90`: words of the processor's byte order. */
function parseEndpoint(text: string): string {
  const [host, port] = text.split(':') as [string, string];
  const bytes = Buffer.from(host, 'hex');
  bytes.swap32();
  return `${plainHost(bytes.toString('hex'))}:${Number.parseInt(port, 16)}`;
}
