/**
 * Images that a stranger changed: every frame is whole and every checksum right, but what one record says is not.
 * Made from the dump of test/programs/epolls.c, a session of two processes, three threads and many open files.
 */
import type { KindName } from '../../lib/stream/kind.ts';
import type { Records } from '../../schemas/generated/types.ts';
import { anonymous, type Entry, registers, siginfo, treeEntry } from './records.ts';

export interface HostileImage {
  what: string;
  /**
   * How pod-restart may end. 6: the records do not fit together, seen before anything is made. 9: more than a sane
   * image has. 12: the kernel, or this machine, does not take it. 0 beside others: the kernel decides.
   */
  exits: readonly number[];
  /** What the message must name. */
  says?: RegExp;
  change(image: Entry[]): Entry[];
}

type Change = HostileImage['change'];
type Meta = Record<string, unknown>;

const isKind = (kind: KindName) => (entry: Entry) => entry.kind === kind;

/** The n-th record of a kind with fields changed, by value or from the old one. */
export function alter(kind: KindName, fields: Meta | ((meta: Meta) => Meta), nth = 0): Change {
  return (image) => {
    let seen = -1;
    return image.map((entry) => {
      if (entry.kind !== kind) return entry;
      seen += 1;
      if (seen !== nth) return entry;
      const change = typeof fields === 'function' ? fields(entry.meta) : fields;
      return { ...entry, meta: { ...entry.meta, ...change } };
    });
  };
}

/** The n-th record of a kind with other data. */
function alterData(kind: KindName, make: (data: Uint8Array) => Uint8Array, nth = 0): Change {
  return (image) => {
    let seen = -1;
    return image.map((entry) => {
      if (entry.kind === kind) seen += 1;
      return entry.kind === kind && seen === nth ? { ...entry, data: make(entry.data!) } : entry;
    });
  };
}

/** Records put before the first of a kind. */
export function before(kind: KindName, ...added: Entry[]): Change {
  return (image) => {
    const at = image.findIndex(isKind(kind));
    return [...image.slice(0, at), ...added, ...image.slice(at)];
  };
}

/** Records put behind the last of a kind. */
function behind(kind: KindName, make: (image: Entry[]) => Entry[]): Change {
  return (image) => {
    const at = image.findLastIndex(isKind(kind)) + 1;
    return [...image.slice(0, at), ...make(image), ...image.slice(at)];
  };
}

const both =
  (...changes: Change[]): Change =>
  (image) =>
    changes.reduce((changed, change) => change(changed), image);

const first = (image: readonly Entry[], kind: KindName): Entry => image.find(isKind(kind))!;
const doubled = (kind: KindName): Change => behind(kind, (image) => [first(image, kind)]);

/** Another executable for both processes, of which one inherits memory of the other. */
const program = (path: string): Change =>
  both(alter('mm', { exe: { path } }, 0), alter('mm', { exe: { path } }, 1));

type Area = Records['areas']['areas'][number];
type Table = Records['fd-table']['entries'];

/** The first address space's areas, changed as a list; it has more than one frame only when it is large. */
const areas = (change: (list: Area[]) => Area[]): Change =>
  alter('areas', (meta) => ({ areas: change(meta['areas'] as Area[]) }));
/** One more area below all others. */
const area = (more: Partial<Area>, start = 0x20000n, pages = 1): Change =>
  areas((list) => [anonymous(start, pages, more), ...list]);
/** One more descriptor, 900, in the first table. */
const descriptor = (file: number, fd = 900): Change =>
  alter('fd-table', (meta) => ({ entries: [...(meta['entries'] as Table), { fd, file }] }));
/** One more open file, which the first process has open. */
const open = (kind: KindName, meta: Meta, ...content: Entry[]): Change =>
  both((image) => {
    const at = image.findIndex(isKind('fd-table'));
    return [
      ...image.slice(0, at),
      { kind, meta: { id: 500, flags: 2, ...meta } },
      ...content,
      ...image.slice(at),
    ];
  }, descriptor(500));
/** 127.0.0.1 and a port, struct sockaddr_in. */
const port = (number: number) => Uint8Array.from([2, 0, 0, number, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
const tcp = (state: string): Meta => ({ family: 'ipv4', type: 'tcp', state });
const regular = (path: string, more: Meta = {}) => open('regular', { path, position: 0n, ...more });
const tree = (change: (list: Records['tree']['processes']) => Meta[]): Change =>
  alter('tree', (meta) => ({ processes: change(meta['processes'] as Records['tree']['processes']) }));
const thread = (fields: Meta | ((meta: Meta) => Meta)): Change => alter('thread', fields);
const credentials = (more: Meta): Change =>
  thread((meta) => ({ credentials: { ...(meta['credentials'] as Meta), ...more } }));
const timer = (more: Meta): Change =>
  alter('process', {
    timers: [
      {
        id: 0,
        clock: 1,
        notify: 1,
        signal: 10,
        value: 0n,
        valueNs: 10n ** 18n,
        intervalNs: 0n,
        overrun: 0,
        ...more,
      },
    ],
  });
const register = (values: Parameters<typeof registers>[0]): Change =>
  thread((meta) => {
    const bytes = new Uint8Array(meta['registers'] as Uint8Array);
    const given = registers(values);
    const words = new BigUint64Array(bytes.buffer);
    new BigUint64Array(given.buffer).forEach((word, index) => {
      if (word !== 0n) words[index] = word;
    });
    return { registers: bytes };
  });

const ipcOwner = { key: 0, mode: 0o600, uid: 0, gid: 0, cuid: 0, cgid: 0 };
const maxU64 = 0xffffffffffffffffn;
const kernelAddress = 0xffffffff81000000n;
const petabyte = 1n << 50n;
const O_CREAT = 0o100;
const O_TRUNC = 0o1000;

/** `absent` is a path that must not come into being; `socketFolder` a folder for the names of sockets. */
export function hostileImages(absent: string): HostileImage[] {
  const at = (name: string) => `${absent}${name}`;
  const damaged = (what: string, says: RegExp, change: Change): HostileImage => ({
    what,
    exits: [6],
    says,
    change,
  });
  const refused = (what: string, says: RegExp, change: Change): HostileImage => ({
    what,
    exits: [12],
    says,
    change,
  });
  const beyond = (what: string, says: RegExp, change: Change): HostileImage => ({
    what,
    exits: [9],
    says,
    change,
  });
  /** The kernel may take it: then it is a session like any other. */
  const open12 = (what: string, change: Change): HostileImage => ({ what, exits: [0, 12], change });

  return [
    // Ids that do not exist, or exist twice.
    damaged('a descriptor of no open file', /open file 77777/, descriptor(77777)),
    damaged(
      'a descriptor of a pipe instead of its end',
      /open file 500|pipe 500/,
      open('pipe', { capacity: 4096 }),
    ),
    damaged('a process without address space', /address space 777/, alter('process', { mm: 777 })),
    damaged('a process without descriptors', /descriptor table 777/, alter('process', { files: 777 })),
    damaged('a process without folder', /filesystem context 777/, alter('process', { fs: 777 })),
    damaged('a process without handlers', /handler table 777/, alter('process', { handlers: 777 })),
    damaged(
      'an area of no shared memory',
      /shared memory 7/,
      area({ kind: 'shm', shm: 7, offset: 0n, shared: true }),
    ),
    damaged('an inherited area of no base', /has no base/, area({ inherited: true })),
    damaged(
      'an inherited area that the base does not have',
      /inherits from \d+, which has no such area/,
      alter(
        'areas',
        ({ areas }) => ({
          areas: (areas as object[]).map((each) => ({ ...each, inherited: true, noReserve: true })),
        }),
        1,
      ),
    ),
    damaged(
      'an heir that runs another program',
      /runs another program/,
      alter('mm', ({ exe }) => ({ exe: { ...(exe as object), path: '/bin/true' } }), 1),
    ),
    damaged(
      'an area of no unlinked file',
      /open file 777/,
      area({ kind: 'file', offset: 0n, deletedFile: 777 }),
    ),
    damaged('a lock on memory', /locked and maps no file/, area({ flock: 'exclusive' })),
    damaged('an end of no pipe', /pipe 777/, open('pipe-end', { pipe: 777 })),
    damaged('an end of an eventfd', /pipe 9/, open('pipe-end', { pipe: 9 })),
    damaged(
      'content of no open file',
      /open file 777/,
      before('fd-table', { kind: 'content', meta: { file: 777 } }),
    ),
    damaged(
      'content of an eventfd',
      /open file 9/,
      before('fd-table', { kind: 'content', meta: { file: 9 } }),
    ),
    damaged(
      'a socket connected to nothing',
      /777/,
      open('unix-socket', { type: 'stream', state: 'pair', peer: 777 }),
    ),
    damaged(
      'a socket connected to itself',
      /itself/,
      open('unix-socket', { type: 'stream', state: 'pair', peer: 500 }),
    ),
    damaged(
      'a TCP connection to nothing',
      /777/,
      open('inet-socket', { ...tcp('connected'), address: port(1), peerAddress: port(2), peer: 777 }),
    ),
    damaged(
      'an internet address that is none',
      /address/,
      open('inet-socket', { ...tcp('listening'), address: new Uint8Array(28) }),
    ),
    damaged(
      'a TCP connection from nowhere',
      /address/,
      open('inet-socket', { ...tcp('connected'), peerClosed: true }),
    ),
    damaged(
      'a UDP socket that listens',
      /listening/,
      open('inet-socket', { ...tcp('listening'), type: 'udp', address: port(1) }),
    ),
    damaged(
      'a message from no socket',
      /open file 777/,
      open(
        'unix-socket',
        { type: 'dgram', state: 'unconnected', address: Buffer.from('\0pod-test-hostile') },
        { kind: 'content', meta: { file: 500, message: true, sender: 777 }, data: new Uint8Array(4) },
      ),
    ),
    damaged(
      'open files twice',
      /open file 9 is defined twice/,
      before('fd-table', { kind: 'eventfd', meta: { id: 9, flags: 2, count: 0n, semaphore: false } }),
    ),
    ...(['mm', 'fs', 'handlers', 'process'] as const).map((kind) =>
      damaged(`${kind} twice`, /twice|has no thread/, doubled(kind)),
    ),
    damaged('a descriptor twice', /out of order/, descriptor(9, 0)),
    damaged('a thread twice', /twice|does not follow/, doubled('thread')),

    // Cycles and trees that cannot be.
    damaged(
      'an epoll set that watches itself',
      /open file 500/,
      open('epoll', { entries: [{ fd: 900, file: 500, events: 1, data: 0n }] }),
    ),
    damaged(
      'two epoll sets that watch each other',
      /open file 501/,
      open(
        'epoll',
        { entries: [{ fd: 901, file: 501, events: 1, data: 0n }] },
        {
          kind: 'epoll',
          meta: { id: 501, flags: 2, entries: [{ fd: 900, file: 500, events: 1, data: 0n }] },
        },
      ),
    ),
    refused('epoll sets nested too deep', /epoll/, (image) =>
      both(
        before(
          'fd-table',
          ...Array.from({ length: 12 }, (_none, n) => ({
            kind: 'epoll' as const,
            meta: {
              id: 500 + n,
              flags: 2,
              entries: n === 0 ? [] : [{ fd: 899 + n, file: 499 + n, events: 1, data: 0n }],
            },
          })),
        ),
        ...Array.from({ length: 12 }, (_none, n) => descriptor(500 + n, 900 + n)),
      )(image),
    ),
    damaged(
      'a process that is its own parent',
      /parent 2/,
      tree((list) => [{ ...list[0]!, ppid: 2 }, list[1]!]),
    ),
    damaged(
      'two processes that are each other’s parent',
      /parent 3/,
      tree((list) => [{ ...list[0]!, ppid: 3 }, list[1]!]),
    ),
    damaged(
      'a child before its parent',
      /parent 2/,
      tree((list) => [list[1]!, list[0]!]),
    ),
    damaged(
      'a child of a zombie',
      /zombie/,
      tree((list) => [
        ...list,
        { ...list[1]!, pid: 8, state: 'zombie' },
        { ...list[1]!, pid: 9, ppid: 8, state: 'zombie' },
      ]),
    ),
    damaged(
      'a process twice',
      /twice/,
      tree((list) => [...list, list[1]!]),
    ),
    damaged('only zombies', /./, (image) =>
      both(
        tree((list) => list.map((each) => ({ ...each, state: 'zombie' }))),
        (all) => all.filter(({ kind }) => kind !== 'process' && kind !== 'thread'),
      )(image),
    ),
    damaged(
      'pid 0',
      /pid/,
      tree((list) => [list[0]!, { ...list[1]!, pid: 0 }]),
    ),
    damaged(
      'a negative pid',
      /pid/,
      tree((list) => [list[0]!, { ...list[1]!, pid: -3 }]),
    ),
    damaged(
      'pid 2^31',
      /pid/,
      tree((list) => [list[0]!, { ...list[1]!, pid: 2 ** 31 }]),
    ),
    damaged(
      'a thread with the id of a process',
      /process/,
      thread((meta) => ({ tid: meta['tid'] === 2 ? 3 : 2 })),
    ),
    refused(
      'pid 1',
      /pid 1/,
      tree((list) => [...list, treeEntry(1, { ppid: 2, pgid: 2, sid: 2, state: 'zombie' })]),
    ),
    {
      what: 'a session led by pid 1',
      // Who inherits memory of its parent was forked by it in its session.
      exits: [6, 12],
      change: tree((list) => list.map((each) => ({ ...each, sid: 1, pgid: 1 }))),
    },
    {
      what: 'the highest pid',
      exits: [0, 12],
      change: tree((list) => [...list, treeEntry(4194304, { ppid: 2, pgid: 2, sid: 2, state: 'zombie' })]),
    },

    // Memory.
    damaged(
      'areas that overlap',
      /overlaps/,
      areas((list) => [list[0]!, { ...list[0]! }, ...list.slice(1)]),
    ),
    damaged(
      'areas upside down',
      /out of order/,
      areas((list) => [...list].reverse()),
    ),
    damaged('an area that ends before it starts', /ends before/, area({ end: 0x10000n })),
    damaged(
      'an area of the kernel',
      /outside user memory/,
      area({ start: kernelAddress, end: kernelAddress + 0x1000n }),
    ),
    damaged(
      'an area at no canonical address',
      /outside user memory/,
      area({ start: 1n << 50n, end: (1n << 50n) + 0x1000n }),
    ),
    damaged('an area of a petabyte', /outside user memory|overlaps/, area({ end: petabyte })),
    damaged('an area off the page', /aligned/, area({ start: 0x20010n, end: 0x21010n })),
    refused(
      'an area of 64 TiB',
      /memory/,
      areas((list) => [anonymous(0x20000n, 1, { end: 1n << 46n }), ...list]),
    ),
    refused(
      'memory locked beyond what the machine has',
      /memory/,
      areas((list) => [anonymous(0x100000000n, 1 << 30, { noReserve: true, locked: true }), ...list]),
    ),
    beyond(
      'shared memory of a petabyte',
      /shared memory/,
      before('mm', { kind: 'shm', meta: { id: 70, size: petabyte, origin: 'anonymous' } }),
    ),
    damaged(
      'a file mapped at a petabyte and a byte',
      /offset/,
      area({ kind: 'file', offset: petabyte + 1n, file: { path: '/bin/sh' } }),
    ),
    refused(
      'a program of a petabyte',
      /bytes expected/,
      alter('mm', (meta) => ({ exe: { ...(meta['exe'] as Meta), size: petabyte } })),
    ),
    refused('a session that needs a petabyte', /memory/, alter('hello', { memory: petabyte })),
    damaged('pages outside of all areas', /outside/, alter('pages', { addr: 0x30000n })),
    damaged('pages in the kernel', /outside|whole/, alter('pages', { addr: kernelAddress })),
    damaged(
      'pages off the page',
      /whole pages/,
      alter('pages', (meta) => ({ addr: (meta['addr'] as bigint) + 8n })),
    ),
    damaged('pages of nothing', /./, alter('pages', { mm: 777 })),
    damaged('pages of shared memory and of an address space', /both/, alter('pages', { shm: 0 })),
    damaged(
      'half a page',
      /whole pages/,
      alterData('pages', (data) => data.subarray(0, 100)),
    ),
    damaged(
      'a record behind the memory',
      /comes after/,
      behind('pages', (image) => [first(image, 'fs')]),
    ),
    damaged('a heap upside down', /heap/, alter('mm', { brk: 0n, startBrk: 0x1000n })),
    damaged('a stack in the kernel', /stack/, alter('mm', { startStack: kernelAddress })),
    damaged('half an auxiliary vector', /auxiliary/, alter('mm', { auxv: new Uint8Array(13) })),
    open12('an auxiliary vector that is too long', alter('mm', { auxv: new Uint8Array(4096) })),
    damaged(
      'a vdso of a petabyte',
      /outside/,
      alter('mm', (meta) => ({ vdso: { ...(meta['vdso'] as Meta), size: petabyte } })),
    ),
    damaged(
      'a vdso in the kernel',
      /outside/,
      alter('mm', (meta) => ({ vdso: { ...(meta['vdso'] as Meta), start: kernelAddress } })),
    ),
    {
      what: 'a vdso where the builder works',
      exits: [0, 6, 12],
      change: both(
        alter('mm', (meta) => {
          const vdso = meta['vdso'] as Records['mm']['vdso'] & object;
          const start = 0x10100000n + vdso.vvarSize;
          return { vdso: { ...vdso, start, vvarStart: 0x10100000n } };
        }),
        areas((list) => list.filter(({ kind }) => kind !== 'vdso' && kind !== 'vvar')),
      ),
    },

    // Paths.
    ...['/usr/../etc/passwd', '/..', '/a/..', 'etc/passwd', ''].flatMap((path) => [
      damaged(`the executable ${JSON.stringify(path)}`, /./, alter('mm', { exe: { path } })),
      damaged(`an area of ${JSON.stringify(path)}`, /./, area({ kind: 'file', offset: 0n, file: { path } })),
      damaged(`a file ${JSON.stringify(path)}`, /./, regular(path)),
    ]),
    damaged('a working directory with ..', /'\.\.'/, alter('fs', { cwd: '/tmp/../etc' })),
    damaged('a root with ..', /'\.\.'/, alter('fs', { root: '/tmp/..' })),
    damaged('a NUL in a path', /./, regular('/etc/passwd\0.png')),
    damaged('a NUL in a working directory', /./, alter('fs', { cwd: '/tmp\0' })),
    damaged(
      'a socket named with ..',
      /'\.\.'/,
      open('unix-socket', { type: 'stream', state: 'listening', address: Buffer.from('/tmp/../x') }),
    ),
    damaged(
      'a socket named from a folder with ..',
      /'\.\.'/,
      open('unix-socket', {
        type: 'stream',
        state: 'listening',
        address: Buffer.from('x'),
        folder: '/tmp/../tmp',
      }),
    ),
    refused('a file to be made', /not there/, regular(at('made'), { flags: O_CREAT | O_TRUNC | 2 })),
    refused('a file that is a folder', /folder/, regular('/tmp')),
    refused('a file that is a device', /device/, regular('/dev/zero')),
    refused(
      'a file of a petabyte',
      /had \d+ bytes/,
      regular('/etc/passwd', { flags: 0, size: petabyte, position: petabyte }),
    ),
    refused('an unlinked file', /deleted/, regular('/tmp/x', { deleted: true, size: 0n })),
    beyond(
      'an unlinked file of a petabyte',
      /unlinked file/,
      regular('/tmp/x', { deleted: true, size: petabyte }),
    ),
    refused('a program that is not there', /is not here/, program('/nowhere/at/all')),
    refused(
      'a path that commands the terminal',
      /^[^\x00-\x1f]*\n?/,
      program('/nowhere\n\x1b[2Jpod-restart: hint: run rm'),
    ),
    refused('a pod named ../../x', /name/, alter('hello', { pod: '../../x' })),
    refused('a pod without a name', /name/, alter('hello', { pod: '' })),
    refused('a root of its own', /root/, alter('pod', { rooted: true })),

    // Devices and other open files.
    refused(
      'the memory of the machine',
      /device 1:1/,
      open('device', { path: '/dev/mem', rdev: 0x101n, position: 0n }),
    ),
    refused(
      'a disk',
      /device/,
      open('device', { path: '/dev/sda', rdev: 0x800n, position: 0n, block: true }),
    ),
    refused(
      'a device that is another',
      /device/,
      open('device', { path: '/dev/zero', rdev: 0x103n, position: 0n }),
    ),
    refused(
      'a device number beyond all',
      /device/,
      open('device', { path: '/dev/null', rdev: maxU64, position: 0n }),
    ),
    beyond('descriptor 2^31', /descriptor 2147483648/, descriptor(9, 2 ** 31)),
    refused('descriptor 2^24 - 1', /descriptor/, descriptor(9, 2 ** 24 - 1)),
    refused('an eventfd above its maximum', /./, open('eventfd', { count: maxU64, semaphore: false })),
    open12(
      'semaphores that a process gives more than there can be',
      before('fs', {
        kind: 'sysv-semaphores',
        meta: { ...ipcOwner, id: 32767, count: 1, undo: [{ pid: 2, number: 0, adjust: -32768 }] },
        data: Uint8Array.of(0xff, 0x7f),
      }),
    ),
    open12(
      'a message queue beyond all numbers',
      before('fs', {
        kind: 'sysv-queue',
        meta: { ...ipcOwner, id: 2147483647, capacity: maxU64, types: [1n], lengths: [1] },
        data: new Uint8Array(1),
      }),
    ),
    refused(
      'a seccomp filter that is none',
      /seccomp filter/,
      both(
        before('fs', { kind: 'seccomp', meta: { id: 1, program: new Uint8Array(16).fill(0xff) } }),
        thread({ seccomp: { filters: [1] } }),
      ),
    ),
    refused(
      'a group of no kernel',
      /group 4096/,
      open('netlink-socket', { type: 'raw', protocol: 'route', groups: [4096] }),
    ),
    refused(
      'a filter that is none',
      /filter/,
      open('netlink-socket', { type: 'raw', protocol: 'uevent', filter: new Uint8Array(20) }),
    ),
    refused('a descriptor of a process that is not', /process 4194303/, open('pidfd', { pid: 4194303 })),
    refused('a descriptor of no thread', /thread 4194303/, open('pidfd', { pid: 4194303, thread: true })),
    open12('a process that ended as none can', open('pidfd', { pid: 0, status: 0xffff_ffff })),
    damaged(
      'a descriptor of a process in a message',
      /pidfd 500/,
      open(
        'pidfd',
        { pid: 1 },
        { kind: 'unix-socket', meta: { id: 501, flags: 2, type: 'stream', state: 'unconnected' } },
        { kind: 'content', meta: { file: 501, rights: [500] }, data: new Uint8Array(1) },
      ),
    ),
    refused(
      'a timer of an unknown clock',
      /clock 99/,
      open('timerfd', { clock: 99, settimeFlags: 0, ticks: 0n, valueNs: 0n, intervalNs: 0n }),
    ),
    open12(
      'a timer with all ticks',
      open('timerfd', { clock: 1, settimeFlags: 0, ticks: maxU64, valueNs: 1n, intervalNs: 1n }),
    ),
    open12(
      'a timer at the end of time',
      open('timerfd', {
        clock: 0,
        settimeFlags: 3,
        ticks: 0n,
        valueNs: maxU64,
        intervalNs: maxU64,
        expiryNs: maxU64,
      }),
    ),
    damaged(
      'more in a pipe than it holds',
      /content/,
      open('pipe', { capacity: 8 }, { kind: 'content', meta: { file: 500 }, data: new Uint8Array(9) }),
    ),
    open12(
      'TCP connections whose ends do not fit together',
      both(
        before('fd-table', {
          kind: 'inet-socket',
          meta: {
            id: 501,
            flags: 2,
            ...tcp('connected'),
            address: port(7),
            peerAddress: port(8),
            peer: 500,
          },
        }),
        open('inet-socket', {
          ...tcp('connected'),
          family: 'ipv6',
          address: Uint8Array.from([
            10,
            0,
            0,
            9,
            ...new Array(4).fill(0),
            0x20,
            1,
            ...new Array(14).fill(1),
            0,
            0,
            0,
            0,
          ]),
          peerAddress: Uint8Array.from([10, 0, 0, 9, ...new Array(24).fill(0)]),
          peer: 501,
        }),
      ),
    ),
    open12(
      'options of a socket that make no sense',
      open('inet-socket', {
        ...tcp('unconnected'),
        options: [
          { level: 1, option: 7, value: new Uint8Array(1) },
          { level: 1, option: 15, value: new Uint8Array(0) },
          { level: 6, option: 13, value: new Uint8Array(64).fill(0xff) },
          { level: 200, option: 200, value: new Uint8Array(4) },
        ],
        groups: [],
      }),
    ),
    open12(
      'a TCP connection that is being made',
      open('inet-socket', { ...tcp('connecting'), peerAddress: port(1) }),
    ),
    refused(
      'a TCP connection that nobody accepts',
      /can't be made again/,
      open('inet-socket', { ...tcp('waiting'), peerAddress: port(1) }),
    ),
    open12(
      'a pipe of four gigabytes',
      both(
        before('fd-table', { kind: 'pipe', meta: { id: 510, capacity: 0xffffffff } }),
        open('pipe-end', { pipe: 510 }),
      ),
    ),
    open12(
      'an epoll entry of descriptor 2^31',
      alter('epoll', (meta) => ({
        entries: [...(meta['entries'] as Meta[]), { fd: 2 ** 31, file: 9, events: 1, data: 0n }],
      })),
    ),
    refused(
      'a watch on nothing',
      /watch/,
      open('inotify', { watches: [{ wd: 1, path: '/nowhere', mask: 1 }] }),
    ),
    open12(
      'the highest number of a watch',
      open('inotify', { watches: [{ wd: 2 ** 31 - 1, path: '/tmp', mask: 1 }] }),
    ),
    open12(
      'a socket with all options',
      open('unix-socket', {
        type: 'dgram',
        state: 'unconnected',
        sendBuffer: 0xffffffff,
        receiveBuffer: 0xffffffff,
        receiveTimeoutUs: maxU64,
        sendTimeoutUs: maxU64,
        peekOffset: 2 ** 31 - 1,
        backlog: 0xffffffff,
      }),
    ),
    open12('a pair without its other end', open('unix-socket', { type: 'stream', state: 'pair' })),

    // Processes and threads.
    refused('registers of the kernel', /./, register({ cs: 0x10n, ss: 0x18n })),
    open12('an instruction pointer in the kernel', register({ rip: kernelAddress })),
    open12('an instruction pointer at no canonical address', register({ rip: 1n << 52n })),
    open12('a stack pointer in the kernel', register({ rsp: kernelAddress })),
    open12('data segments of the kernel', register({ ds: 0x18n, es: 0x18n, fs: 0x18n, gs: 0x18n })),
    open12('all flags', (image) =>
      thread((meta) => {
        const words = new BigUint64Array(new Uint8Array(meta['registers'] as Uint8Array).buffer);
        words[18] = maxU64;
        return { registers: new Uint8Array(words.buffer) };
      })(image),
    ),
    open12('thread-local storage in the kernel', (image) =>
      thread((meta) => {
        const words = new BigUint64Array(new Uint8Array(meta['registers'] as Uint8Array).buffer);
        words[21] = kernelAddress;
        words[22] = kernelAddress;
        return { registers: new Uint8Array(words.buffer) };
      })(image),
    ),
    damaged('too few registers', /registers/, thread({ registers: new Uint8Array(8) })),
    ...[0, 1, 511, 513, 519, 575].map((size) =>
      damaged(
        `${size} bytes of extended registers`,
        /extended registers/,
        alterData('thread', (data) => data.slice(0, size)),
      ),
    ),
    open12(
      'a bit more of extended registers',
      alterData('thread', (data) => Buffer.concat([data, new Uint8Array(64)])),
    ),
    open12(
      'a megabyte of extended registers',
      alterData('thread', () => new Uint8Array(1 << 20)),
    ),
    open12(
      'extended registers of noise',
      alterData('thread', (data) => new Uint8Array(data.length).fill(0xa5)),
    ),
    refused(
      'a signal stack of no kind',
      /./,
      thread({ alternateStack: { address: kernelAddress, size: maxU64, flags: 0xffffffff } }),
    ),
    open12(
      'a signal stack in the kernel',
      thread({ alternateStack: { address: kernelAddress, size: 65536n, flags: 0 } }),
    ),
    refused(
      'a robust list of another size',
      /./,
      thread({ robustList: { head: kernelAddress, length: 25n } }),
    ),
    refused(
      'rseq in the kernel',
      /rseq/,
      thread({ rseq: { address: kernelAddress & ~31n, length: 32, signature: 1, flags: 0 } }),
    ),
    refused(
      'rseq off its place',
      /rseq/,
      thread({ rseq: { address: 0x20001n, length: 32, signature: 1, flags: 0 } }),
    ),
    damaged('three user ids', /credentials/, credentials({ uids: [0, 0, 0] })),
    damaged('no group ids', /credentials/, credentials({ gids: [] })),
    beyond(
      'groups by the thousand',
      /bytes of data/,
      credentials({ groups: Array.from({ length: 40000 }, () => 1) }),
    ),
    open12('all user ids taken', credentials({ uids: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff] })),
    open12(
      'every capability there never was',
      credentials({
        permitted: maxU64,
        effective: maxU64,
        inheritable: maxU64,
        ambient: maxU64,
        bounding: maxU64,
        securebits: 0xffffffff,
      }),
    ),
    damaged('a pending signal 0', /signal/, thread({ pending: [siginfo(0)] })),
    damaged('a pending signal 65', /signal/, thread({ pending: [siginfo(65)] })),
    damaged('a pending SIGKILL', /signal/, thread({ pending: [siginfo(9)] })),
    damaged('a pending SIGKILL of the process', /signal/, alter('process', { pending: [siginfo(9)] })),
    { what: 'a pending SIGSTOP', exits: [0, 6, 12], change: thread({ pending: [siginfo(19)] }) },
    open12(
      'a handler in the kernel',
      alter('handlers', {
        actions: [
          { signal: 10, handler: kernelAddress, flags: maxU64, restorer: kernelAddress, mask: maxU64 },
        ],
      }),
    ),
    damaged(
      'a handler of signal 0',
      /signal 0/,
      alter('handlers', { actions: [{ signal: 0, handler: 0n, flags: 0n, restorer: 0n, mask: 0n }] }),
    ),
    refused('a timer of no clock', /./, timer({ clock: 99 })),
    refused('a timer for no thread', /./, timer({ notify: 4, tid: 777 })),
    open12('a timer of no notice', timer({ notify: 7 })),
    refused('a timer of negative id', /timer/, timer({ id: -1 })),
    open12('the highest timer id', timer({ id: 2 ** 31 - 1 })),
    open12('a timer for ever', timer({ valueNs: maxU64, intervalNs: maxU64 })),
    open12(
      'an interval timer for ever',
      alter('process', { itimers: [{ which: 0, valueNs: maxU64, intervalNs: maxU64 }] }),
    ),
    open12(
      'no resources at all',
      alter('process', { limits: Array.from({ length: 16 }, () => ({ soft: 0n, hard: 0n })) }),
    ),
    open12(
      'limits upside down',
      alter('process', { limits: Array.from({ length: 16 }, () => ({ soft: maxU64, hard: 0n })) }),
    ),
    damaged(
      'two limits',
      /limits/,
      alter('process', {
        limits: [
          { soft: 0n, hard: 0n },
          { soft: 0n, hard: 0n },
        ],
      }),
    ),
    open12('every personality', alter('process', { personality: 0xffffffff })),
    open12(
      'a scheduling of no kind',
      thread({
        scheduling: {
          policy: 7,
          nice: -20,
          priority: 99,
          affinity: new Uint8Array(1024),
          ioprio: 0xffffffff,
          timerSlackNs: maxU64,
        },
      }),
    ),
    open12(
      'a thousand threads',
      behind('thread', (image) => {
        const last = image.findLast(isKind('thread'))!;
        return Array.from({ length: 1000 }, (_none, n) => ({
          ...last,
          meta: { ...last.meta, tid: 1000 + n },
        }));
      }),
    ),
    refused(
      'a processor that never was',
      /lacks/,
      alter('hello', { cpuFeatures: ['avx9000'].map(() => 'avx512_of_the_future') }),
    ),
    refused('another architecture', /riscv/, alter('hello', { arch: 'riscv64' })),
    damaged('2.4 semantics', /2\.4/, alter('hello', { semantics: '2.4' })),
    damaged('pages of 3 bytes', /pages of 3 bytes/, alter('hello', { pageSize: 3 })),
    damaged('pages of 64 KiB', /aligned/, alter('hello', { pageSize: 65536 })),
    refused('a kernel feature of the future', /telepathy/, alter('hello', { requires: ['telepathy'] })),
  ];
}
