/**
 * A TCP connection to outside that goes on where its address goes: --tcp keep, for a pod with a network of its own.
 *
 * TCP_REPAIR lets a socket say its sequence numbers and what it has sent, and lets a new one begin in the middle. Both
 * are done behind a barrier (lib/network/barrier.ts): from the moment a connection is looked at nothing reaches it, so
 * the other end keeps what we do not know of, and sends it again. When the session ends, its eth0 is the first to go, so
 * nobody hears of it.
 *
 * What had come out of order is forgotten, as a receiver may. Congestion control begins anew.
 */
import { native } from '../../../../native/index.ts';
import { nap } from '../../../../native/nap.ts';
import type { Records } from '../../../image/record.ts';
import { maxData } from '../../../stream/frame.ts';
import { SYS } from '../abi.ts';
import type { RestoreContext } from './file-object.ts';
import { describeAddress } from './inet-address.ts';
import { makeSocket } from './inet-bind.ts';
import { applyOptions, kindOf, numberOption, SO, SOL, setOption, TCP_INFO } from './inet-options.ts';
import { borrow, closeLocal, codeOf, getOption, ioctlRead, readOption } from './local-calls.ts';
import { trySend } from './tcp-queue.ts';
import { shutDown } from './tcp-rebuild.ts';

type Socket = Records['inet-socket'];
export type Kept = NonNullable<Socket['kept']>;

const TCP = {
  maxSegment: 2,
  repair: 19,
  repairQueue: 20,
  queueSequence: 21,
  repairOptions: 22,
  timestamp: 24,
  notSentLowest: 25,
  repairWindow: 29,
} as const;
const repair = { off: 0, on: 1, offQuietly: -1 } as const;
const queues = { none: 0, receive: 1, send: 2 } as const;
const SIOCOUTQ = 0x5411;
const SIOCOUTQNSD = 0x894b;
const MSG_PEEK = 2;
const MSG_DONTWAIT = 0x40;
/** tcpi_options. */
const OPT = { timestamps: 1, sack: 2, scale: 4, microseconds: 0x40 } as const;
const infoOffset = { options: 5, scales: 6 } as const;
/** TCPOPT_… of struct tcp_repair_opt. */
const REPAIR_OPT = { maxSegment: 2, window: 3, sack: 4, timestamps: 8 } as const;
const windowSize = 20;
/** A queue takes pieces of this size whatever memory is like. */
const piece = 32 << 10;
const mostBuffer = 0x3fffffff;

const outgoing = (local: number, request: number): number =>
  new DataView(ioctlRead(local, request, 4).buffer).getInt32(0, true);

/** In repair for a moment, on a running session's socket: were we killed in between, it would stay mute. */
function inRepair<Result>(local: number, body: () => Result): Result {
  setOption(local, SOL.tcp, TCP.repair, repair.on);
  try {
    return body();
  } finally {
    setOption(local, SOL.tcp, TCP.repair, repair.offQuietly);
  }
}

const sequenceOf = (local: number, queue: number): number => {
  setOption(local, SOL.tcp, TCP.repairQueue, queue);
  return numberOption(local, SOL.tcp, TCP.queueSequence)! >>> 0;
};

/**
 * What a new socket must know. `unread`: bytes received and not read; `ended`: the end of the stream was sent, which
 * counts as a byte.
 */
export function readKept(local: number, unread: number, ended: boolean): { kept: Kept; sent: Uint8Array[] } {
  const info = new Uint8Array(104);
  info.set(getOption(local, SOL.tcp, TCP_INFO, info.length)!);
  const [options, scales] = [info[infoOffset.options]!, info[infoOffset.scales]!];
  return inRepair(local, () => {
    const received = sequenceOf(local, queues.receive);
    const end = sequenceOf(local, queues.send);
    const [all, waiting] = [outgoing(local, SIOCOUTQ), outgoing(local, SIOCOUTQNSD)];
    // The end was acknowledged already: nothing waits, and it has its number all the same.
    const last = ended ? 1 : 0;
    const bytes = Math.max(0, all - last);
    const data =
      bytes === 0
        ? new Uint8Array()
        : (native().receiveMessage(local, bytes, MSG_PEEK | MSG_DONTWAIT)?.data ?? new Uint8Array());
    if (data.length !== bytes) throw new Error(`TCP_REPAIR tells ${data.length} of ${bytes} bytes`);
    const sent: Uint8Array[] = [];
    for (let at = 0; at < data.length; at += maxData) sent.push(data.subarray(at, at + maxData));
    return {
      kept: {
        receive: (received - unread) >>> 0,
        send: (end - last - bytes) >>> 0,
        unsent: Math.min(Math.max(0, waiting - last), bytes),
        maxSegment: numberOption(local, SOL.tcp, TCP.maxSegment)! & 0xffff,
        window: new Uint8Array(readOption(local, SOL.tcp, TCP.repairWindow, windowSize)!.buffer),
        ...((options & OPT.scale) === 0 ? {} : { sendScale: scales & 15, receiveScale: scales >> 4 }),
        ...((options & OPT.sack) === 0 ? {} : { sack: true }),
        ...((options & OPT.timestamps) === 0
          ? {}
          : { timestamp: numberOption(local, SOL.tcp, TCP.timestamp)! >>> 0 }),
        ...((options & OPT.microseconds) === 0 ? {} : { microseconds: true }),
      },
      sent,
    };
  });
}

/** The same connection in the builder. It goes on when the session does. */
export function makeKept(record: Socket, kept: Kept, context: RestoreContext): number {
  const fd = makeSocket(kindOf(record).family, 1, context);
  const local = borrow(context.builderPid, fd);
  const contents = context.contents(record.id);
  const of = (direction: boolean) =>
    Buffer.concat(contents.filter(({ meta }) => (meta.sent === true) === direction).map(({ data }) => data));
  const [received, sent] = [of(false), of(true)];
  const numbers = `${describeAddress(record.address!)} to ${describeAddress(record.peerAddress!)}`;
  try {
    applyOptions(local, record, 'early', context);
    const unlock = widen(local, received.length, sent.length);
    setOption(local, SOL.tcp, TCP.repair, repair.on);
    setSequence(local, queues.receive, kept.receive);
    setSequence(local, queues.send, kept.send);
    native().syscall(SYS.bind, local, record.address!, record.address!.length);
    native().syscall(SYS.connect, local, record.peerAddress!, record.peerAddress!.length);
    setOption(local, SOL.tcp, TCP.repairOptions, repairOptions(kept));
    if (kept.timestamp !== undefined)
      // Its lowest bit says whether it counts microseconds, where the kernel knows such.
      setOption(
        local,
        SOL.tcp,
        TCP.timestamp,
        (((kept.timestamp + 1) & ~1) | (kept.microseconds ? 1 : 0)) >>> 0,
      );
    const split = Math.max(0, sent.length - kept.unsent);
    fill(local, queues.send, sent.subarray(0, split));
    fill(local, queues.receive, received);
    setOption(local, SOL.tcp, TCP.repairWindow, kept.window);
    setOption(local, SOL.tcp, TCP.repairQueue, queues.none);
    context.beforeRun(() => {
      setOption(local, SOL.tcp, TCP.repair, repair.off);
      // What waited to be sent is sent in the usual way.
      const lowest = numberOption(local, SOL.tcp, TCP.notSentLowest)!;
      setOption(local, SOL.tcp, TCP.notSentLowest, -1);
      write(local, sent.subarray(split));
      setOption(local, SOL.tcp, TCP.notSentLowest, lowest);
      shutDown(local, record);
      unlock();
      // Repair has a rule of its own for ports, and takes it back.
      applyOptions(local, record, 'late', context);
      closeLocal(local);
    });
  } catch (cause) {
    closeLocal(local);
    if (codeOf(cause) === undefined) throw cause;
    return context.refuse(
      `the connection from ${numbers} can't go on here (${(cause as Error).message})`,
      'restart as root, or give it up: pod-restart --tcp reset',
    );
  }
  return fd;
}

function setSequence(local: number, queue: number, sequence: number): void {
  setOption(local, SOL.tcp, TCP.repairQueue, queue);
  setOption(local, SOL.tcp, TCP.queueSequence, sequence | 0);
}

function repairOptions(kept: Kept): Uint8Array {
  const pairs: number[] = [REPAIR_OPT.maxSegment, kept.maxSegment];
  if (kept.sendScale !== undefined && kept.receiveScale !== undefined)
    pairs.push(REPAIR_OPT.window, kept.sendScale | (kept.receiveScale << 16));
  if (kept.sack) pairs.push(REPAIR_OPT.sack, 0);
  if (kept.timestamp !== undefined) pairs.push(REPAIR_OPT.timestamps, 0);
  return new Uint8Array(new Uint32Array(pairs).buffer);
}

function fill(local: number, queue: number, data: Uint8Array): void {
  setOption(local, SOL.tcp, TCP.repairQueue, queue);
  write(local, data);
}

function write(local: number, data: Uint8Array): void {
  let end = Date.now() + patience;
  for (let at = 0; at < data.length; ) {
    const part = data.subarray(at, at + piece);
    const written = trySend(local, part);
    if (written > 0) end = Date.now() + patience;
    // Memory is short: the peer takes some of it.
    else if (Date.now() > end) throw new Error(`${data.length - at} bytes of a connection do not fit`);
    else nap(1);
    at += written;
  }
}

/** ms without getting rid of a byte. */
const patience = 5000;

/** Room for what was in the queues; afterwards the kernel may choose again, if it did. */
function widen(local: number, received: number, sent: number): () => void {
  const lock = numberOption(local, SOL.socket, SO.bufLock);
  for (const [force, option, length] of [
    [SO.rcvbufforce, SO.rcvbuf, received],
    [SO.sndbufforce, SO.sndbuf, sent],
  ] as const) {
    // Of each buffer a part goes for what the kernel needs beside the bytes.
    const wanted = Math.min(4 * length + (256 << 10), mostBuffer);
    if (length > 0 && wanted > numberOption(local, SOL.socket, option)!)
      setOption(local, SOL.socket, force, wanted);
  }
  return () => {
    if (lock !== undefined) setOption(local, SOL.socket, SO.bufLock, lock);
  };
}
