/** upgrade-2.6 over whole streams. */
import t from 'tap';
import { filter } from '../../filters/upgrade-2.6.ts';
import { PodError } from '../../lib/stream/error.ts';
import type { Records } from '../../schemas/generated/types.ts';
import { makeStream, streamBytes } from '../tools/make-stream.ts';
import * as r from '../tools/records.ts';
import { byteByByte, randomCuts, runFilter } from '../tools/run-filter.ts';

type Options = { mergeThreads?: boolean; keep?: number };

/** Upgrade entries; the result must pass the reference checks. */
function upgrade(entries: readonly r.Entry[], options: Options = {}): ReturnType<typeof r.readImage> {
  const { output, error } = runFilter(filter, r.writeImage(entries), { ...options });
  if (error) throw error;
  r.checkReferences(output);
  return r.readImage(output);
}

function refusal(entries: readonly r.Entry[], options: Options = {}): PodError {
  const { output, error } = runFilter(filter, r.writeImage(entries), { ...options });
  if (!(error instanceof PodError)) throw error ?? new Error('it was not refused');
  // Whatever was written, it is no whole image.
  try {
    r.readImage(output);
  } catch (cause) {
    if (PodError.from(cause).failure === 'upstream') return error;
  }
  throw new Error('the output ends as if it were whole');
}

const task = (
  pid: number,
  thread: Partial<Records['thread']> = {},
  process: Partial<Records['process']> = {},
) => [r.process_('2.4', pid, process), r.thread('2.4', pid, pid, thread)];

/** A 2.4 image of tasks 2, 3, 4 that share everything. */
function group(
  tree: r.TreeEntry[],
  parts: { tasks?: r.Entry[]; handlers?: r.Entry; objects?: r.Entry[] } = {},
): r.Entry[] {
  return [
    r.hello('2.4'),
    r.pod(),
    r.tree(...tree),
    r.mm(1),
    r.areas(1),
    r.device(1),
    ...(parts.objects ?? []),
    r.fdTable(1, 1),
    r.fs(1),
    parts.handlers ?? r.handlers(1),
    ...(parts.tasks ?? [2, 3, 4].flatMap((pid) => task(pid))),
    r.pages(),
  ];
}

const cloneThreads = (...change: Partial<r.TreeEntry>[]): r.TreeEntry[] =>
  [2, 3, 4].map((pid, index) =>
    r.treeEntry(pid, { threadGroup: 2, exitSignal: pid === 2 ? 17 : 0, ...change[index] }),
  );
const linuxThreads = (...change: Partial<r.TreeEntry>[]): r.TreeEntry[] => [
  r.treeEntry(2, { ...change[0] }),
  r.treeEntry(3, { ppid: 2, exitSignal: 0, ...change[1] }),
  r.treeEntry(4, { ppid: 3, exitSignal: 33, ...change[2] }),
];

t.test('an image of 2.6 passes byte for byte but for its history', async (t) => {
  const rich = [
    ...r.simpleImage('2.6').slice(0, 5),
    { kind: 231, flags: 0, meta: { any: 'thing' }, data: new Uint8Array(10) },
    { kind: 'epoll', meta: { id: 9, flags: 2, entries: [] } } as r.Entry,
    ...r.simpleImage('2.6').slice(5),
  ];
  for (const input of [r.writeImage(rich), streamBytes({ size: 3 << 20 })]) {
    for (const options of [{}, { mergeThreads: true }]) {
      const { output, error } = runFilter(filter, input, options);
      t.equal(error, undefined);
      const [before, after] = [r.readImage(input), r.readImage(output)];
      const [helloBefore, helloAfter] = [before.shift()!, after.shift()!];
      t.same(helloAfter.meta, {
        ...helloBefore.meta,
        history: [
          { filter: 'upgrade-2.6', version: '1', ...('mergeThreads' in options ? { params: options } : {}) },
        ],
      });
      t.ok(
        Buffer.concat(before.map((each) => each.raw)).equals(Buffer.concat(after.map((each) => each.raw))),
      );
    }
  }
});

t.test('an image of 2.4 becomes one of 2.6', async (t) => {
  const pending = [r.siginfo(10, 0, 7), r.siginfo(11, 1)];
  const odd = { kind: 230, flags: 0, meta: { grease: 1n }, data: new Uint8Array(3) };
  const image = [
    r.hello('2.4', { requires: ['sse2'], history: [{ filter: 'relocate', version: '1' }] }),
    odd,
    r.pod(),
    r.tree(r.treeEntry(2, { threadGroup: 2 })),
    r.mm(1),
    r.areas(1),
    r.device(1, { rdev: 0x8903n, path: '/dev/pts/259' }),
    r.fdTable(1, 1),
    r.fs(1),
    r.handlers(1),
    ...task(2, { pending, itimerReal: { valueJiffies: 100n, intervalJiffies: 0n }, extra: 'kept' } as object),
    r.pages(),
    odd,
  ];
  const after = upgrade(image);
  const hello = r.metaOf(after, 'hello');
  t.equal(hello.semantics, '2.6');
  t.same(hello.requires, ['sse2']);
  t.same(
    hello.history.map((line) => line.filter),
    ['relocate', 'upgrade-2.6'],
  );
  t.notOk('losses' in hello);
  t.notOk('threadGroup' in r.metaOf(after, 'tree').processes[0]!);
  t.ok(r.metaOf(after, 'mm').vdso);
  t.same(
    r.metasOf(after, 'areas').flatMap((record) => record.areas.map((area) => area.kind)),
    ['file', 'anonymous', 'vvar', 'vdso', 'anonymous'],
  );
  t.equal(r.metaOf(after, 'device').rdev, 0x108803n);
  const process = r.metaOf(after, 'process');
  t.equal(process.limits.length, 16);
  t.equal(process.personality, 0x240000);
  t.same(process.pending, [pending[0]]);
  t.same(process.itimers, [{ which: 0, valueNs: 1_000_000_000n, intervalNs: 0n }]);
  const thread = r.metaOf(after, 'thread') as Records['thread'] & { extra?: string };
  t.same(thread.pending, [pending[1]]);
  t.notOk('itimerReal' in thread || 'counter' in thread.scheduling);
  t.equal(thread.extra, 'kept', 'unknown keys pass');
  t.same(
    after.find((each) => each.kind === 'thread')!.data,
    image.find((each) => each.kind === 'thread')!.data,
  );
  t.equal(after.filter((each) => each.kind === 230).length, 2, 'unknown frames pass');
  t.same(after.at(-2)!.raw.subarray(16), r.readImage(r.writeImage(image)).at(-2)!.raw.subarray(16));
});

t.test('upgrading twice is the same as once but for the history', async (t) => {
  const once = runFilter(filter, r.writeImage(r.simpleImage('2.4'))).output;
  const twice = runFilter(filter, once).output;
  t.same(
    r
      .readImage(twice)
      .slice(1)
      .map((each) => each.raw),
    r
      .readImage(once)
      .slice(1)
      .map((each) => each.raw),
  );
});

t.test('any chunking gives the same bytes', async (t) => {
  const images: [r.Entry[], Options][] = [
    [r.simpleImage('2.4'), {}],
    [r.simpleImage('2.6'), {}],
    [group(cloneThreads()), {}],
    [group(linuxThreads()), { mergeThreads: true }],
  ];
  for (const [image, options] of images) {
    const input = r.writeImage(image);
    const whole = runFilter(filter, input, { ...options }).output;
    t.ok(runFilter(filter, input, { ...options }, byteByByte).output.equals(whole));
    for (let seed = 1; seed < 6; seed++)
      t.ok(runFilter(filter, input, { ...options }, randomCuts(seed, 997)).output.equals(whole));
  }
});

t.test('CLONE_THREAD groups become one process', async (t) => {
  const child = r.treeEntry(7, { ppid: 4 });
  const image = group([...cloneThreads(), child], {
    objects: [
      { kind: 'pipe', meta: { id: 5, capacity: 4096 } },
      { kind: 'pipe-end', meta: { id: 6, pipe: 5, flags: 0, owner: { type: 1, pid: 3, signal: 0 } } },
      { kind: 'pipe-end', meta: { id: 7, pipe: 5, flags: 1, owner: { type: 1, pid: 2, signal: 0 } } },
    ],
    tasks: [
      ...task(3, {
        pending: [r.siginfo(10, 0, 1, 3)],
        itimerReal: { valueJiffies: 5n, intervalJiffies: 5n },
      }),
      ...task(7),
      ...task(2, { pending: [r.siginfo(12, 0, 1, 2)] }),
      ...task(4),
    ],
  });
  const after = upgrade(image);
  t.same(r.metaOf(after, 'hello').requires, ['thread-groups']);
  t.same(
    r.metaOf(after, 'tree').processes.map(({ pid, ppid }) => [pid, ppid]),
    [
      [2, 0],
      [7, 2],
    ],
    'children of threads are children of the process',
  );
  const processes = r.metasOf(after, 'process');
  t.same(processes.map((process) => process.pid).sort(), [2, 7]);
  t.same(
    r
      .metasOf(after, 'thread')
      .filter((thread) => thread.pid === 2)
      .map((thread) => [thread.tid, thread.comm]),
    [
      [2, 'task-2'],
      [3, 'task-3'],
      [4, 'task-4'],
    ],
  );
  const merged = processes.find((process) => process.pid === 2)!;
  t.same(merged.itimers, [{ which: 0, valueNs: 50_000_000n, intervalNs: 50_000_000n }]);
  t.same(merged.pending, [r.siginfo(12, 0, 1, 2)]);
  t.same(r.metasOf(after, 'thread').find((thread) => thread.tid === 3)!.pending, [r.siginfo(10, 0, 1, 3)]);
  t.same(
    r.metasOf(after, 'pipe-end').map((end) => end.owner!.type),
    [0, 1],
    'a file that signals a thread goes on signalling that thread',
  );
  t.same(
    after
      .filter((each) => each.kind === 'thread' && (each.meta as { pid: number }).pid === 2)
      .map((each) => each.data![0]),
    [2, 3, 4],
    'each thread has its own extended registers',
  );
});

t.test('a dead thread leaves a sentence, not a zombie', async (t) => {
  const after = upgrade(
    group(cloneThreads({}, {}, { state: 'zombie', status: 256 }), { tasks: [...task(2), ...task(3)] }),
  );
  t.same(
    r.metaOf(after, 'tree').processes.map((entry) => entry.pid),
    [2],
  );
  t.match(r.metaOf(after, 'hello').losses, [/thread 4 of process 2 had ended with status 256/]);
  const allDead = upgrade([
    ...group([...cloneThreads(...[0, 1, 2].map(() => ({ state: 'zombie' as const }))), r.treeEntry(8)], {
      tasks: task(8),
    }),
  ]);
  t.same(
    r.metaOf(allDead, 'tree').processes.map(({ pid, state }) => [pid, state]),
    [
      [2, 'zombie'],
      [8, 'alive'],
    ],
  );
});

t.test('a leader that stands behind the children of its threads', async (t) => {
  const tree = [
    r.treeEntry(9),
    r.treeEntry(3, { ppid: 9, threadGroup: 2 }),
    r.treeEntry(7, { ppid: 3 }),
    r.treeEntry(2, { ppid: 9, threadGroup: 2, pgid: 2, sid: 2 }),
  ];
  const after = upgrade(group(tree, { tasks: [9, 3, 7, 2].flatMap((pid) => task(pid)) }));
  t.same(
    r.metaOf(after, 'tree').processes.map((entry) => entry.pid),
    [9, 2, 7],
  );
});

t.test('big trees come in several frames', async (t) => {
  const pids = Array.from({ length: 700 }, (_each, index) => index + 5);
  const frames = [0, 400].map((at) =>
    r.tree(...(at === 0 ? cloneThreads() : []), ...pids.slice(at, at + 400).map((pid) => r.treeEntry(pid))),
  );
  const image = group([], { tasks: [2, 3, 4, ...pids].flatMap((pid) => task(pid)) });
  image.splice(2, 1, ...frames);
  const after = upgrade(image);
  t.same(
    r.metasOf(after, 'tree').flatMap((record) => record.processes.map((entry) => entry.pid)),
    [2, ...pids],
  );
});

t.test('LinuxThreads stay processes unless asked', async (t) => {
  const after = upgrade(group(linuxThreads()));
  t.same(
    r.metasOf(after, 'process').map((process) => process.pid),
    [2, 3, 4],
  );
  t.same(
    r.metaOf(after, 'tree').processes.map((entry) => entry.exitSignal),
    [17, 0, 33],
  );
  t.same(r.metaOf(after, 'hello').requires, []);
});

t.test('--merge-threads folds LinuxThreads into one process', async (t) => {
  const after = upgrade(
    group([...linuxThreads(), r.treeEntry(7, { ppid: 4 })], {
      tasks: [2, 3, 4, 7].flatMap((pid) =>
        task(pid, {}, pid === 7 ? { files: 1, mm: 1, fs: 1, handlers: 2 } : {}),
      ),
      handlers: r.handlers(1),
      objects: [r.handlers(2)],
    }),
    {
      mergeThreads: true,
    },
  );
  t.same(
    r.metaOf(after, 'tree').processes.map(({ pid, ppid, exitSignal }) => [pid, ppid, exitSignal]),
    [
      [2, 0, 17],
      [7, 2, 17],
    ],
  );
  t.same(
    r.metasOf(after, 'thread').map(({ pid, tid }) => [pid, tid]),
    [
      [2, 2],
      [2, 3],
      [2, 4],
      [7, 7],
    ],
  );
  t.same(r.metaOf(after, 'hello').requires, ['thread-groups']);
});

t.test('--merge-threads leaves others alone', async (t) => {
  const noManager = group([r.treeEntry(2), r.treeEntry(3, { ppid: 2 }), r.treeEntry(4, { ppid: 2 })]);
  t.equal(r.metasOf(upgrade(noManager, { mergeThreads: true }), 'process').length, 3, 'no manager');
  const separate = group(linuxThreads(), {
    objects: [r.fs(2)],
    tasks: [2, 3, 4].flatMap((pid) => task(pid, {}, { fs: pid === 2 ? 1 : 2 })),
  });
  t.equal(
    r.metasOf(upgrade(separate, { mergeThreads: true }), 'thread').filter((each) => each.tid === 2).length,
    1,
  );
});

t.test('what cannot be turned is named, exit 32', async (t) => {
  const merge = { mergeThreads: true };
  const cases: [string, r.Entry[], RegExp, Options?][] = [
    [
      'a group that shares no memory',
      group(cloneThreads(), {
        objects: [r.fs(2)],
        tasks: [...task(2), ...task(3, {}, { fs: 2 }), ...task(4)],
      }),
      /thread 3 of process 2: it does not share fs/,
    ],
    [
      'a group half stopped',
      group(cloneThreads({}, { state: 'stopped' })),
      /thread 3 of process 2: it is stopped/,
    ],
    [
      'a dead leader',
      group(cloneThreads({ state: 'zombie' }), { tasks: [...task(3), ...task(4)] }),
      /process 2 .*threads 3, 4/,
    ],
    [
      'a group in two sessions',
      group(cloneThreads({}, { pgid: 3, sid: 3 })),
      /thread 3 of process 2: it is in another/,
    ],
    [
      'personalities',
      group(cloneThreads(), { tasks: [...task(2), ...task(3, {}, { personality: 8 }), ...task(4)] }),
      /personality/,
    ],
    [
      'a process group named after a thread',
      group([...cloneThreads(), r.treeEntry(7, { pgid: 3, sid: 2 })], {
        tasks: [2, 3, 4, 7].flatMap((pid) => task(pid)),
      }),
      /process 7: its process group 3/,
    ],
    [
      'two real timers',
      group(cloneThreads(), {
        tasks: [2, 3, 4].flatMap((pid) =>
          task(pid, { itimerReal: { valueJiffies: 1n, intervalJiffies: 0n } }),
        ),
      }),
      /process 2: its threads 2, 3, 4/,
    ],
    [
      'a handler for signal 32',
      group(linuxThreads(), { handlers: r.handlers(1, { signal: 32 }) }),
      /process 2: .*handler for signal 32/,
      merge,
    ],
    [
      'a pending 33',
      group(linuxThreads(), {
        tasks: [...task(2), ...task(3), ...task(4, { pending: [r.siginfo(33, 0, 3)] })],
      }),
      /signal 33 is pending for task 4/,
      merge,
    ],
    [
      'a dead thread',
      group([...linuxThreads(), r.treeEntry(5, { ppid: 3, state: 'zombie', exitSignal: 33 })]),
      /thread 5 has ended and manager 3/,
      merge,
    ],
    [
      'a wait for a thread',
      group(linuxThreads(), {
        tasks: [...task(2), ...task(3, { systemCall: { number: 61, restart: 'again' } }), ...task(4)],
      }),
      /task 3 waits/,
      merge,
    ],
    [
      'a parent death signal',
      group(linuxThreads(), { tasks: [...task(2), ...task(3), ...task(4, { parentDeathSignal: 9 })] }),
      /task 4 wants signal 9/,
      merge,
    ],
  ];
  for (const [name, image, message, options] of cases) {
    const error = refusal(image, options);
    t.equal(error.exitCode, 32, `${name}: ${error.message}`);
    t.match(error.message, message, name);
    t.notMatch(error.message, /\n|\.$/, name);
  }
  t.equal(
    r.metasOf(
      upgrade(group(linuxThreads(), { handlers: r.handlers(1, { signal: 32, handler: 1n }) }), merge),
      'process',
    ).length,
    1,
    'an ignored signal is no handler',
  );
});

t.test('what 2.4 cannot have had is damage', async (t) => {
  const image = (extra: r.Entry) => {
    const list = r.simpleImage('2.4');
    list.splice(
      list.findIndex((each) => each.kind === 'fd-table'),
      0,
      extra,
    );
    return list;
  };
  const replace = (kind: string, more: object) =>
    r
      .simpleImage('2.4')
      .map((each) => (each.kind === kind ? { ...each, meta: { ...each.meta, ...more } } : each));
  const cases: [r.Entry[], RegExp][] = [
    [image({ kind: 'epoll', meta: { id: 9, flags: 0, entries: [] } }), /epoll 9/],
    [image({ kind: 'eventfd', meta: { id: 9, flags: 0, count: 0n, semaphore: false } }), /eventfd 9/],
    [
      replace('thread', { rseq: { address: 1n, length: 32, signature: 1, flags: 0 } }),
      /thread 2 has a restartable/,
    ],
    [replace('thread', { tid: 3 }), /the thread 3/],
    [replace('process', { limits: r.limits(16) }), /16 resource limits/],
    [replace('process', { pending: [r.siginfo(2)] }), /pending for the process/],
    [
      replace('mm', { vdso: { start: 0x20000n, size: 0x1000n, vvarStart: 0x30000n, vvarSize: 0x1000n } }),
      /a vdso/,
    ],
    [replace('device', { rdev: 0x10000n }), /device 1 has the number/],
    [[...r.simpleImage('2.4'), r.mm(2)], /mm comes after/],
    [r.simpleImage('2.4').filter((each) => each.kind !== 'thread'), /process 2 is not followed/],
    [group(cloneThreads(), { tasks: [...task(2), ...task(3)] }), /process 2 .*group came|not all threads/],
    [group([r.treeEntry(2), r.treeEntry(2)]), /not alive|twice|followed/],
    [
      group([
        r.treeEntry(2, { ppid: 3, threadGroup: 2 }),
        r.treeEntry(3, { ppid: 2, threadGroup: 2 }),
        r.treeEntry(4),
      ]),
      /own ancestor/,
    ],
  ];
  for (const [entries, message] of cases) {
    const error = refusal(entries);
    t.equal(error.exitCode, 6, error.message);
    t.match(error.message, message);
  }
});

t.test('what is read ahead is bounded', async (t) => {
  const shm = Array.from({ length: 600 }, (_each, id) => ({
    kind: 'shm' as const,
    meta: { id, size: 1n, origin: 'anonymous', name: 'x'.repeat(200), pad: new Uint8Array(60_000) },
  }));
  const image = r.simpleImage('2.4');
  image.splice(3, 0, ...shm);
  const error = refusal(image, { keep: 1 });
  t.equal(error.exitCode, 9);
  t.match(error.hint, /--keep/);
  upgrade(image);
});

t.test('memory stays flat over a long image', async (t) => {
  let bytes = 0;
  const output = { write: (chunk: Uint8Array) => void (bytes += chunk.length), end() {}, abort() {} };
  const stage = filter.forward({ mergeThreads: true, keep: undefined }, output);
  const start = process.memoryUsage().rss;
  makeStream(stage, { semantics: '2.4', size: 300 << 20 });
  t.ok(bytes > 300 << 20);
  const grown = process.memoryUsage().rss - start;
  t.ok(grown < 100 << 20, `${grown >> 20} MiB more`);
});
