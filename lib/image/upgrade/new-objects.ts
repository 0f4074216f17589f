/**
 * Row "new objects": what came after 2.4. A 2.4 image has none of them, so nothing is turned here; an image that
 * has one can never go back, and this says which it is. The names are those of HELLO.requires.
 */
import type { KindName } from '../../stream/kind.ts';
import type { Records } from '../record.ts';

export interface NewObject {
  /** Kernel feature, as in HELLO.requires. */
  feature: string;
  /** The object, for a message: `epoll 7`, `thread 12`. */
  object: string;
  /** What of it is new: `an epoll instance`. */
  what: string;
}

const wholeKinds: Partial<Record<KindName, [feature: string, what: string]>> = {
  eventfd: ['eventfd', 'an event counter'],
  epoll: ['epoll', 'an epoll instance'],
  timerfd: ['timerfd', 'a timer descriptor'],
  signalfd: ['signalfd', 'a signal descriptor'],
  inotify: ['inotify', 'an inotify instance'],
  pidfd: ['pidfd', 'a descriptor of a process'],
};

/** Kinds that have to be looked at. */
export const kindsWithNews = [
  'eventfd',
  'epoll',
  'timerfd',
  'signalfd',
  'inotify',
  'pidfd',
  'shm',
  'process',
  'thread',
] as const satisfies readonly KindName[];

type KindWithNews = (typeof kindsWithNews)[number];

/** What a record has that 2.4 lacked; undefined when nothing. */
export function findNewObject<Kind extends KindWithNews>(
  kind: Kind,
  record: Records[Kind],
): NewObject | undefined {
  const whole = wholeKinds[kind];
  if (whole) {
    const [feature, what] = whole;
    return { feature, object: `${kind} ${(record as Records['epoll']).id}`, what };
  }
  if (kind === 'shm') return inMemory(record as Records['shm']);
  return kind === 'process' ? inProcess(record as Records['process']) : inThread(record as Records['thread']);
}

function inMemory({ id, origin }: Records['shm']): NewObject | undefined {
  return origin === 'memfd' ? { feature: 'memfd', object: `shm ${id}`, what: 'a memory file' } : undefined;
}

function inProcess(process: Records['process']): NewObject | undefined {
  const object = `process ${process.pid}`;
  if ((process.timers?.length ?? 0) > 0) return { feature: 'posix-timers', object, what: 'a POSIX timer' };
  if (process.childSubreaper) return { feature: 'subreaper', object, what: 'the role of a child subreaper' };
  return undefined;
}

function inThread(thread: Records['thread']): NewObject | undefined {
  const object = `thread ${thread.tid}`;
  if (thread.robustList) return { feature: 'futex-lists', object, what: 'a robust futex list' };
  if (thread.rseq) return { feature: 'rseq', object, what: 'a restartable sequence' };
  if (thread.clearChildTid) return { feature: 'futex', object, what: 'an address to clear at its end' };
  return undefined;
}
