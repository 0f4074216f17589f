/**
 * Map filters and the reference checks on images in which single values were replaced by others of a stranger's
 * choice: what comes of it is an image or a PodError of the right sort, never anything else.
 */
import t from 'tap';
import { filter as relocate } from '../../filters/relocate.ts';
import { filter as upgrade } from '../../filters/upgrade-2.6.ts';
import { PodError } from '../../lib/stream/error.ts';
import * as r from '../tools/records.ts';
import { runFilter } from '../tools/run-filter.ts';

const choices: unknown[] = [
  0,
  1,
  2,
  3,
  9,
  255,
  -1,
  2 ** 31 - 1,
  4294967295,
  0n,
  1n,
  4096n,
  r.heapAddress,
  r.stackAddress,
  (1n << 47n) - 4096n,
  (1n << 63n) - 1n,
  (1n << 64n) - 1n,
  '',
  '/',
  '/x/../y',
  'relative',
  '/nul\0byte',
  'x'.repeat(5000),
  true,
  null,
  [],
  {},
  new Uint8Array(0),
  new Uint8Array(128),
  new Uint8Array(216).fill(255),
  'i386',
  '2.4',
  '2.6',
  'zombie',
  'stopped',
  'vdso',
  'shm',
];

/** xorshift32. */
function dice(seed: number): (sides: number) => number {
  let state = seed;
  return (sides) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % sides;
  };
}

/** The value with one leaf, element or key replaced, removed or doubled. */
function spoil(value: unknown, roll: (sides: number) => number): unknown {
  if (roll(4) > 0 && Array.isArray(value) && value.length > 0) {
    const at = roll(value.length);
    if (roll(4) === 0) return [...value, value[at]];
    return value.map((each, index) => (index === at ? spoil(each, roll) : each));
  }
  if (roll(8) > 0 && value !== null && typeof value === 'object' && !(value instanceof Uint8Array)) {
    const keys = Object.keys(value);
    const key = keys[roll(keys.length)];
    if (key === undefined) return value;
    if (roll(6) === 0) return Object.fromEntries(Object.entries(value).filter(([name]) => name !== key));
    return { ...value, [key]: spoil((value as Record<string, unknown>)[key], roll) };
  }
  return choices[roll(choices.length)];
}

const task = (pid: number, thread: object = {}, process: object = {}) => [
  r.process_('2.4', pid, process),
  r.thread('2.4', pid, pid, thread),
];

const image = (semantics: '2.4' | '2.6', tree: r.TreeEntry[]): r.Entry[] => [
  r.hello(semantics),
  r.pod(),
  r.tree(...tree),
  r.mm(1),
  r.areas(1),
  r.device(1, { rdev: 0x8903n }),
  {
    kind: 'regular',
    meta: { id: 2, path: '/x/data', flags: 2, position: 0n, owner: { type: 1, pid: 3, signal: 0 } },
  },
  { kind: 'pipe', meta: { id: 3, capacity: 4096 } },
  { kind: 'pipe-end', meta: { id: 4, pipe: 3, flags: 1, owner: { type: 1, pid: 4, signal: 0 } } },
  { kind: 'content', meta: { file: 3 }, data: new Uint8Array(10) },
  {
    kind: 'unix-socket',
    meta: { id: 5, flags: 2, type: 'stream', state: 'listening', address: Buffer.from('/x/sock\0') },
  },
  r.fdTable(1, 1, 2, 4, 5),
  r.fs(1),
  r.handlers(1, { signal: 10 }),
  ...[2, 3, 4].flatMap((pid) =>
    semantics === '2.4'
      ? task(pid, {
          pending: [r.siginfo(10, 0, 9, pid), r.siginfo(11, 1)],
          ...(pid === 3 ? { itimerReal: { valueJiffies: 5n, intervalJiffies: 1n } } : {}),
        })
      : [r.process_('2.6', pid), r.thread('2.6', pid, pid)],
  ),
  r.pages(),
];

const groups: [string, r.Entry[], object][] = [
  [
    'a CLONE_THREAD group',
    image(
      '2.4',
      [2, 3, 4].map((pid) => r.treeEntry(pid, { threadGroup: 2 })),
    ),
    {},
  ],
  [
    'LinuxThreads',
    image('2.4', [r.treeEntry(2), r.treeEntry(3, { ppid: 2 }), r.treeEntry(4, { ppid: 3 })]),
    { mergeThreads: true },
  ],
  [
    'processes',
    image(
      '2.4',
      [2, 3, 4].map((pid) => r.treeEntry(pid)),
    ),
    {},
  ],
  [
    '2.6',
    image(
      '2.6',
      [2, 3, 4].map((pid) => r.treeEntry(pid)),
    ),
    {},
  ],
];

const allowed = new Set([6, 9, 32]);

/** The error's exit status; 0 for none, and a throw for one that is no PodError. */
function statusOf(error: unknown): number {
  if (error === undefined) return 0;
  if (!(error instanceof PodError)) throw error;
  return error.exitCode;
}

function check(bytes: Uint8Array): number {
  try {
    r.checkReferences(bytes);
    return 0;
  } catch (cause) {
    return statusOf(cause);
  }
}

t.setTimeout(120_000);
for (const [name, entries, options] of groups) {
  t.test(name, async (t) => {
    const roll = dice(0x9e3779b9 + name.length);
    const seen = new Map<number, number>();
    t.equal(check(r.writeImage(entries)), 0);
    t.equal(runFilter(upgrade, r.writeImage(entries), options as never).error, undefined);
    for (let turn = 0; turn < 400; turn++) {
      const at = roll(entries.length);
      const spoilt = entries.map((each, index) =>
        index === at ? { ...each, meta: spoil(each.meta, roll) as Record<string, unknown> } : each,
      );
      const meta = spoilt[at]!.meta;
      if (meta === null || typeof meta !== 'object' || Array.isArray(meta) || ArrayBuffer.isView(meta))
        continue;
      if (roll(8) === 0) spoilt.splice(roll(spoilt.length - 1) + 1, 1);
      const input = r.writeImage(spoilt);
      const statuses = [
        statusOf(runFilter(upgrade, input, options as never).error),
        statusOf(runFilter(relocate, input, { rules: ['/x=/y', '/usr=/opt'] }).error),
        check(input),
      ];
      for (const status of statuses) {
        seen.set(status, (seen.get(status) ?? 0) + 1);
        if (status !== 0 && !allowed.has(status)) t.fail(`exit ${status} in turn ${turn}`);
      }
    }
    t.ok(seen.get(0)! > 20 && seen.get(6)! > 20, `exits ${JSON.stringify([...seen])}`);
  });
}
