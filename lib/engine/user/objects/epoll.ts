/**
 * epoll(7). An entry is a pair of open file and descriptor number, and stays when that number is closed or given
 * to another file; so each is traced back to its file by kcmp(2). It is made again from inside a process that has
 * the set and the file (a signalfd wakes only the process that added it), under its number, for which another file
 * gives way for a moment if need be; what no process has together is left to the builder, which has every file.
 */
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { F, O, SYS } from '../abi.ts';
import type { Remote, Word } from '../remote.ts';
import type { DumpContext, FileObject, OpenFile, OutRecord, RestoreContext } from './file-object.ts';
import { errnoName } from './local-calls.ts';
import { setStatusFlags } from './paths.ts';

const KCMP_EPOLL_TFD = 7;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_MOD = 3;
/** EPOLLEXCLUSIVE, EPOLLWAKEUP, EPOLLONESHOT, EPOLLET: how, not what, an entry watches. */
const modeBits = 0xf000_0000;
const EPOLLONESHOT = 0x4000_0000;
/** EPOLLIN, EPOLLOUT: of a socket or pipe end one of them nearly always holds. */
const eitherWay = 0x5;

interface Line {
  fd: number;
  events: number;
  data: bigint;
  inode: bigint | undefined;
}

/** `tfd:        5 events:       19 data:                5  pos:0 ino:61 sdev:f`, hexadecimal but for tfd and pos. */
function parseLine(line: string): Line {
  const match = /^tfd:\s*(\d+)\s+events:\s*([0-9a-f]+)\s+data:\s*([0-9a-f]+)(?:.*\bino:([0-9a-f]+))?/.exec(
    line,
  )!;
  return {
    fd: Number(match[1]),
    events: Number.parseInt(match[2]!, 16),
    data: BigInt(`0x${match[3]}`),
    inode: match[4] === undefined ? undefined : BigInt(`0x${match[4]}`),
  };
}

/** Whether the entry `index` among those under the number `line.fd` is of this open file. */
function isTarget(set: OpenFile, line: Line, index: number, target: OpenFile): boolean {
  if (line.inode !== undefined && line.inode !== target.stat.ino) return false;
  const slot = new Uint8Array(new Uint32Array([set.local, line.fd, index]).buffer);
  const us = process.pid;
  return Number(native().syscall(SYS.kcmp, us, us, KCMP_EPOLL_TFD, target.local, slot)) === 0;
}

function findTarget(set: OpenFile, line: Line, index: number, context: DumpContext): OpenFile {
  // Most likely the number still means the same file, in a process that holds the set.
  for (const holder of set.holders) {
    const likely = context.fileAt(holder.pid, line.fd);
    if (likely && isTarget(set, line, index, likely)) return likely;
  }
  for (const file of context.files) if (isTarget(set, line, index, file)) return file;
  return context.refuse(
    set,
    `it still watches a file that was descriptor ${line.fd} and that no process of the session has open any more`,
    'the file is kept open by something outside the session: end that first',
  );
}

export const epoll: FileObject = {
  records: ['epoll'],
  coverage:
    'all entries with their modes and data, also of closed and reused numbers, nested sets; an edge that was seen may be reported once more',

  matches: (file) => file.link === 'anon_inode:[eventpoll]',

  dump(file, context) {
    // A set inside a set is written before it, and then not again.
    const written = context.once('epoll sets', () => new Set<number>());
    if (written.has(file.id)) return [];
    written.add(file.id);
    const inner: OutRecord[] = [];
    const seen = new Map<number, number>();
    const entries = file.infoLines
      .filter((line) => line.startsWith('tfd:'))
      .map((text) => {
        const line = parseLine(text);
        const index = seen.get(line.fd) ?? 0;
        seen.set(line.fd, index + 1);
        const target = findTarget(file, line, index, context);
        if (epoll.matches(target)) inner.push(...epoll.dump(target, context));
        return { fd: line.fd, file: target.id, events: line.events, data: line.data };
      });
    if (entries.length > mostEntries) {
      context.refuse(
        file,
        `it watches ${entries.length} files, more than the ${mostEntries} an image can say`,
      );
    }
    return [...inner, { name: 'epoll', meta: { id: file.id, flags: file.flags, entries } }];
  },

  restore(_name, meta, context) {
    const record = meta as Records['epoll'];
    const fd = context.builder.call('epoll_create1', SYS.epoll_create1, 0);
    setStatusFlags(fd, record.flags, context);
    context.keep(record.id, fd);
  },

  restoreInTable(_name, meta, table, context) {
    const record = meta as Records['epoll'];
    const left = entriesLeft(record, context);
    const [set] = table.numbers(record.id);
    for (const entry of inOrder(left)) {
      const numbers = table.numbers(entry.file);
      const target = numbers.includes(entry.fd) ? entry.fd : numbers[0];
      if (set === undefined || target === undefined) continue;
      addEntry(table.remote, set, target, entry, context);
      left.delete(entry);
    }
    return left.size === 0 ? 'done' : 'next-table';
  },

  arm(_name, meta, context) {
    const record = meta as Records['epoll'];
    for (const entry of inOrder(entriesLeft(record, context))) {
      addEntry(
        context.builder,
        context.descriptor(record.id),
        context.descriptor(entry.file),
        entry,
        context,
      );
    }
  },
};

type Entry = Records['epoll']['entries'][number];

function entriesLeft(record: Records['epoll'], context: RestoreContext): Set<Entry> {
  return context.once(`epoll ${record.id}`, () => new Set(record.entries));
}

/** What is disarmed goes first: disarming takes the events that are ready, and no others may be among them. */
function inOrder(entries: ReadonlySet<Entry>): Entry[] {
  return [...entries].sort((a, b) => Number(isDisarmed(b)) - Number(isDisarmed(a)));
}

/** A frame's meta ends at 64 KiB. */
const mostEntries = 1500;

/** A one-shot entry that has reported: nothing is left but its mode. */
function isDisarmed(entry: Entry): boolean {
  return (entry.events & ~modeBits) >>> 0 === 0 && (entry.events & EPOLLONESHOT) !== 0;
}

/** struct epoll_event, packed as on x86_64. */
function encodeEvent(events: number, data: bigint): Uint8Array {
  const bytes = new Uint8Array(12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, events, true);
  view.setBigUint64(4, data, true);
  return bytes;
}

function addEntry(
  remote: Remote,
  setNumber: number,
  target: number,
  entry: Entry,
  context: RestoreContext,
): void {
  underNumber(remote, entry.fd, target, setNumber, context, (set) => {
    remote.reset();
    const disarmed = isDisarmed(entry);
    const armed = disarmed ? entry.events | eitherWay : entry.events;
    const event = remote.put(encodeEvent(armed >>> 0, entry.data));
    const room = 16;
    const taken = remote.reserve(room * 12);
    const calls: Word[][] = [[SYS.epoll_ctl, set, EPOLL_CTL_ADD, entry.fd, event]];
    if (disarmed) {
      const mode = remote.put(encodeEvent(entry.events, entry.data));
      calls.push([SYS.epoll_wait, set, taken, room, 0]);
      calls.push([SYS.epoll_ctl, set, EPOLL_CTL_MOD, entry.fd, mode]);
    }
    const results = remote.run(calls.slice(0, 2));
    if (results[0]! < 0n) {
      context.refuse(
        `an epoll set can't watch descriptor ${entry.fd} again (${errnoName(Number(-results[0]!))})`,
        'the image does not fit together: load it again',
      );
    }
    if (!disarmed) return;
    const events = new DataView(remote.read(taken, room * 12).buffer);
    for (let at = 0; at < Number(results[1]); at++) {
      if (events.getBigUint64(at * 12 + 4, true) === entry.data) return;
    }
    // It was not ready, so it did not disarm: it can only be turned down to errors and hang-ups.
    remote.run(calls.slice(2));
  });
}

/** Hold `target` under a number of the task's while `body` runs; whatever has the number gives way for so long. */
function underNumber(
  remote: Remote,
  number: number,
  target: number,
  set: number,
  context: RestoreContext,
  body: (set: number) => void,
): void {
  if (number === target) {
    body(set);
    return;
  }
  const [aside, cloexec] = remote.run([
    [SYS.fcntl, number, F.dupfdCloexec, 0],
    [SYS.fcntl, number, F.getfd, 0],
  ]);
  const taken = aside! >= 0n;
  const [moved] = remote.run([[SYS.dup3, target, number, O.cloexec]]);
  if (moved! < 0n) {
    context.refuse(
      `descriptor number ${number} of an epoll set can't be used here (${errnoName(Number(-moved!))})`,
      'raise the limit of open files (ulimit -n)',
    );
  }
  try {
    body(taken && number === set ? Number(aside) : set);
  } finally {
    if (taken) {
      remote.run([
        [SYS.dup3, aside!, number, cloexec === 1n ? O.cloexec : 0],
        [SYS.close, aside!],
      ]);
    } else {
      remote.run([[SYS.close, number]]);
    }
  }
}
