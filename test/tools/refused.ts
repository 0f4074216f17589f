/** What the engine refuses to dump by now, by name (exit 11), of what the programs of test/programs hold. */

/** Whoever teaches it one takes the program out of here. */
const refused = new Set([
  'children-elsewhere',
  'own-segments',
  'tcp-signed',
  'dispatched',
  'hidden-lock-which',
  'directory-signals',
  'kernel-aio',
  'memory-secret',
  'netlink-generic',
  'posix-queue',
  'udp-more',
  'unix-backlog-data',
]);

/** What only root can dump: an ordinary user's dump is refused. */
const rootsToDump = new Set(['seccomp-own']);

export const isRefused = (program: string, as: 'root' | 'nobody' = 'root'): boolean =>
  refused.has(program) || (as === 'nobody' && rootsToDump.has(program));

/** A dump leaves these in a state in which the next one must refuse, until the program has gone further. */
export const once: ReadonlySet<string> = new Set(['unix-empty-messages', 'unix-peeked']);
