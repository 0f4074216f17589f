/**
 * What the records of an image mean together: the names of their parts, the id spaces, the order of sections
 * and the bounds of a sane image. Says what is right; check-references.ts finds what is wrong.
 */
import type { KindName } from '../stream/kind.ts';
import type { Records } from './record.ts';

export type Semantics = Records['hello']['semantics'];
/** One process of the tree. */
export type TreeEntry = Records['tree']['processes'][number];
/** One memory area. */
export type Area = Records['areas']['areas'][number];
/** One descriptor of a table. */
export type Descriptor = Records['fd-table']['entries'][number];
/** One interval timer of a process. */
export type IntervalTimer = NonNullable<Records['process']['itimers']>[number];
/** One resource limit. */
export type Limit = Records['process']['limits'][number];

/** Kinds that share the open-file id space: an FD-TABLE entry, CONTENT, an epoll entry may name any of them. */
export const openFileKinds = [
  'regular',
  'directory',
  'device',
  'pipe',
  'pipe-end',
  'eventfd',
  'epoll',
  'timerfd',
  'signalfd',
  'unix-socket',
  'terminal',
  'inotify',
  'pty',
  'inet-socket',
  'pidfd',
  'netlink-socket',
] as const satisfies readonly KindName[];

export type OpenFileKind = (typeof openFileKinds)[number];

/** Sections of an image, in their order in the stream. */
export const sections = ['hello', 'pod', 'tree', 'memory', 'objects', 'tasks', 'pages'] as const;
export type Section = (typeof sections)[number];

const sectionByKind: Partial<Record<KindName, Section>> = {
  hello: 'hello',
  pod: 'pod',
  tree: 'tree',
  place: 'memory',
  shm: 'memory',
  mm: 'memory',
  areas: 'memory',
  content: 'objects',
  'fd-table': 'objects',
  'file-locks': 'objects',
  seccomp: 'objects',
  'sysv-semaphores': 'objects',
  'sysv-queue': 'objects',
  fs: 'objects',
  handlers: 'objects',
  process: 'tasks',
  thread: 'tasks',
  pages: 'pages',
  ...Object.fromEntries(openFileKinds.map((kind) => [kind, 'objects' as const])),
};

/** Section a kind belongs to; undefined for END, ERROR and kinds this version does not know. */
export function sectionOf(kind: KindName | undefined): Section | undefined {
  return kind === undefined ? undefined : sectionByKind[kind];
}

/**
 * Most of each that a sane image has; more is refused (exit 9), so that a reader's memory stays bounded. Well
 * above what one machine runs: pid_max of a small machine is 32768, nr_open 2^20, max_map_count 65530 a process.
 */
export const bounds = {
  processes: 32768,
  threads: 65536,
  addressSpaces: 32768,
  areas: 1 << 20,
  sharedMemory: 65536,
  openFiles: 1 << 19,
  places: 4096,
  /** Names in all places. */
  placedFiles: 1 << 19,
  tables: 32768,
  locks: 1 << 20,
  filters: 16384,
  /** Sets, and queues: kernel.sem and kernel.msgmni at their default. */
  sysvObjects: 32768,
  /** Highest descriptor number. */
  descriptor: 1 << 24,
  /** Bytes of one shared memory object or unlinked file. */
  objectSize: 1n << 44n,
  /** Pseudo-terminals of one devpts: kernel.pty.max at its default. */
  ptys: 4096,
  /** Bytes queued in one socket. */
  socketQueue: 1 << 28,
} as const;

/** Address behind the last one user memory can have. */
export function addressCeiling(arch: string): bigint {
  return arch === 'i386' ? 1n << 32n : 1n << 47n;
}

/** Resource limits a PROCESS has, getrlimit(2). */
export function limitCount(semantics: Semantics): number {
  return semantics === '2.4' ? 11 : 16;
}

/** What is wrong with a path of the image; undefined when nothing is. */
export function pathFault(path: string): string | undefined {
  if (!path.startsWith('/')) return 'is not absolute';
  if (path.includes('\0')) return 'has a NUL in it';
  if (/(^|\/)\.\.(\/|$)/.test(path)) return "has a '..' in it";
  return undefined;
}

/** A path, name or number from a stream for a message: quoted, one line, short. */
export function quote(value: unknown): string {
  const text = JSON.stringify(String(value)).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?');
  return text.length > 200 ? `${text.slice(0, 197)}…"` : text;
}
