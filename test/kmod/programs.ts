/** What the module handles of what the programs of test/programs/ hold; all others it refuses by name. */
import { listPrograms } from '../tools/programs.ts';

/** Whoever teaches the module one puts the program here. */
export const handled: readonly string[] = [
  'pipes',
  'blocked-times',
  'blocked-calls',
  'children-unwaited',
  'churn',
  'churn-spawn',
  'clocks',
  'compute',
  'credentials',
  'devices',
  'directories',
  'epolls',
  'eventfds',
  'inotifies',
  'inotify-elsewhere',
  'linuxthreads',
  'memory-attributes',
  'memory-droppable',
  'memory-edges',
  'memory-files',
  'memory-private',
  'memory-shared',
  'process-attributes',
  'registers',
  'regular-files',
  'rseq-own',
  'rseq-robust',
  'signal-handlers',
  'signal-pending',
  'signalfds',
  'syscall-storm',
  'timerfds',
  'timers-interval',
  'timers-posix',
  'unix-empty-head',
  'unix-empty-messages',
  'unix-pairs',
  'vdso',
  'wait-children',
  'zombies',
];

/** Of these, those that are also tried in a pod, whose console goes along. */
export const inPods: readonly string[] = ['pipes', 'signalfds'];

/** Those of each kind of state that are tried when time is short. */
export const fewHandled: readonly string[] = ['pipes', 'memory-shared'];
export const fewRefused: readonly string[] = ['memfds', 'pidfds', 'unix-rights'];

/**
 * Restarted by the module, dumped by either engine: what only the module gives back, what is counted from it (limits and
 * timers of processor time), and of each kind of task some.
 */
export const restarted: readonly string[] = [
  'processor-times',
  'timers-posix',
  'timers-interval',
  'process-attributes',
  'linuxthreads',
  'pipes',
  'registers',
  'zombies',
];
/** By the module alone, of what it does not dump. */
export const restartedOfUser: readonly string[] = ['memory-forked', 'stopped', 'ptys', 'blocked-calls'];
export const fewRestarted: readonly string[] = ['processor-times'];

/** Neither, by program, and why. It is told at the end of each whole run, and counts as nothing. */
export const limits: Readonly<Record<string, string>> = {
  sessions: 'it wants its parent to be the same, and that of a plain session is outside',
  'memory-forked': 'pages that fork shares are sent for each process, and are shared no more (docs/kmod.md)',
};

/** Not tried is what only makes sense in a pod (`Via: pod`). */
export const refused = (): string[] =>
  listPrograms()
    .filter(
      ({ name, podOnly, needsModule }) =>
        !handled.includes(name) && !(name in limits) && !podOnly && !needsModule,
    )
    .map(({ name }) => name);

/**
 * Programs of which the user engine's records are compared with the module's. They never rest, so it is said which
 * kinds of record hold still, but for what is of the moment.
 */
export const compared: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  epolls: { epoll: [], 'unix-socket': [] },
  inotifies: { inotify: [] },
  signalfds: { signalfd: [] },
  timerfds: { timerfd: ['valueNs', 'expiryNs', 'ticks'] },
  'unix-pairs': { 'unix-socket': [] },
};

/** What the other parts of the harness work with. */
export const alwaysNeeded: readonly string[] = [
  'blocked-times',
  'linuxthreads',
  'memory-private',
  'memory-shared',
  'pipes',
  'registers',
  'signal-pending',
  ...Object.keys(compared),
];
