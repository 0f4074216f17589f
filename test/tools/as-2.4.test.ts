/** as-2.4 itself, and the round trip 2.6 → 2.4 → 2.6 on synthetic images. */
import t from 'tap';
import { filter } from '../../filters/upgrade-2.6.ts';
import { PodError } from '../../lib/stream/error.ts';
import type { Sink } from '../../lib/stream/sink.ts';
import type { Records } from '../../schemas/generated/types.ts';
import { as24 } from './as-2.4.ts';
import * as r from './records.ts';
import { runFilter } from './run-filter.ts';

function goBack(entries: readonly r.Entry[]): Buffer {
  const chunks: Buffer[] = [];
  const sink: Sink = { write: (chunk) => void chunks.push(Buffer.from(chunk)), end() {}, abort() {} };
  const stage = as24(sink);
  stage.write(r.writeImage(entries));
  stage.end();
  const output = Buffer.concat(chunks);
  r.checkReferences(output);
  return output;
}

const vdso = { start: 0x7fffe0006000n, size: 0x2000n, vvarStart: 0x7fffe0000000n, vvarSize: 0x6000n };
const kernelAreas = [
  r.anonymous(vdso.vvarStart, 6, { kind: 'vvar', prot: 1 }),
  r.anonymous(vdso.start, 2, { kind: 'vdso', prot: 5 }),
];

/** The stack's page with the auxiliary vector as the kernel put it there. */
function stackPage(...words: bigint[]): Uint8Array {
  const page = new BigUint64Array(512);
  page.set([3n, 4n, 33n, vdso.start, 6n, 4096n, 0n, 0n, ...words], 64);
  return new Uint8Array(page.buffer);
}

function areas(): r.Entry {
  const list = r.areas(1).meta.areas as r.Area[];
  return { kind: 'areas', meta: { mm: 1, areas: [...list.slice(0, 2), ...kernelAreas, ...list.slice(2)] } };
}

function image(
  parts: {
    objects?: r.Entry[];
    tasks?: r.Entry[];
    hello?: Partial<Records['hello']>;
    stack?: Uint8Array;
    mm?: object;
  } = {},
): r.Entry[] {
  return [
    r.hello('2.6', parts.hello),
    r.pod(),
    r.tree(r.treeEntry(2)),
    r.mm(1, { vdso, auxv: r.auxv([33n, vdso.start], [6n, 4096n]), ...parts.mm }),
    areas(),
    r.device(1),
    ...(parts.objects ?? []),
    r.fdTable(1, 1),
    r.fs(1),
    r.handlers(1),
    ...(parts.tasks ?? [r.process_('2.6', 2), r.thread('2.6', 2, 2)]),
    r.pages({ addr: r.stackAddress }, 1),
  ].map((each) => (each.kind === 'pages' ? { ...each, data: parts.stack ?? stackPage() } : each));
}

t.test('a dump goes back to 2.4 and comes forward again', async (t) => {
  const own = r.siginfo(12, -6);
  const shared = r.siginfo(10, 0, 9);
  const before = image({
    objects: [
      r.device(5, { path: '/dev/pts/300', rdev: 0x10882cn }),
      { kind: 'pipe', meta: { id: 6, capacity: 65536 } },
      { kind: 'content', meta: { file: 6 }, data: new Uint8Array(100) },
    ],
    tasks: [
      r.process_('2.6', 2, {
        pending: [shared],
        itimers: [
          { which: 0, valueNs: 15_000_001n, intervalNs: 50_000_000n },
          { which: 2, valueNs: 7n, intervalNs: 0n },
        ],
      }),
      r.thread('2.6', 2, 2, { pending: [own] }),
    ],
  });
  const old = r.readImage(goBack(before));
  t.match(r.metaOf(old, 'hello'), { semantics: '2.4', kernel: '2.4.37', requires: [] });
  const mm = r.metaOf(old, 'mm');
  t.notOk('vdso' in mm);
  t.same([...new BigUint64Array(new Uint8Array(mm.auxv).buffer)], [6n, 4096n, 0n, 0n]);
  t.notOk(r.metaOf(old, 'areas').areas.some((area) => area.kind === 'vdso' || area.kind === 'vvar'));
  t.same(
    r.metasOf(old, 'device').map((each) => each.rdev),
    [0x103n, 0x892cn],
  );
  t.equal(r.metaOf(old, 'pipe').capacity, 4096);
  const process = r.metaOf(old, 'process');
  t.equal(process.limits.length, 11);
  t.notOk('pending' in process);
  t.same(process.itimers, [{ which: 2, valueNs: 7n, intervalNs: 0n }]);
  const thread = r.metaOf(old, 'thread');
  t.same(thread.pending, [own, shared]);
  t.same(thread.itimerReal, { valueJiffies: 2n, intervalJiffies: 5n }, 'rounded up, never early');
  const stack = new BigUint64Array(new Uint8Array(old.at(-1)!.data!).buffer);
  t.same([...stack.subarray(64, 72)], [3n, 4n, 1n, 0n, 6n, 4096n, 0n, 0n], 'AT_SYSINFO_EHDR is AT_IGNORE');

  const forward = r.readImage(runFilter(filter, goBack(before)).output);
  t.same(
    r.metaOf(forward, 'hello').history.map((line) => line.filter),
    ['as-2.4', 'upgrade-2.6'],
  );
  t.same(
    r.metasOf(forward, 'device').map((each) => each.rdev),
    [0x103n, 0x10882cn],
  );
  t.same(r.metaOf(forward, 'process').pending, [shared]);
  t.same(r.metaOf(forward, 'thread').pending, [own]);
  t.same(r.metaOf(forward, 'process').itimers, [
    { which: 0, valueNs: 20_000_000n, intervalNs: 50_000_000n },
    { which: 2, valueNs: 7n, intervalNs: 0n },
  ]);
  t.ok(r.metaOf(forward, 'mm').vdso);
});

t.test('threads become tasks of a CLONE_THREAD group and threads again', async (t) => {
  const before = image({
    tasks: [
      r.process_('2.6', 2),
      r.thread('2.6', 2, 2),
      r.thread('2.6', 2, 8),
      r.thread('2.6', 2, 9, { pending: [r.siginfo(10, -6)] }),
    ],
  });
  const old = r.readImage(goBack(before));
  t.same(
    r.metaOf(old, 'tree').processes.map(({ pid, threadGroup }) => [pid, threadGroup]),
    [
      [2, 2],
      [8, 2],
      [9, 2],
    ],
  );
  t.same(
    r.metasOf(old, 'thread').map(({ pid, tid }) => [pid, tid]),
    [
      [2, 2],
      [8, 8],
      [9, 9],
    ],
  );
  const forward = r.readImage(runFilter(filter, goBack(before)).output);
  t.same(
    r.metaOf(forward, 'tree').processes.map((entry) => entry.pid),
    [2],
  );
  t.same(
    r.metasOf(forward, 'thread').map(({ pid, tid }) => [pid, tid]),
    [
      [2, 2],
      [2, 8],
      [2, 9],
    ],
  );
  t.same(r.metasOf(forward, 'thread')[2]!.pending, [r.siginfo(10, -6)]);
  t.same(r.metaOf(forward, 'hello').requires, ['thread-groups']);
});

t.test('what 2.4 lacked is refused by name, exit 32', async (t) => {
  const thread = (more: Partial<Records['thread']>) => ({
    tasks: [r.process_('2.6', 2), r.thread('2.6', 2, 2, more)],
  });
  const credentials = r.thread('2.6', 2, 2).meta.credentials as Records['thread']['credentials'];
  const object = (kind: r.Entry['kind'], meta: object) => ({
    objects: [{ kind, meta: { id: 7, flags: 2, ...meta } } as r.Entry],
  });
  const cases: [Parameters<typeof image>[0], RegExp][] = [
    [object('epoll', { entries: [] }), /epoll 7/],
    [object('eventfd', { count: 0n, semaphore: false }), /eventfd 7/],
    [object('timerfd', { clock: 1, settimeFlags: 0, ticks: 0n, valueNs: 0n, intervalNs: 0n }), /timerfd 7/],
    [object('signalfd', { mask: 0n }), /signalfd 7/],
    [object('inotify', { watches: [] }), /inotify 7/],
    [object('device', { path: '/dev/x', rdev: 0x10000n, position: 0n }), /device 7 has the number 256:0/],
    [object('regular', { path: '/x', flags: 0o10000000, position: 0n }), /regular 7 .*O_PATH/],
    [object('unix-socket', { type: 'seqpacket', state: 'unconnected' }), /unix-socket 7 .*seqpacket/],
    [
      {
        objects: [
          { kind: 'pipe', meta: { id: 7, capacity: 65536 } },
          { kind: 'content', meta: { file: 7 }, data: new Uint8Array(5000) },
        ],
      },
      /pipe 7 holds 5000/,
    ],
    [
      {
        tasks: [
          r.process_('2.6', 2, {
            timers: [
              { id: 0, clock: 0, notify: 0, signal: 1, value: 0n, valueNs: 0n, intervalNs: 0n, overrun: 0 },
            ],
          }),
          r.thread('2.6', 2, 2),
        ],
      },
      /process 2 has a POSIX timer/,
    ],
    [thread({ robustList: { head: 8n, length: 24n } }), /thread 2 has a robust/],
    [thread({ rseq: { address: 8n, length: 32, signature: 1, flags: 0 } }), /thread 2 has a restartable/],
    [thread({ clearChildTid: 8n }), /thread 2 has an address to clear/],
    [thread({ systemCall: { number: 202, restart: 'again' } }), /futex\(\)/],
    [thread({ registers: r.registers({ rip: vdso.start + 16n }) }), /thread 2 is in the vdso/],
    [thread({ credentials: { ...credentials, noNewPrivs: true } }), /no_new_privs/],
    [{ tasks: [r.process_('2.6', 2), r.thread('2.6', 2, 2), r.thread('2.6', 2, 40000)] }, /process 40000/],
    [{ hello: { requires: ['waitid'] } }, /requires waitid/],
    [
      { stack: stackPage(vdso.start + 0x400n) },
      /address space 1 has a pointer into the vdso at 0x7ffffffde240/,
    ],
  ];
  for (const [parts, message] of cases) {
    try {
      goBack(image(parts));
      t.fail(String(message));
    } catch (cause) {
      const error = PodError.from(cause);
      t.equal(error.exitCode, 32, error.message);
      t.match(error.message, message);
    }
  }
});
