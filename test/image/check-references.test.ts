import t from 'tap';
import { ReferenceChecker } from '../../lib/image/check-references.ts';
import { type Failure, PodError } from '../../lib/stream/error.ts';
import type { KindName } from '../../lib/stream/kind.ts';
import { StreamParser } from '../../lib/stream/stream-parser.ts';
import { streamBytes } from '../tools/make-stream.ts';
import * as r from '../tools/records.ts';

function failureOf(entries: readonly r.Entry[]): { failure: Failure; message: string } | undefined {
  try {
    r.checkReferences(r.writeImage(entries));
    return undefined;
  } catch (cause) {
    if (!(cause instanceof PodError)) throw cause;
    return { failure: cause.failure, message: cause.message };
  }
}

/** The simple image with the first entry of a kind replaced, or with entries put before it. */
function change(
  kind: KindName,
  make: (old: r.Entry) => r.Entry[],
  semantics: '2.4' | '2.6' = '2.6',
): r.Entry[] {
  const image = r.simpleImage(semantics);
  const at = image.findIndex((each) => each.kind === kind);
  return [...image.slice(0, at), ...make(image[at]!), ...image.slice(at + 1)];
}

const meta = (old: r.Entry, more: object): r.Entry => ({ ...old, meta: { ...old.meta, ...more } });
const withMeta = (kind: KindName, more: object, semantics: '2.4' | '2.6' = '2.6'): r.Entry[] =>
  change(kind, (old) => [meta(old, more)], semantics);
const before = (kind: KindName, ...extra: r.Entry[]): r.Entry[] => change(kind, (old) => [...extra, old]);

const regular = (id: number, more: object = {}): r.Entry => ({
  kind: 'regular',
  meta: { id, path: '/data', flags: 2, position: 0n, ...more },
});
const shm = (id: number, more: object = {}): r.Entry => ({
  kind: 'shm',
  meta: { id, size: 5000n, origin: 'memfd', ...more },
});
const sysv = (id: number, key = 0) => ({ id, key, mode: 0o600, uid: 0, gid: 0, cuid: 0, cgid: 0 });
const unlinked = shm(2, { origin: 'unlinked', path: '/tmp/gone' });
/** An image with a shared memory object before all else of its memory. */
const withShm = (object: r.Entry, image: readonly r.Entry[]): r.Entry[] => {
  const at = image.findIndex(({ kind }) => kind === 'shm' || kind === 'mm');
  return [...image.slice(0, at), object, ...image.slice(at)];
};
const socket = (id: number, more: object = {}): r.Entry => ({
  kind: 'unix-socket',
  meta: { id, flags: 2, type: 'stream', state: 'pair', ...more },
});
const inet = (id: number, more: object = {}): r.Entry => {
  const address = Uint8Array.from([2, 0, 1, 1, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
  const ends = { address, peerAddress: address };
  return {
    kind: 'inet-socket',
    meta: { id, flags: 2, family: 'ipv4', type: 'tcp', state: 'connected', ...ends, ...more },
  };
};
const kept = { send: 1, receive: 1, unsent: 0, maxSegment: 1460, window: new Uint8Array(20) };
const pty = (id: number, more: object): r.Entry => ({
  kind: 'pty',
  meta: { id, flags: 2, index: 4, termios: new Uint8Array(44), rows: 24, columns: 80, ...more },
});
const owner = { key: 0, mode: 0o600, uid: 0, gid: 0, cuid: 0, cgid: 0 };
const semaphores = (id: number, count: number, data: Uint8Array, ...undo: object[]): r.Entry => ({
  kind: 'sysv-semaphores',
  meta: { ...owner, id, count, undo },
  data,
});
const queue = (id: number, more: object = {}): r.Entry => ({
  kind: 'sysv-queue',
  meta: { ...owner, id, capacity: 16384n, types: [], lengths: [], ...more },
});
/** A place with these files after its folder. */
const place = (id: number, files: object[], more: object = {}): r.Entry => {
  const top = { parent: 0, name: '.', mode: 0o40755 };
  return { kind: 'place', meta: { id, path: '/work/job', files: [top, ...files], ...more } };
};
const file = (file: number, more: object = {}) => {
  return { parent: 0, name: 'a', mode: 0o100644, file, size: 5000n, ...more };
};
const pipe = (id: number, capacity = 4096): r.Entry => ({ kind: 'pipe', meta: { id, capacity } });
const locks = (file: number, ...list: object[]): r.Entry => ({
  kind: 'file-locks',
  meta: { file, locks: list },
});
const content = (file: number, length: number, more: object = {}): r.Entry => ({
  kind: 'content',
  meta: { file, ...more },
  data: new Uint8Array(length),
});

t.test('images that fit', async (t) => {
  for (const semantics of ['2.4', '2.6'] as const) {
    t.equal(failureOf(r.simpleImage(semantics)), undefined, `simple ${semantics}`);
    r.checkReferences(streamBytes({ semantics, size: 1 << 20 }));
  }
  const rich = [
    r.hello('2.6'),
    r.pod(),
    r.tree(r.treeEntry(2), r.treeEntry(3, { ppid: 2 })),
    r.tree(
      r.treeEntry(4, { ppid: 3, state: 'zombie', status: 256 }),
      r.treeEntry(5, { ppid: 0, pgid: 0, sid: 0 }),
    ),
    { kind: 'shm', meta: { id: 1, size: 5000n, origin: 'memfd' } } as r.Entry,
    unlinked,
    shm(3, { origin: 'sysv', sysv: sysv(32769, 7) }),
    shm(4, { origin: 'sysv', sysv: sysv(0) }),
    shm(5, { origin: 'sysv', sysv: sysv(1) }),
    place(1, [file(1), { parent: 0, name: 'b', mode: 0o40700 }], { mount: { type: 'tmpfs', flags: ['ro'] } }),
    { kind: 'place', meta: { id: 1, path: '/work/job', files: [file(7, { parent: 2 })] } } as r.Entry,
    place(4, [{ parent: 0, name: 'c', mode: 0o120777, target: '../..' }, file(9, { name: 'd' })]),
    r.mm(1, {
      exeShm: 2,
      vdso: { start: 0x7ffff0006000n, size: 0x2000n, vvarStart: 0x7ffff0000000n, vvarSize: 0x6000n },
    }),
    {
      kind: 'areas',
      meta: {
        mm: 1,
        areas: [
          r.anonymous(0x20000n, 1),
          r.anonymous(0x21000n, 1),
          r.anonymous(0x30000n, 2, { kind: 'shm', shm: 1, offset: 0n, shared: true }),
          r.anonymous(0x40000n, 1, { kind: 'file', offset: 0n, deletedFile: 9 }),
          r.anonymous(0x50000n, 1, { kind: 'shm', shm: 2, offset: 0n }),
          r.anonymous(0x60000n, 1, { kind: 'shm', shm: 3, offset: 4096n, shared: true }),
        ],
      },
    } as r.Entry,
    {
      kind: 'areas',
      meta: {
        mm: 1,
        areas: [
          r.anonymous(0x7ffff0000000n, 6, { kind: 'vvar', prot: 1 }),
          r.anonymous(0x7ffff0006000n, 2, { kind: 'vdso', prot: 5 }),
        ],
      },
    } as r.Entry,
    { kind: 230, flags: 0, meta: { grease: true } } as r.Entry,
    pipe(1),
    content(1, 4000),
    content(1, 96),
    { kind: 'pipe-end', meta: { id: 2, pipe: 1, flags: 0 } } as r.Entry,
    socket(3, { peer: 4 }),
    content(3, 10, { rights: [1, 8] }),
    socket(4, { peer: 3 }),
    socket(5, { type: 'dgram', state: 'connected', peer: 6 }),
    socket(6, { type: 'dgram', state: 'unconnected', address: new TextEncoder().encode('/run/../run/log') }),
    regular(7, { memfd: 1, path: '/memfd:x' }),
    regular(10, { unlinked: 2 }),
    {
      kind: 'epoll',
      meta: { id: 8, flags: 2, entries: [{ fd: 3, file: 3, events: 1, data: 0n }] },
    } as r.Entry,
    regular(9, { deleted: true, size: 8192n }),
    content(9, 4096, { offset: 4096n }),
    { kind: 'fd-table', meta: { id: 1, entries: [{ fd: 0, file: 2 }] } } as r.Entry,
    { kind: 'fd-table', meta: { id: 1, entries: [{ fd: 7, file: 8 }] } } as r.Entry,
    locks(
      9,
      { kind: 'posix', write: true, table: 1, pid: 2, start: 5n, end: 5n },
      { kind: 'flock', write: false },
    ),
    locks(9, { kind: 'ofd', write: true, start: (1n << 63n) - 1n }),
    r.fs(1),
    r.handlers(1, { signal: 10 }, { signal: 12 }),
    r.process_('2.6', 2),
    r.thread('2.6', 2, 2),
    r.thread('2.6', 2, 20),
    r.process_('2.6', 5),
    r.thread('2.6', 5, 5),
    r.process_('2.6', 3),
    r.thread('2.6', 3, 3),
    r.pages({ addr: 0x20000n }, 2),
    r.pages({ addr: 0x40000n }),
    { kind: 'pages', meta: { file: 7, addr: 4096n }, data: new Uint8Array(4096) } as r.Entry,
    { kind: 'pages', meta: { shm: 1, addr: 4096n }, data: new Uint8Array(4096) } as r.Entry,
  ];
  t.equal(failureOf(rich), undefined);
});

/** Process 3 is a child of 2 and has its pages from it, but those at the end of its heap. */
const heirs = (
  parts: {
    base?: number;
    own?: Partial<r.Area>;
    entry?: Partial<ReturnType<typeof r.treeEntry>>;
    pages?: r.Entry[];
  } = {},
): r.Entry[] => [
  r.hello('2.6'),
  r.pod(),
  r.tree(r.treeEntry(2), r.treeEntry(3, { ppid: 2, ...parts.entry })),
  r.mm(7),
  r.areas(7),
  r.mm(1, { base: parts.base ?? 7 }),
  {
    kind: 'areas',
    meta: { mm: 1, areas: [r.anonymous(r.heapAddress, 2, { inherited: true, ...parts.own })] },
  },
  r.device(1),
  r.fdTable(1, 1),
  r.fs(1),
  r.handlers(1),
  r.process_('2.6', 2, { mm: 7 }),
  r.thread('2.6', 2, 2),
  r.process_('2.6', 3),
  r.thread('2.6', 3, 3),
  ...(parts.pages ?? [r.pages({ mm: 7 }, 2), r.pages({ mm: 7, addr: r.stackAddress }), r.pages()]),
];

t.test('inherited pages', async (t) => {
  t.equal(failureOf(heirs()), undefined);
  t.equal(failureOf(heirs({ entry: { sid: 3, pgid: 3 } })), undefined, 'of a child that leads a session');
  t.equal(failureOf(heirs({ pages: [] })), undefined, 'none');
  const cases: [string, Parameters<typeof heirs>[0], RegExp][] = [
    ['of nobody', { base: 5 }, /inherits from address space 5, which is not defined/],
    ['of itself', { base: 1 }, /inherits from address space 1, which is not defined/],
    ['of no parent', { entry: { ppid: 0 } }, /process 3 inherits from address space 7, .* not its parent's/],
    ['of an earlier session', { entry: { sid: 0, pgid: 0 } }, /can't have forked it last/],
    ['in shared memory', { own: { shared: true } }, /inherited, but shared/],
    ['that come behind the heir', { pages: [r.pages(), r.pages({ mm: 7 })] }, /come too late/],
  ];
  for (const [name, parts, says] of cases) {
    const found = failureOf(heirs(parts));
    t.equal(found?.failure, 'damaged', name);
    t.match(found?.message, says, name);
  }
});

t.test('images that do not fit are damaged, and the message names what', async (t) => {
  const area = (more: Partial<r.Area>, start = 0x20000n, count = 1): r.Entry[] =>
    before('device', r.mm(2), {
      kind: 'areas',
      meta: { mm: 2, areas: [r.anonymous(start, count, more)] },
    });
  const cases: [string, r.Entry[], RegExp][] = [
    [
      'slave without its master',
      before('fd-table', { kind: 'terminal', meta: { id: 9, flags: 2, tty: 3, role: 'inside' } }),
      /slave of a pseudo-terminal that is not defined/,
    ],
    [
      'two masters of one name',
      before('fd-table', pty(9, { tty: 1 }), pty(10, { tty: 2 })),
      /terminal that another master has/,
    ],
    ['no tree', change('tree', () => []), /no process tree|not in the tree/],
    ['a second POD', before('tree', r.pod()), /second POD/],
    ['TREE behind memory', before('device', r.tree(r.treeEntry(9))), /tree comes after the memory section/],
    ['AREAS behind pages', [...r.simpleImage('2.6'), r.areas(1)], /comes after the pages section/],
    [
      'pid twice',
      withMeta('tree', { processes: [r.treeEntry(2), r.treeEntry(2)] }),
      /process 2 is in the tree twice/,
    ],
    [
      'child before parent',
      withMeta('tree', { processes: [r.treeEntry(3, { ppid: 2 }), r.treeEntry(2)] }),
      /parent 2/,
    ],
    ['own parent', withMeta('tree', { processes: [r.treeEntry(2, { ppid: 2 })] }), /parent 2/],
    [
      'cycle',
      withMeta('tree', { processes: [r.treeEntry(2, { ppid: 3 }), r.treeEntry(3, { ppid: 2 })] }),
      /parent 3/,
    ],
    [
      'child of a zombie',
      withMeta('tree', {
        processes: [r.treeEntry(2), r.treeEntry(3, { state: 'zombie' }), r.treeEntry(4, { ppid: 3 })],
      }),
      /zombie/,
    ],
    [
      'group in two sessions',
      withMeta('tree', { processes: [r.treeEntry(2), r.treeEntry(3, { sid: 0 })] }),
      /sessions/,
    ],
    [
      'session leader in a foreign group',
      withMeta('tree', { processes: [r.treeEntry(2, { pgid: 7 })] }),
      /leads a session/,
    ],
    [
      'threadGroup in 2.6',
      withMeta('tree', { processes: [r.treeEntry(2, { threadGroup: 2 })] }),
      /thread group/,
    ],
    [
      'threadGroup of nobody',
      withMeta('tree', { processes: [r.treeEntry(2, { threadGroup: 9 })] }, '2.4'),
      /thread group of 9/,
    ],
    ['process not in the tree', before('process', r.process_('2.6', 9)), /process 9 is not in the tree/],
    [
      'tree without its process',
      withMeta('tree', { processes: [r.treeEntry(2), r.treeEntry(3)] }),
      /process 3 of the tree/,
    ],
    [
      'process twice',
      before('process', r.process_('2.6', 2), r.thread('2.6', 2, 2)),
      /process 2 is defined twice/,
    ],
    ['thread of another', withMeta('thread', { pid: 3 }), /does not follow/],
    [
      'a filter of no instructions',
      before('fs', { kind: 'seccomp', meta: { id: 1, program: new Uint8Array(0) } }),
      /no whole number of instructions/,
    ],
    [
      'half an instruction',
      before('fs', { kind: 'seccomp', meta: { id: 1, program: new Uint8Array(12) } }),
      /no whole number of instructions/,
    ],
    ['too few values', before('fs', semaphores(5, 2, new Uint8Array(2))), /2 bytes of values instead of 4/],
    ['a value beyond', before('fs', semaphores(5, 1, Uint8Array.of(0, 0x80))), /above 32767/],
    [
      'no such semaphore',
      before('fs', semaphores(5, 1, new Uint8Array(2), { pid: 2, number: 1, adjust: 1 })),
      /does not have/,
    ],
    [
      'a dead giver',
      before('fs', semaphores(5, 1, new Uint8Array(2), { pid: 77, number: 0, adjust: 1 })),
      /not alive/,
    ],
    ['a place twice', before('mm', place(1, []), place(1, [], { path: '/other' })), /defined twice/],
    ['places upside down', before('mm', place(2, []), place(1, [])), /comes after/],
    ['a place that climbs', before('mm', place(1, [], { path: '/work/../etc' })), /'\.\.'/],
    ['a place of nothing', before('mm', { kind: 'place', meta: { id: 1, path: '/a' } }), /neither mounted/],
    ["files in the kernel's tree", before('mm', place(1, [], { path: '/proc/sys' })), /kernel/],
    ['a name that climbs', before('mm', place(1, [file(1, { name: '..' })])), /impossible name/],
    ['a second top', before('mm', place(1, [file(1, { name: '.' })])), /impossible name/],
    [
      'a file in a link',
      before(
        'mm',
        place(1, [{ parent: 0, name: 'l', mode: 0o120777, target: '/etc' }, file(1, { parent: 1 })]),
      ),
      /no folder/,
    ],
    ['a file in what comes later', before('mm', place(1, [file(1, { parent: 2 })])), /no folder/],
    ['a file in itself', before('mm', place(1, [file(1, { parent: 1 })])), /no folder/],
    ['a link that leads nowhere', before('mm', place(1, [{ ...file(1), target: 'x' }])), /leads nowhere/],
    ['a file of no type', before('mm', place(1, [file(1, { mode: 0o644 })])), /no type/],
    ['a FIFO with contents', before('mm', place(1, [file(1, { mode: 0o10644 })])), /no regular file/],
    ['a file twice', before('mm', place(1, [file(1), file(1, { name: 'b' })])), /in two places/],
    ['another name of nothing', before('mm', place(1, [{ ...file(1), link: 3 }])), /not before it/],
    ['another name of a folder', before('mm', place(1, [{ ...file(1), link: 0 }])), /not before it/],
    [
      'a bind of nothing',
      before('mm', place(1, [], { mount: { type: 'bind', flags: [] } })),
      /bind mount of/,
    ],
    [
      'files in a bind mount',
      before('mm', place(1, [], { mount: { type: 'bind', source: '/a', flags: [] } })),
      /can't take/,
    ],
    [
      'a bind that climbs',
      before('mm', {
        kind: 'place',
        meta: { id: 1, path: '/a', mount: { type: 'bind', source: '/a/../..', flags: [] } },
      }),
      /'\.\.'/,
    ],
    [
      'pages of no file',
      [...r.simpleImage('2.6'), { kind: 'pages', meta: { file: 1, addr: 0n }, data: new Uint8Array(4096) }],
      /in no place/,
    ],
    ['a place among the files', before('fs', place(1, [])), /comes after/],
    ['a queue of fewer bytes', before('fs', queue(5, { types: [1n], lengths: [2] })), /instead of 2/],
    ['a queue of no types', before('fs', queue(5, { lengths: [0] })), /0 types and 1 lengths/],
    ['a message of type 0', before('fs', queue(5, { types: [0n], lengths: [0] })), /no type/],
    [
      'semaphores twice',
      before('fs', semaphores(5, 1, new Uint8Array(2)), semaphores(5, 1, new Uint8Array(2))),
      /twice/,
    ],
    [
      'two queues with a key',
      before('fs', queue(5, { key: 7 }), queue(6, { key: 7 })),
      /the key 7 of another/,
    ],
    ['no filter', withMeta('thread', { seccomp: { filters: [3] } }), /seccomp filter 3/],
    [
      'strict and filtered',
      withMeta('thread', { seccomp: { strict: true, filters: [3] } }),
      /strict mode and has filters/,
    ],
    ['a leader apart', withMeta('thread', { files: 1 }), /the first of its process/],
    [
      'descriptors from nowhere',
      change('thread', (old) => [old, { ...old, meta: { ...old.meta, tid: 3, files: 77 } }]),
      /descriptor table 77/,
    ],
    [
      "a thread with a process's folder",
      change('thread', (old) => [old, { ...old, meta: { ...old.meta, tid: 3, fs: 1 } }]),
      /belongs to a process/,
    ],
    ['no thread', change('thread', () => []), /process 2 has no thread/],
    ['no leader', withMeta('thread', { tid: 9 }), /no thread of its own id/],
    ['thread twice', change('thread', (old) => [old, old]), /thread 2 is defined twice/],
    ['2.4 with two threads', change('thread', (old) => [old, r.thread('2.4', 2, 3)], '2.4'), /thread 3/],
    ['11 limits in 2.6', withMeta('process', { limits: r.limits(11) }), /11 resource limits/],
    ['16 limits in 2.4', withMeta('process', { limits: r.limits(16) }, '2.4'), /16 resource limits/],
    ['shared queue in 2.4', withMeta('process', { pending: [r.siginfo(10)] }, '2.4'), /2\.4 lacked/],
    ['unknown mm', withMeta('process', { mm: 9 }), /address space 9/],
    ['unknown files', withMeta('process', { files: 9 }), /descriptor table 9/],
    ['unknown fs', withMeta('process', { fs: 9 }), /filesystem context 9/],
    ['unknown handlers', withMeta('process', { handlers: 9 }), /handler table 9/],
    ['mm twice', before('device', r.mm(1)), /address space 1 is defined twice/],
    [
      'vdso in 2.4',
      withMeta(
        'mm',
        { vdso: { start: 0x20000n, size: 0x1000n, vvarStart: 0x30000n, vvarSize: 0x1000n } },
        '2.4',
      ),
      /vdso/,
    ],
    ['heap upside down', withMeta('mm', { brk: 0n }), /heap ends before/],
    ['odd auxv', withMeta('mm', { auxv: new Uint8Array(9) }), /auxiliary/],
    ['exe with ..', withMeta('mm', { exe: { path: '/usr/../etc/passwd' } }), /'\.\.'/],
    ['areas of no mm', withMeta('areas', { mm: 9 }), /address space 9/],
    ['areas out of order', before('device', { ...r.areas(1) }), /out of order/],
    ['area upside down', area({ end: 0x10000n }), /ends before/],
    ['area unaligned', area({ end: 0x20001n }), /aligned/],
    ['area too high', area({}, 0x7ffffffff000n, 2), /outside user memory/],
    ['area of a file without one', area({ kind: 'file', offset: 0n }), /names none/],
    ['area with a climbing path', area({ kind: 'file', offset: 0n, file: { path: '/a/..' } }), /'\.\.'/],
    ['area of no shm', area({ kind: 'shm', offset: 0n, shm: 4 }), /shared memory 4/],
    ['area at an odd offset', area({ kind: 'file', offset: 5n, file: { path: '/a' } }), /offset/],
    [
      'area at an endless offset',
      area({ kind: 'file', offset: (1n << 63n) - 4096n, file: { path: '/a' } }, 0x20000n, 2),
      /offset/,
    ],
    ['a lock on memory', area({ flock: 'shared' }), /locked and maps no file/],
    ['a guard outside', area({ guards: [{ start: 0x21000n, end: 0x22000n }] }), /has a guard outside/],
    [
      'half a guard',
      area({ guards: [{ start: 0x20000n, end: 0x20800n }] }),
      /a guard of .* is not page aligned/,
    ],
    ['inherited of nobody', area({ inherited: true }), /has no base/],
    ['vdso area without vdso', area({ kind: 'vdso' }), /no vdso/],
    [
      'area of an object that never comes',
      area({ kind: 'file', offset: 0n, deletedFile: 77 }),
      /open file 77/,
    ],
    ['pages outside', withMeta('pages', { addr: 0x5000000n }), /outside its private areas/],
    ['pages across an end', withMeta('pages', { addr: r.heapAddress + 0x2000n }), /outside/],
    ['pages unaligned', withMeta('pages', { addr: r.heapAddress + 8n }), /whole pages/],
    ['half a page', change('pages', (old) => [{ ...old, data: new Uint8Array(100) }]), /whole pages/],
    ['no pages', change('pages', (old) => [{ ...old, data: new Uint8Array(0) }]), /whole pages/],
    ['pages of both', withMeta('pages', { shm: 1 }), /both or none/],
    ['pages of none', change('pages', (old) => [{ ...old, meta: { addr: r.heapAddress } }]), /both or none/],
    [
      'pages of no shm',
      change('pages', (old) => [{ ...old, meta: { shm: 3, addr: 0n } }]),
      /shared memory 3/,
    ],
    ['pages of no mm', withMeta('pages', { mm: 3 }), /address space 3/],
    ['pages near 2^64', withMeta('pages', { addr: 0xfffffffffffff000n }), /outside/],
    [
      'rights to nothing',
      before('fs', socket(5, { peer: 6 }), content(5, 1, { rights: [77] }), socket(6, { peer: 5 })),
      /open file 77/,
    ],
    [
      'a pidfd sent',
      before(
        'fs',
        { kind: 'pidfd', meta: { id: 5, flags: 2, pid: 1 } },
        socket(6, { state: 'unconnected' }),
        content(6, 1, { rights: [5] }),
      ),
      /pidfd 5/,
    ],
    [
      'a pidfd sent before it is',
      before('fs', socket(6, { state: 'unconnected' }), content(6, 1, { rights: [5] }), {
        kind: 'pidfd',
        meta: { id: 5, flags: 2, pid: 1 },
      }),
      /pidfd 5/,
    ],
    [
      'listener of nobody',
      before('fs', socket(5, { state: 'listening', waiting: [-1, 77] })),
      /open file 77/,
    ],
    ['client of nobody', before('fs', socket(5, { state: 'connected', awaits: 77 })), /open file 77/],
    ['locks on nothing', before('fs', locks(9, { kind: 'flock', write: true })), /open file 9/],
    ['lock of nobody', before('fs', locks(1, { kind: 'posix', write: true })), /no process/],
    ['lock of no table', before('fs', locks(1, { kind: 'posix', write: true, table: 7 })), /table 7/],
    [
      'lock upside down',
      before('fs', locks(1, { kind: 'ofd', write: true, start: 6n, end: 5n })),
      /from 6 to 5/,
    ],
    ['lock from beyond', before('fs', locks(1, { kind: 'ofd', write: true, start: 1n << 63n })), /from 9223/],
    ['lock to beyond', before('fs', locks(1, { kind: 'ofd', write: true, end: 1n << 63n })), /to 9223/],
    ['object twice', before('device', r.device(1)), /open file 1 is defined twice/],
    ['relative path', withMeta('device', { path: 'dev/null' }), /not absolute/],
    ['climbing path', withMeta('device', { path: '/dev/../../x' }), /'\.\.'/],
    ['climbing cwd', withMeta('fs', { cwd: '/..' }), /'\.\.'/],
    ['descriptor of nothing', before('fs', r.fdTable(2, 9)), /open file 9/],
    [
      'descriptors out of order',
      before('fs', {
        kind: 'fd-table',
        meta: {
          id: 2,
          entries: [
            { fd: 1, file: 1 },
            { fd: 1, file: 1 },
          ],
        },
      }),
      /out of order/,
    ],
    [
      'table that comes back',
      before('fs', r.fdTable(2, 1), r.fdTable(1, 1)),
      /descriptor table 1 is defined twice/,
    ],
    ['pipe end of nothing', before('fs', { kind: 'pipe-end', meta: { id: 5, pipe: 1, flags: 0 } }), /pipe 1/],
    ['content of nothing', before('fs', content(1, 10)), /open file 1/],
    ['too much content', before('fs', pipe(5), content(5, 4096), content(5, 1)), /more than it holds/],
    [
      'content behind the end of file',
      before('fs', regular(5, { deleted: true, size: 10n }), content(5, 4, { offset: 8n })),
      /more than/,
    ],
    [
      'epoll of itself',
      before('fs', {
        kind: 'epoll',
        meta: { id: 5, flags: 0, entries: [{ fd: 5, file: 5, events: 1, data: 0n }] },
      }),
      /open file 5/,
    ],
    ['TCP connection with itself', before('fs', inet(5, { peer: 5 })), /itself/],
    ['half a TCP connection', before('fs', inet(5, { peer: 6 })), /connected to 6/],
    ['TCP connection without an end', before('fs', inet(5)), /no other end/],
    ['kept connection in the network of the computer', before('fs', inet(5, { kept })), /can be kept/],
    [
      'sent content of a connection that is not kept',
      before('fs', inet(5, { state: 'reset' }), content(5, 1, { sent: true })),
      /no connection to outside/,
    ],
    ['listening socket with an end', before('fs', inet(5, { peer: 6, state: 'listening' })), /another end/],
    ['IPv6 address of IPv4', before('fs', inet(5, { address: new Uint8Array(28) })), /28 bytes of family 0/],
    [
      'content of a listening socket',
      before('fs', inet(5, { state: 'listening' }), content(5, 1)),
      /cannot hold/,
    ],
    ['socket of itself', before('fs', socket(5, { peer: 5 })), /itself/],
    ['half a pair', before('fs', socket(5, { peer: 6 })), /connected to 6/],
    [
      'a triangle',
      before('fs', socket(5, { peer: 6 }), socket(6, { peer: 7 }), socket(7, { peer: 5 })),
      /another/,
    ],
    ['peer that is no socket', before('fs', socket(5, { peer: 1 })), /another/],
    ['memfd of nothing', before('fs', regular(5, { memfd: 1 })), /shared memory 1/],
    ['unlinked file of nothing', before('fs', regular(5, { unlinked: 1 })), /shared memory 1/],
    [
      'unlinked file of a memfd',
      withShm(shm(1), before('fs', regular(5, { unlinked: 1 }))),
      /as unlinked, which is memfd/,
    ],
    [
      'both a memfd and unlinked',
      withShm(shm(1), withShm(unlinked, before('fs', regular(5, { memfd: 1, unlinked: 2 })))),
      /both/,
    ],
    ['unlinked memory without a path', before('mm', shm(1, { origin: 'unlinked' })), /no path/],
    ['anonymous memory with a path', before('mm', shm(1, { origin: 'anonymous', path: '/x' })), /a path/],
    ['climbing unlinked file', before('mm', shm(1, { origin: 'unlinked', path: '/a/../b' })), /'\.\.'/],
    [
      'a named file of the computer',
      before('mm', shm(1, { origin: 'named', path: '/dev/shm/x' })),
      /not in a \/dev\/shm that is the pod's own/,
    ],
    [
      'a named file elsewhere',
      withShm(shm(1, { origin: 'named', path: '/etc/cron.d/x' }), withMeta('pod', { rooted: true })),
      /not in a \/dev\/shm/,
    ],
    ['System V memory without an id', before('mm', shm(1, { origin: 'sysv' })), /no System V id/],
    ['a memfd with a System V id', before('mm', shm(1, { sysv: sysv(5) })), /a System V id/],
    [
      'System V memory twice',
      before('mm', shm(1, { origin: 'sysv', sysv: sysv(5) }), shm(2, { origin: 'sysv', sysv: sysv(5) })),
      /memory 5 is defined twice/,
    ],
    [
      'one key twice',
      before(
        'mm',
        shm(1, { origin: 'sysv', sysv: sysv(5, 7) }),
        shm(2, { origin: 'sysv', sysv: sysv(6, 7) }),
      ),
      /the key 7 of another/,
    ],
    [
      'more attached than there is',
      withShm(
        shm(1, { origin: 'sysv', sysv: sysv(5) }),
        area({ kind: 'shm', shm: 1, offset: 4096n, shared: true }, 0x20000n, 2),
      ),
      /no part of the System V/,
    ],
    [
      'attached and private',
      withShm(shm(1, { origin: 'sysv', sysv: sysv(5) }), area({ kind: 'shm', shm: 1, offset: 0n })),
      /no part of the System V/,
    ],
    ['executable in nothing', withMeta('mm', { exeShm: 4 }), /shared memory 4/],
    [
      'executable in anonymous memory',
      withShm(shm(1, { origin: 'anonymous' }), withMeta('mm', { exeShm: 1 })),
      /no file/,
    ],
    [
      'signal 0',
      withMeta('handlers', { actions: [{ signal: 0, handler: 1n, flags: 0n, restorer: 0n, mask: 0n }] }),
      /signal 0/,
    ],
    ['odd page size', withMeta('hello', { pageSize: 1000 }), /1000/],
  ];
  for (const [name, image, message] of cases) {
    const found = failureOf(image);
    t.equal(found?.failure, 'damaged', `${name}: ${found?.message}`);
    t.match(found?.message ?? '', message, name);
    t.notMatch(found?.message ?? '', /\n/, name);
  }
});

t.test('more than a sane image has is exit 9', async (t) => {
  const cases: [string, r.Entry[]][] = [
    [
      'shared memory of petabytes',
      before('mm', { kind: 'shm', meta: { id: 1, size: 1n << 60n, origin: 'memfd' } }),
    ],
    ['an unlinked file of petabytes', before('fs', regular(5, { deleted: true, size: 1n << 60n }))],
    [
      'a descriptor beyond all',
      before('fs', { kind: 'fd-table', meta: { id: 2, entries: [{ fd: 0xffffffff, file: 1 }] } }),
    ],
  ];
  for (const [name, image] of cases) t.equal(failureOf(image)?.failure, 'limit', name);
});

t.test('a checker fed without HELLO, or with a layer', async (t) => {
  const checker = new ReferenceChecker();
  t.throws(() => checker.end(), { name: 'PodError', failure: 'damaged' });
  t.throws(() => r.checkReferences(streamBytes({ layer: 'compress' })), {
    name: 'PodError',
    failure: 'usage',
    message: /layer compress/,
  });
});

t.test('a million areas cost little, the next ones are refused', async (t) => {
  const many = (function* () {
    yield* [r.hello('2.6'), r.pod(), r.tree(r.treeEntry(2))];
    for (let id = 1; ; id++) {
      yield r.mm(id);
      for (let at = 0; at < 64; at++) {
        const list = Array.from({ length: 256 }, (_each, n) =>
          r.anonymous(BigInt((at * 256 + n) * 2 + 16) << 12n, 1),
        );
        yield { kind: 'areas', meta: { mm: id, areas: list } } as r.Entry;
      }
    }
  })();
  const checker = new ReferenceChecker();
  const feed = new StreamParser({ frame: (frame) => checker.frame(frame), end() {}, abort() {} });
  const { StreamWriter } = await import('../../lib/stream/stream-writer.ts');
  const { kinds } = await import('../../lib/stream/kind.ts');
  const writer = new StreamWriter(feed);
  global.gc?.();
  const start = process.memoryUsage().rss;
  t.throws(
    () => {
      for (const { kind, meta } of many) writer.record(kinds[kind as KindName], meta);
    },
    { name: 'PodError', failure: 'limit', message: /areas/ },
  );
  t.ok(process.memoryUsage().rss - start < 120 << 20, 'in bounded memory');
});
