/** Questions about the sockets of a network namespace: sock_diag(7). */
import { native } from '../../../../native/index.ts';
import { SYS } from '../abi.ts';
import { openNetlink } from '../session-netlink.ts';
import type { DumpContext } from './file-object.ts';
import { closeLocal } from './local-calls.ts';

const SOCK_DIAG_BY_FAMILY = 20;
const NETLINK_SOCK_DIAG = 4;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_REQUEST = 1;
const NLM_F_DUMP = 0x300;
const headerSize = 16;
const errnoNames: Record<number, string> = { 1: 'EPERM', 2: 'ENOENT', 22: 'EINVAL' };

/**
 * All answers to a question about the sockets of a process's network. Throws ENOENT or EINVAL (`code`) when this kernel
 * has no answer to it.
 */
export function askSockets(pid: number, question: Uint8Array, context: DumpContext): Uint8Array[] {
  const netlink = openNetlink(pid, NETLINK_SOCK_DIAG, context.within);
  try {
    return askAll(netlink, question);
  } finally {
    closeLocal(netlink);
  }
}

function askAll(netlink: number, question: Uint8Array): Uint8Array[] {
  const request = new Uint8Array(headerSize + question.length);
  const view = new DataView(request.buffer);
  view.setUint32(0, request.length, true);
  view.setUint16(4, SOCK_DIAG_BY_FAMILY, true);
  view.setUint16(6, NLM_F_REQUEST | NLM_F_DUMP, true);
  view.setUint32(8, 1, true);
  request.set(question, headerSize);
  native().syscall(SYS.sendto, netlink, request, request.length, 0, 0, 0);
  const answers: Uint8Array[] = [];
  const buffer = new Uint8Array(64 << 10);
  for (;;) {
    const length = Number(native().syscall(SYS.recvfrom, netlink, buffer, buffer.length, 0, 0, 0));
    if (takeMessages(buffer.slice(0, length), answers)) return answers;
  }
}

/** Take the messages of one datagram; true behind the last. */
function takeMessages(bytes: Uint8Array, answers: Uint8Array[]): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + headerSize <= bytes.length; ) {
    const length = view.getUint32(at, true);
    const type = view.getUint16(at + 4, true);
    if (type === NLMSG_DONE) return true;
    if (type === NLMSG_ERROR) {
      const errno = -view.getInt32(at + headerSize, true);
      throw Object.assign(new Error(`sock_diag failed with errno ${errno}`), {
        code: errnoNames[errno] ?? 'EINVAL',
      });
    }
    answers.push(bytes.subarray(at + headerSize, at + length));
    at += (length + 3) & ~3;
  }
  return false;
}

/** Attributes of an answer: struct nlattr of 4 bytes, then the body, padded to a multiple of 4. */
export function* attributesOf(
  answer: Uint8Array,
  from: number,
): Generator<{ type: number; body: Uint8Array }> {
  const view = new DataView(answer.buffer, answer.byteOffset, answer.length);
  for (let at = from; at + 4 <= answer.length; ) {
    const length = view.getUint16(at, true);
    if (length < 4 || at + length > answer.length) return;
    yield { type: view.getUint16(at + 2, true), body: answer.subarray(at + 4, at + length) };
    at += (length + 3) & ~3;
  }
}
