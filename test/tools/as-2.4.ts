/**
 * as-2.4: a dump of a live session as Linux 2.4 would have told it, for tests of upgrade-2.6.
 *
 *     pod-dump NAME | node dist/esm/test/tools/as-2.4.js | pod-filter upgrade-2.6 | pod-restart
 *
 * Every thread becomes a task of its own (of a CLONE_THREAD group when its process has several), shared queues go
 * to the leader, timers count jiffies, device numbers are 8:8, limits 11, the vdso is gone. What 2.4 lacked is
 * refused by name, exit 32: it can never go back. So is a program that has pointers into the vdso, and one that
 * has told the kernel of robust lists, restartable sequences or an address to clear: today's C library does all
 * of it (docs/upgrade-2.6.md says why none of it can just be dropped), a program of 2.4's days does none.
 */
import { pathToFileURL } from 'node:url';
import { runCommand } from '../../lib/cli/main.ts';
import { type Area, type IntervalTimer, openFileKinds, type TreeEntry } from '../../lib/image/model.ts';
import { type Records, readRecord } from '../../lib/image/record.ts';
import { findNewObject } from '../../lib/image/upgrade/new-objects.ts';
import { DescriptorSink, pump } from '../../lib/stream/descriptor.ts';
import { PodError } from '../../lib/stream/error.ts';
import type { Frame } from '../../lib/stream/frame.ts';
import { kindName, kinds } from '../../lib/stream/kind.ts';
import type { Sink } from '../../lib/stream/sink.ts';
import { type FrameHandler, StreamParser } from '../../lib/stream/stream-parser.ts';
import { StreamWriter } from '../../lib/stream/stream-writer.ts';

const mostKept = 256 << 20;
const mostPid = 32767;
const mostGroups = 32;
const pipeCapacity = 4096;
const nsPerJiffy = 10_000_000n;
const defaultTicks = 6;
const pathOnly = 0o10000000;
/** ADDR_NO_RANDOMIZE, ADDR_COMPAT_LAYOUT, READ_IMPLIES_EXEC. */
const newPersonalities = 0x0640000;
/** Nothing of these is lost by leaving it out: their records are refused when they matter. */
const droppedRequires = new Set(['futex-lists', 'rseq', 'thread-groups']);
/** Calls that came later, by x86_64 number: a task blocked in one would find it missing. */
const newCalls = new Map<number, string>(
  Object.entries({
    202: 'futex',
    230: 'clock_nanosleep',
    232: 'epoll_wait',
    242: 'mq_timedsend',
    243: 'mq_timedreceive',
    247: 'waitid',
    270: 'pselect6',
    271: 'ppoll',
    281: 'epoll_pwait',
    299: 'recvmmsg',
    441: 'epoll_pwait2',
    449: 'futex_waitv',
  }).map(([number, name]) => [Number(number), name]),
);

function refuse(what: string): PodError {
  return new PodError('other', `${what}, which 2.4 lacked: the image cannot go back`, undefined, {
    exitCode: 32,
  });
}

/** Kernel pages of an address space that are gone: [start, end). */
interface Gone {
  start: bigint;
  end: bigint;
  vdso: bigint;
}

class As24 implements FrameHandler {
  readonly #writer: StreamWriter;
  readonly #downstream: Sink;
  #kept: Frame[] | undefined = [];
  #keptBytes = 0;
  readonly #gone = new Map<number, Gone>();
  readonly #pipes = new Set<number>();
  readonly #pipeContent = new Map<number, number>();
  #threads = new Map<number, number[]>();

  constructor(downstream: Sink) {
    this.#downstream = downstream;
    this.#writer = new StreamWriter(downstream);
  }

  frame(frame: Frame): void {
    if (frame.kind === kinds.end || frame.kind === kinds.error) return;
    if (frame.kind === kinds.layer) throw new PodError('usage', 'as-2.4 reads images, but this is a layer');
    if (this.#kept && frame.kind !== kinds.pages) {
      this.#keptBytes += frame.raw.length;
      if (this.#keptBytes > mostKept) throw new PodError('limit', 'the records of the image are too long');
      this.#kept.push(frame.copy());
      return;
    }
    this.#release();
    if (frame.kind === kinds.pages) this.#pages(frame);
    else this.#writer.forward(frame);
  }

  end(): void {
    this.#release();
    this.#writer.end();
    this.#downstream.end();
  }

  abort(cause: unknown): void {
    try {
      if (!this.#writer.finished) this.#writer.error('as-2.4', PodError.from(cause));
    } catch {
      // Downstream is gone: the first cause is what matters.
    }
    this.#downstream.abort(cause);
  }

  #release(): void {
    const kept = this.#kept;
    this.#kept = undefined;
    if (!kept) return;
    for (const frame of kept) {
      if (frame.kind === kinds.thread) {
        const { pid, tid } = readRecord('thread', frame);
        this.#threads.set(pid, [...(this.#threads.get(pid) ?? []), tid]);
      } else if (frame.kind === kinds.pipe) {
        this.#pipes.add(readRecord('pipe', frame).id);
      } else if (frame.kind === kinds.content) {
        const { file } = readRecord('content', frame);
        this.#pipeContent.set(file, (this.#pipeContent.get(file) ?? 0) + frame.data.length);
      }
    }
    // Whatever is refused is refused before the first byte is written.
    const out = this.#turnAll(kept);
    const needed = kept
      .filter((frame) => frame.kind === kinds.hello)
      .flatMap((frame) => readRecord('hello', frame).requires)
      .find((feature) => !droppedRequires.has(feature));
    if (needed) throw refuse(`the image requires ${needed}`);
    for (const { frame, meta } of out) {
      if (meta === frame.meta) this.#writer.forward(frame);
      else this.#writer.record(frame.kind, meta, frame.data, frame.flags);
    }
  }

  #turnAll(frames: readonly Frame[]): { frame: Frame; meta: object }[] {
    const out: { frame: Frame; meta: object }[] = [];
    let process: { frame: Frame; record: Records['process'] } | undefined;
    for (const frame of frames) {
      const name = kindName(frame.kind);
      if (name === 'process') {
        process = { frame, record: readRecord('process', frame) };
      } else if (name === 'thread') {
        out.push(...this.#task(process!, frame));
      } else {
        const meta = this.#turn(frame);
        if (meta) out.push({ frame, meta });
      }
    }
    return out;
  }

  /** The record of 2.4; undefined when 2.4 had no such thing and nobody misses it. */
  #turn(frame: Frame): object | undefined {
    const name = kindName(frame.kind);
    switch (name) {
      case 'hello':
        return turnHello(readRecord('hello', frame));
      case 'tree':
        return { ...frame.meta, processes: this.#tree(readRecord('tree', frame).processes) };
      case 'shm': {
        const shm = readRecord('shm', frame);
        if (shm.origin === 'memfd') throw refuse(`shared memory ${shm.id} is a memfd`);
        return shm;
      }
      case 'mm':
        return this.#mm(readRecord('mm', frame));
      case 'areas':
        return turnAreas(readRecord('areas', frame));
      case 'device':
        return turnDevice(readRecord('device', frame));
      case 'pipe': {
        const pipe = readRecord('pipe', frame);
        const held = this.#pipeContent.get(pipe.id) ?? 0;
        if (held > pipeCapacity) throw refuse(`pipe ${pipe.id} holds ${held} bytes, more than a page`);
        return { ...pipe, capacity: pipeCapacity };
      }
      case 'unix-socket': {
        const socket = readRecord('unix-socket', frame);
        if (socket.type === 'seqpacket') throw refuse(`unix-socket ${socket.id} is of the type seqpacket`);
        return socket;
      }
      case 'content': {
        const content = readRecord('content', frame);
        if (content.message && this.#pipes.has(content.file))
          throw refuse(`pipe ${content.file} holds packets`);
        return content;
      }
      case 'eventfd':
      case 'epoll':
      case 'timerfd':
      case 'signalfd':
      case 'inotify':
      case 'pidfd': {
        const found = findNewObject(name, readRecord(name, frame))!;
        throw refuse(`${found.object} is ${found.what}`);
      }
      default:
        if (name && (openFileKinds as readonly string[]).includes(name)) checkOpenFile(name, frame.meta);
        return frame.meta;
    }
  }

  #tree(entries: readonly TreeEntry[]): TreeEntry[] {
    return entries.flatMap((entry) => {
      const tids = this.#threads.get(entry.pid) ?? [entry.pid];
      for (const pid of tids) {
        if (pid > mostPid) throw refuse(`process ${pid} has a pid above ${mostPid}`);
      }
      if (tids.length === 1) return [entry];
      const others = tids.filter((tid) => tid !== entry.pid);
      return [
        { ...entry, threadGroup: entry.pid },
        ...others.map((pid) => ({ ...entry, pid, exitSignal: 0, threadGroup: entry.pid })),
      ];
    });
  }

  #mm(mm: Records['mm']): object {
    const { vdso, thpDisable: _new, ...rest } = mm;
    if (vdso) {
      // The kernel puts its data right below its code.
      this.#gone.set(mm.id, { start: vdso.vvarStart, end: vdso.start + vdso.size, vdso: vdso.start });
    }
    const words = new BigUint64Array(new Uint8Array(mm.auxv).buffer);
    const pairs: bigint[] = [];
    for (let at = 0; at + 1 < words.length; at += 2) {
      if (words[at] !== 32n && words[at] !== 33n) pairs.push(words[at]!, words[at + 1]!);
    }
    return { ...rest, auxv: new Uint8Array(BigUint64Array.from(pairs).buffer) };
  }

  /** A thread as a task: PROCESS and THREAD. */
  #task(
    process: { frame: Frame; record: Records['process'] },
    frame: Frame,
  ): { frame: Frame; meta: object }[] {
    const thread = readRecord('thread', frame);
    const { record } = process;
    const leader = thread.tid === record.pid;
    checkTask(record, thread);
    const gone = this.#gone.get(record.mm);
    const rip = new DataView(thread.registers.buffer, thread.registers.byteOffset).getBigUint64(16 * 8, true);
    if (gone && rip >= gone.start && rip < gone.end) throw refuse(`thread ${thread.tid} is in the vdso`);
    const { pending: shared, itimers, coredumpFilter: _filter, oomScoreAdjust: _score, ...rest } = record;
    const real = itimers?.find((timer) => timer.which === 0);
    const others = itimers?.filter((timer) => timer.which !== 0) ?? [];
    const { ioprio: _io, timerSlackNs: _slack, ...scheduling } = thread.scheduling;
    const pending = [...(thread.pending ?? []), ...(leader ? (shared ?? []) : [])];
    const { pending: _own, ...own } = thread;
    return [
      {
        frame: process.frame,
        meta: {
          ...rest,
          pid: thread.tid,
          limits: record.limits.slice(0, 11),
          personality: record.personality & ~newPersonalities,
          ...(leader && others.length > 0 ? { itimers: others } : {}),
        },
      },
      {
        frame,
        meta: {
          ...own,
          pid: thread.tid,
          scheduling: { ...scheduling, counter: defaultTicks },
          ...(pending.length > 0 ? { pending } : {}),
          ...(leader && real ? { itimerReal: turnTimer(real) } : {}),
        },
      },
    ];
  }

  /** Pages without a trace of the vdso: its entry on the stack is blanked, any other pointer to it is refused. */
  #pages(frame: Frame): void {
    const { mm, addr } = readRecord('pages', frame);
    const gone = mm === undefined ? undefined : this.#gone.get(mm);
    if (!gone) {
      this.#writer.forward(frame);
      return;
    }
    if (addr >= gone.start && addr < gone.end) return;
    const bytes = new Uint8Array(frame.data);
    const words = new Uint32Array(bytes.buffer);
    const high = [Number(gone.start >> 32n), Number((gone.end - 1n) >> 32n)];
    let changed = false;
    for (let at = 1; at < words.length; at += 2) {
      if (words[at] !== high[0] && words[at] !== high[1]) continue;
      const value = (BigInt(words[at]!) << 32n) | BigInt(words[at - 1]!);
      if (value < gone.start || value >= gone.end) continue;
      // AT_SYSINFO_EHDR, as the kernel wrote it for the program to read at its start: AT_IGNORE instead.
      if (value !== gone.vdso || words[at - 3] !== 33 || words[at - 2] !== 0) {
        const place = (addr + BigInt((at - 1) * 4)).toString(16);
        throw refuse(`address space ${mm} has a pointer into the vdso at 0x${place}`);
      }
      words.set([1, 0, 0, 0], at - 3);
      changed = true;
    }
    if (changed) this.#writer.frame(frame.kind, frame.flags, frame.metaBytes, bytes);
    else this.#writer.forward(frame);
  }
}

/**
 * A periodic timer of 2.6 that has run out stands at 0 until its signal is taken; one of 2.4 was wound up again
 * at once.
 */
function turnTimer({ valueNs, intervalNs }: IntervalTimer): NonNullable<Records['thread']['itimerReal']> {
  return {
    valueJiffies: jiffies(valueNs === 0n ? intervalNs : valueNs),
    intervalJiffies: jiffies(intervalNs),
  };
}

/** Never earlier than it was. */
const jiffies = (ns: bigint): bigint => (ns + nsPerJiffy - 1n) / nsPerJiffy;

function turnHello(hello: Records['hello']): object {
  if (hello.semantics !== '2.6') throw new PodError('usage', 'the image has 2.4 semantics already');
  return {
    ...hello,
    kernel: '2.4.37',
    semantics: '2.4',
    requires: [],
    history: [...hello.history, { filter: 'as-2.4', version: '1' }],
  };
}

/** dontfork and wipeonfork change what a child sees; the other new ones only change speed or core dumps. */
const knownAdvice = new Set<string>(['sequential', 'random']);
const idleAdvice = new Set<string>(['hugepage', 'nohugepage', 'mergeable', 'dontdump']);

function turnAreas(record: Records['areas']): object | undefined {
  const areas: Area[] = [];
  for (const area of record.areas) {
    if (area.kind === 'vdso' || area.kind === 'vvar') continue;
    const object = `area 0x${area.start.toString(16)} of address space ${record.mm}`;
    if (area.lockOnFault) throw refuse(`${object} is locked on fault`);
    const advice = area.advice?.filter((each) => !idleAdvice.has(each)) ?? [];
    const fresh = advice.find((each) => !knownAdvice.has(each));
    if (fresh) throw refuse(`${object} has the advice ${fresh}`);
    const { name: _name, advice: _all, ...rest } = area;
    areas.push({ ...rest, ...(advice.length > 0 ? { advice } : {}) });
  }
  return areas.length > 0 ? { ...record, areas } : undefined;
}

/** makedev(3) to 8:8; terminals above 255 are on the next majors. */
function turnDevice(device: Records['device']): object {
  const { rdev } = device;
  const major = Number(((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n));
  const minor = Number((rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n));
  if (!device.block && major === 136 && minor < 2048)
    return { ...device, rdev: BigInt(((136 + (minor >> 8)) << 8) | (minor & 0xff)) };
  if (major > 255 || minor > 255) throw refuse(`device ${device.id} has the number ${major}:${minor}`);
  return { ...device, rdev: BigInt((major << 8) | minor) };
}

function checkOpenFile(kind: string, meta: Record<string, unknown>): void {
  const object = `${kind} ${String(meta.id)}`;
  if (meta.memfd !== undefined) throw refuse(`${object} is a memfd`);
  if (typeof meta.flags === 'number' && (meta.flags & pathOnly) !== 0)
    throw refuse(`${object} has the flag O_PATH`);
}

function checkTask(process: Records['process'], thread: Records['thread']): void {
  const found = findNewObject('process', process) ?? findNewObject('thread', thread);
  if (found) throw refuse(`${found.object} has ${found.what}`);
  const object = `thread ${thread.tid}`;
  const { credentials, scheduling } = thread;
  if (credentials.groups.length > mostGroups)
    throw refuse(`${object} has ${credentials.groups.length} groups`);
  if (credentials.ambient !== 0n) throw refuse(`${object} has ambient capabilities`);
  if (credentials.noNewPrivs) throw refuse(`${object} has no_new_privs`);
  if (scheduling.policy > 2) throw refuse(`${object} has the scheduling policy ${scheduling.policy}`);
  if ((scheduling.ioprio ?? 0) >> 13 !== 0) throw refuse(`${object} has an io priority`);
  const call = newCalls.get(thread.systemCall?.number ?? -1);
  if (call) throw refuse(`${object} has to go on in ${call}()`);
}

/** The stage: a 2.6 image in, a 2.4 image out. */
export function as24(downstream: Sink): Sink {
  return new StreamParser(new As24(downstream));
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  await runCommand('as-2.4', () => pump(0, as24(new DescriptorSink(1))));
}
