/**
 * Frame kinds. Numbers are for ever. Below 16: the stream itself. 16–47 memory and objects. 48–63 processes.
 * 224–239: grease, never given a meaning, never critical.
 */
export const kinds = {
  hello: 1,
  layer: 2,
  data: 3,
  end: 4,
  error: 5,
  pod: 16,
  tree: 17,
  shm: 18,
  mm: 19,
  areas: 20,
  pages: 21,
  content: 22,
  'sysv-semaphores': 23,
  'sysv-queue': 24,
  seccomp: 26,
  place: 29,
  regular: 32,
  directory: 33,
  device: 34,
  pipe: 35,
  'pipe-end': 36,
  eventfd: 37,
  epoll: 38,
  timerfd: 39,
  signalfd: 40,
  'unix-socket': 41,
  terminal: 42,
  inotify: 43,
  pty: 44,
  'inet-socket': 45,
  'netlink-socket': 46,
  pidfd: 47,
  'fd-table': 48,
  fs: 49,
  handlers: 50,
  process: 51,
  thread: 52,
  'file-locks': 53,
} as const;

export type KindName = keyof typeof kinds;

export const greaseKinds = { first: 224, last: 239 } as const;

const names = new Map<number, KindName>(
  Object.entries(kinds).map(([name, kind]) => [kind, name as KindName]),
);

/** Name of a kind, or undefined when this version does not know it. */
export function kindName(kind: number): KindName | undefined {
  return names.get(kind);
}
