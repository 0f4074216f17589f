/** The rows of the table on records alone. */
import t from 'tap';
import { upgradeDevice } from '../../lib/image/upgrade/device-numbers.ts';
import { upgradeOwner } from '../../lib/image/upgrade/file-owner.ts';
import { upgradeSegments } from '../../lib/image/upgrade/i386-segments.ts';
import { jiffiesToNs, joinIntervalTimers } from '../../lib/image/upgrade/interval-timers.ts';
import { upgradePersonality, upgradeProtection } from '../../lib/image/upgrade/memory-layout.ts';
import { findNewObject } from '../../lib/image/upgrade/new-objects.ts';
import { dividePending } from '../../lib/image/upgrade/pending-signals.ts';
import { placeAreas } from '../../lib/image/upgrade/place-areas.ts';
import { joinLimits } from '../../lib/image/upgrade/resource-limits.ts';
import { upgradeScheduling } from '../../lib/image/upgrade/scheduler.ts';
import type { Context, Task } from '../../lib/image/upgrade/task.ts';
import { addVdso } from '../../lib/image/upgrade/vdso.ts';
import type { Records } from '../../schemas/generated/types.ts';
import * as r from '../tools/records.ts';

const context = (arch = 'x86_64'): Context => ({ arch, losses: [] });

function task(
  pid: number,
  thread: Partial<Records['thread']> = {},
  process: Partial<Records['process']> = {},
): Task {
  return {
    entry: r.treeEntry(pid),
    process: r.process_('2.4', pid, process).meta as unknown as Records['process'],
    thread: r.thread('2.4', pid, pid, thread).meta as unknown as Records['thread'],
  };
}

t.test('pending signals: a process of one task', async (t) => {
  const killed = r.siginfo(10, 0, 99);
  const child = r.siginfo(17, 1, 50);
  const fault = r.siginfo(11, 1);
  const sentFault = r.siginfo(11, 0, 99);
  const ownPipe = r.siginfo(13, 0, 2);
  const othersPipe = r.siginfo(13, 0, 99);
  const queued = [r.siginfo(40, -1, 9, 1), r.siginfo(40, -1, 9, 2)];
  t.same(dividePending([task(2, { pending: [killed, fault, child, ownPipe, ...queued] })]), {
    shared: [killed, child, ...queued],
    private: [[fault, ownPipe]],
  });
  t.same(dividePending([task(2, { pending: [othersPipe] })]).shared, [othersPipe]);
  t.same(dividePending([task(2, { pending: [sentFault] })]).shared, [sentFault]);
  t.same(dividePending([task(2)]), { shared: [], private: [[]] });
  const mixed = [r.siginfo(40, -1, 9, 1), r.siginfo(40, -6, 9, 2), r.siginfo(40, -1, 9, 3)];
  t.same(
    dividePending([task(2, { pending: mixed })]),
    { shared: [], private: [mixed] },
    'one number, one queue',
  );
});

t.test('pending signals: a group', async (t) => {
  const interrupt = r.siginfo(2, 0x80);
  const mine = r.siginfo(10, 0, 99, 1);
  const yours = r.siginfo(10, 0, 99, 2);
  const realTime = r.siginfo(40, -1, 99, 7);
  const group = [
    task(2, { pending: [interrupt, mine] }),
    task(3, { pending: [yours, interrupt] }),
    task(4, { pending: [realTime, interrupt] }),
  ];
  t.same(
    dividePending(group),
    { shared: [interrupt, mine], private: [[], [yours], [realTime]] },
    'what all have was sent to all; what one has stays its own; the unmasked leader takes its own',
  );
  const masked = [task(2, { pending: [mine], signalMask: 1n << 9n }), task(3)];
  t.same(dividePending(masked), { shared: [], private: [[mine], []] }, 'another thread would take it');
  const allMasked = [task(2, { pending: [mine], signalMask: 1n << 9n }), task(3, { signalMask: 1n << 9n })];
  t.same(dividePending(allMasked), { shared: [mine], private: [[], []] }, 'nobody would take it');
  const differing = [task(2, { pending: [mine] }), task(3, { pending: [yours] })];
  t.same(dividePending(differing).private[1], [yours], 'not the same siginfo: not sent to all');
  const everyRealTime = [task(2, { pending: [realTime] }), task(3, { pending: [realTime] })];
  t.same(dividePending(everyRealTime).private[1], [realTime], 'real-time signals count, none is dropped');
});

t.test('interval timers', async (t) => {
  const timer = (value: bigint, interval = 0n) => ({
    itimerReal: { valueJiffies: value, intervalJiffies: interval },
  });
  t.same(joinIntervalTimers([task(2, timer(150n, 3n))]), [
    { which: 0, valueNs: 1_500_000_000n, intervalNs: 30_000_000n },
  ]);
  t.same(joinIntervalTimers([task(2, timer(0n, 5n))]), [], 'a disarmed timer is none');
  t.equal(jiffiesToNs((1n << 64n) - 1n), (1n << 63n) - 1n, 'for ever');
  const cpu = { which: 1, valueNs: 5n, intervalNs: 6n };
  t.same(joinIntervalTimers([task(2, {}, { itimers: [cpu, { which: 2, valueNs: 0n, intervalNs: 0n }] })]), [
    cpu,
  ]);
  t.same(joinIntervalTimers([task(2), task(3, timer(1n))]).length, 1, 'one in a group is the group’s');
  t.throws(() => joinIntervalTimers([task(2, timer(1n)), task(3, timer(1n))]), {
    name: 'PodError',
    exitCode: 32,
    message: /process 2: its threads 2, 3/,
  });
  t.throws(() => joinIntervalTimers([task(2), task(3, {}, { itimers: [cpu] })]), {
    name: 'PodError',
    exitCode: 32,
    message: /thread 3: its ITIMER_VIRTUAL/,
  });
  t.throws(() => joinIntervalTimers([task(2, {}, { itimers: [{ ...cpu, which: 0 }] })]), {
    name: 'PodError',
    exitCode: 6,
  });
});

t.test('device numbers', async (t) => {
  const turn = (rdev: bigint, block = false): bigint =>
    upgradeDevice(r.device(1, { rdev, block }).meta as unknown as Records['device']).rdev;
  t.equal(turn(0x0103n), 0x103n, '/dev/null');
  t.equal(turn(0xfe01n, true), 0xfe01n, 'a block device');
  t.equal(turn(0x8805n), 0x8805n, 'the first 256 terminals stay');
  // glibc: makedev(136, 259) is 0x108803.
  t.equal(turn(0x8903n), 0x108803n, 'terminal 256 + 3 comes back to major 136');
  t.equal(turn(0x8fffn), 0x7088ffn, 'the last terminal, 2047');
  t.equal(turn(0x8903n, true), 0x8903n, 'block 137:3 is no terminal');
  t.throws(() => turn(0x10000n), { name: 'PodError', exitCode: 6, message: /device 1/ });
});

t.test('resource limits', async (t) => {
  const unlimited = 0xffffffffffffffffn;
  const joined = joinLimits([task(2)], context());
  t.equal(joined.length, 16);
  t.same(joined.slice(0, 11), r.limits(11));
  t.same(joined.slice(11), [
    { soft: 106n, hard: unlimited },
    { soft: 819200n, hard: 819200n },
    { soft: 0n, hard: 0n },
    { soft: 0n, hard: 0n },
    { soft: unlimited, hard: unlimited },
  ]);
  const own = r.limits(11);
  own[7] = { soft: 5n, hard: 6n };
  const around = context();
  t.same(joinLimits([task(2), task(3, {}, { limits: own })], around)[7], r.limits(11)[7]);
  t.match(around.losses, [/thread 3 .*\(NOFILE\)/]);
  t.throws(() => joinLimits([task(2, {}, { limits: r.limits(16) })], context()), {
    name: 'PodError',
    exitCode: 6,
  });
});

t.test('scheduler', async (t) => {
  const turn = (scheduling: Records['thread']['scheduling']) =>
    upgradeScheduling(task(2, { scheduling }).thread);
  t.same(turn({ policy: 0, nice: 5, priority: 0, counter: 17 }), { policy: 0, nice: 5, priority: 0 });
  t.same(turn({ policy: 2, nice: 0, priority: 9 }), { policy: 2, nice: 0, priority: 9 });
  t.throws(() => turn({ policy: 3, nice: 0, priority: 0 }), {
    name: 'PodError',
    exitCode: 6,
    message: /thread 2/,
  });
});

t.test('i386 TLS and segments', async (t) => {
  const ldt = new Uint8Array(16).fill(5);
  const registers = r.registers({
    cs: 0x23n,
    ss: 0x2bn,
    ds: 0x2bn,
    es: 0x2bn,
    fs: 0n,
    gs: 0x7n,
    rip: 0x8048000n,
  });
  const { thread } = task(2, { registers, ldt });
  const turned = upgradeSegments(thread, 'i386');
  const read = (name: 'cs' | 'ss' | 'ds' | 'es' | 'fs' | 'gs' | 'rip') =>
    r.readRegister(turned.registers, name);
  t.same(
    [read('cs'), read('ss'), read('ds'), read('es')],
    [0x73n, 0x7bn, 0x7bn, 0x7bn],
    'flat segments moved',
  );
  t.same([read('fs'), read('gs'), read('rip')], [0n, 0x7n, 0x8048000n], 'the LDT selector stays');
  t.equal(r.readRegister(registers, 'cs'), 0x23n, 'the record read is not changed');
  t.same(
    turned.gdt?.map((bytes) => [...new Uint32Array(bytes.buffer)]),
    [6, 7, 8].map((entry) => [entry, 0, 0, 0x28]),
    'three empty GDT entries',
  );
  t.same(upgradeSegments(thread, 'x86_64'), { registers }, 'x86_64 needs none of it');
  t.throws(() => upgradeSegments({ ...thread, gdt: [] }, 'i386'), { name: 'PodError', exitCode: 6 });
});

t.test('memory layout', async (t) => {
  t.equal(upgradePersonality(0, 'i386'), 0x0640000);
  t.equal(upgradePersonality(0x0800000, 'x86_64'), 0x0a40000);
  t.equal(upgradePersonality(0xff000008, 'x86_64'), 0xff240008, 'unsigned');
  const area = (prot: number) => r.anonymous(0x1000n, 1, { prot });
  t.same(
    [1, 2, 3, 0].map((prot) => upgradeProtection(area(prot), 'i386').prot),
    [5, 2, 7, 0],
  );
  const same = area(3);
  t.equal(upgradeProtection(same, 'x86_64'), same);
});

t.test('vdso', async (t) => {
  const mm = (more: Partial<Records['mm']> = {}) => r.mm(1, more).meta as unknown as Records['mm'];
  const list = (...extra: r.Area[]) => (r.areas(1, extra).meta as unknown as Records['areas']).areas;
  const words = (bytes: Uint8Array) => [...new BigUint64Array(bytes.slice().buffer)];

  const low = addVdso(mm(), list(), 'x86_64');
  const vdso = low.mm.vdso!;
  t.ok(
    vdso.start + vdso.size + 0x10000n <= r.stackAddress - (1n << 30n),
    'below the room the stack may want',
  );
  t.equal(vdso.vvarStart + vdso.vvarSize, vdso.start);
  t.same(
    low.added.map(({ start, end, kind, prot }) => ({ start, end, kind, prot })),
    [
      { start: vdso.vvarStart, end: vdso.start, kind: 'vvar', prot: 1 },
      { start: vdso.start, end: vdso.start + vdso.size, kind: 'vdso', prot: 5 },
    ],
  );
  t.same(words(low.mm.auxv), [33n, vdso.start, 6n, 4096n, 0n, 0n], 'AT_SYSINFO_EHDR');
  t.same(addVdso(mm(), list(), 'x86_64').mm, low.mm, 'the same every time');

  const stack = 0x7ffff0000000n;
  const above = [...list().slice(0, 2), r.anonymous(stack, 2, { stack: true })];
  const high = addVdso(mm({ startStack: stack + 8n }), above, 'x86_64').mm.vdso!;
  t.ok(
    high.vvarStart > stack + 0x2000n && high.start + high.size < 1n << 47n,
    'above the stack when there is room',
  );

  const i386 = addVdso(
    mm({ startStack: 0xbfffe000n, auxv: new Uint8Array(Uint32Array.from([6, 4096, 0, 0]).buffer) }),
    [r.anonymous(0x8048000n, 1), r.anonymous(0xbfffd000n, 3, { stack: true })],
    'i386',
  );
  t.ok(i386.mm.vdso!.start < 0xbfffd000n);
  t.same([...new Uint32Array(i386.mm.auxv.slice().buffer)], [33, Number(i386.mm.vdso!.start), 6, 4096, 0, 0]);

  t.throws(() => addVdso(mm(), [r.anonymous(0x10000n, 0x7fffffff0)], 'x86_64'), {
    name: 'PodError',
    exitCode: 32,
    message: /address space 1/,
  });
  t.throws(() => addVdso(mm({ auxv: r.auxv([33n, 1n]) }), list(), 'x86_64'), {
    name: 'PodError',
    exitCode: 6,
  });
  t.throws(() => addVdso(low.mm, list(), 'x86_64'), { name: 'PodError', exitCode: 6, message: /a vdso/ });
});

t.test('areas are put in place', async (t) => {
  const area = (start: bigint) => r.anonymous(start << 12n, 1);
  const added = [area(10n), area(11n)];
  const starts = (lists: (readonly r.Area[])[][]) =>
    lists.map((each) => each.map((list) => list.map((one) => Number(one.start >> 12n))));
  t.same(starts(placeAreas([[area(1n), area(20n)], [area(30n)]], added)), [[[1], [10, 11], [20]], [[30]]]);
  t.same(starts(placeAreas([[area(1n)], [area(20n)]], added)), [[[1]], [[10, 11], [20]]]);
  t.same(starts(placeAreas([[area(1n)]], added)), [[[1], [10, 11]]]);
  t.same(starts(placeAreas([], added)), [[[10, 11]]]);
});

t.test('new objects and owners', async (t) => {
  const found = (kind: 'process' | 'thread', more: object) =>
    findNewObject(kind, { ...(kind === 'process' ? task(5).process : task(5).thread), ...more });
  t.equal(found('process', {}), undefined);
  t.equal(found('thread', {}), undefined);
  t.match(found('thread', { robustList: { head: 1n, length: 24n } }), {
    feature: 'futex-lists',
    object: 'thread 5',
  });
  t.match(found('thread', { clearChildTid: 8n }), { feature: 'futex' });
  t.match(found('thread', { rseq: { address: 1n, length: 32, signature: 1, flags: 0 } }), {
    feature: 'rseq',
  });
  t.match(found('process', { childSubreaper: true }), { object: 'process 5' });
  t.match(findNewObject('epoll', { id: 7, flags: 0, entries: [] }), { feature: 'epoll', object: 'epoll 7' });
  t.match(findNewObject('shm', { id: 3, size: 1n, origin: 'memfd' }), { feature: 'memfd', object: 'shm 3' });
  t.equal(findNewObject('shm', { id: 3, size: 1n, origin: 'unlinked', path: '/x' }), undefined);

  const file = { owner: { type: 1, pid: 9, signal: 0 } };
  t.equal(
    upgradeOwner(file, () => false),
    file,
  );
  t.same(
    upgradeOwner(file, (pid) => pid === 9),
    { owner: { type: 0, pid: 9, signal: 0 } },
  );
  const group = { owner: { type: 2, pid: 9, signal: 0 } };
  t.equal(
    upgradeOwner(group, () => true),
    group,
    'process groups stay',
  );
});
