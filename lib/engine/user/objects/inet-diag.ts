/** What of an internet socket only sock_diag(7) tells. */
import { readlinkSync } from 'node:fs';
import { readStatus } from '../proc.ts';
import type { DumpContext, OpenFile } from './file-object.ts';
import { AF_INET, AF_INET6 } from './inet-address.ts';
import { codeOf } from './local-calls.ts';
import { askSockets, attributesOf } from './netlink-diag.ts';

interface Told {
  /** RCV_SHUTDOWN 1, SEND_SHUTDOWN 2. */
  shutdown: number;
  /** It has keys of TCP_MD5SIG. */
  signed: boolean;
}

const protocols = { tcp: 6, udp: 17 } as const;
/** struct inet_diag_req_v2, struct inet_diag_msg. */
const requestSize = 56;
const messageSize = 72;
const inodeAt = 68;
/** 1 << INET_DIAG_INFO - 1. */
const withInfo = 2;
const attribute = { shutdown: 8, md5: 18 } as const;
const SEND_SHUTDOWN = 2;
const CAP_NET_ADMIN = 12n;

/** Undefined on a kernel that can't be asked (without udp_diag, tcp_diag). */
function tellAll(
  file: OpenFile,
  protocol: keyof typeof protocols,
  context: DumpContext,
): ReadonlyMap<number, Told> | undefined {
  const namespace = readlinkSync(`/proc/${file.pid}/ns/net`);
  return context.once(`what sock_diag tells of ${protocol} in ${namespace}`, () => {
    const found = new Map<number, Told>();
    for (const family of [AF_INET, AF_INET6]) {
      const question = new Uint8Array(requestSize);
      question[0] = family;
      question[1] = protocols[protocol];
      // What is told of keys comes only with all the rest.
      if (protocol === 'tcp') question[2] = withInfo;
      question.fill(0xff, 4, 8);
      try {
        for (const answer of askSockets(file.pid, question, context)) {
          const view = new DataView(answer.buffer, answer.byteOffset, answer.length);
          found.set(view.getUint32(inodeAt, true), parse(answer));
        }
      } catch (cause) {
        if (codeOf(cause) !== 'ENOENT' && codeOf(cause) !== 'EINVAL') throw cause;
        return undefined;
      }
    }
    return found;
  });
}

function parse(answer: Uint8Array): Told {
  const told: Told = { shutdown: 0, signed: false };
  for (const { type, body } of attributesOf(answer, messageSize)) {
    if (type === attribute.shutdown) told.shutdown = body[0]!;
    if (type === attribute.md5) told.signed = true;
  }
  return told;
}

const toldOf = (file: OpenFile, protocol: keyof typeof protocols, context: DumpContext) =>
  tellAll(file, protocol, context)?.get(Number(file.stat.ino));

/** Whether a UDP socket was shut down for writing: poll(2) shows it only together with reading. */
export function isUdpShutForWriting(file: OpenFile, context: DumpContext): boolean {
  return ((toldOf(file, 'udp', context)?.shutdown ?? 0) & SEND_SHUTDOWN) !== 0;
}

/** Whether a TCP socket has keys that its peers must sign with. Told to whoever administers the network. */
export function isSigned(file: OpenFile, context: DumpContext): boolean {
  const may = context.once(
    'whether we administer the network',
    () => (BigInt(`0x${readStatus(process.pid).get('CapEff')?.[0] ?? '0'}`) >> CAP_NET_ADMIN) & 1n,
  );
  return may === 1n && (toldOf(file, 'tcp', context)?.signed ?? false);
}
