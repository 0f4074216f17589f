/** Records for tests: an image as a list of entries, written and read as a whole. */
import { ReferenceChecker } from '../../lib/image/check-references.ts';
import { criticalFlag } from '../../lib/stream/frame.ts';
import { type KindName, kindName, kinds } from '../../lib/stream/kind.ts';
import type { Sink } from '../../lib/stream/sink.ts';
import { StreamParser } from '../../lib/stream/stream-parser.ts';
import { StreamWriter } from '../../lib/stream/stream-writer.ts';
import type { Records } from '../../schemas/generated/types.ts';

/** One frame: a known kind by name, any other by number. */
export interface Entry {
  kind: KindName | number;
  meta: Record<string, unknown>;
  data?: Uint8Array;
  flags?: number;
}

type Semantics = '2.4' | '2.6';

const unlimited = 0xffffffffffffffffn;
export const textAddress = 0x400000n;
export const heapAddress = 0x10000000n;
export const stackAddress = 0x7ffffffde000n;

export function entry<Name extends KindName & keyof Records>(
  kind: Name,
  meta: Records[Name],
  data?: Uint8Array,
): Entry {
  return { kind, meta: meta as unknown as Record<string, unknown>, ...(data ? { data } : {}) };
}

/** Whether the references of an image hold, as restart looks: throws what it says. */
export function checkReferences(bytes: Uint8Array): void {
  const checker = new ReferenceChecker();
  const parser = new StreamParser({
    frame: (frame) => checker.frame(frame),
    end: () => checker.end(),
    abort() {},
  });
  parser.write(bytes);
  parser.end();
}

/** The stream of entries, END included. */
export function writeImage(entries: readonly Entry[]): Buffer {
  const chunks: Buffer[] = [];
  const sink: Sink = { write: (chunk) => void chunks.push(Buffer.from(chunk)), end() {}, abort() {} };
  const writer = new StreamWriter(sink);
  for (const { kind, meta, data, flags } of entries)
    writer.record(typeof kind === 'number' ? kind : kinds[kind], meta, data, flags ?? criticalFlag);
  writer.end();
  return Buffer.concat(chunks);
}

/** The frames of a stream before END, each with its whole bytes. Throws what the parser throws. */
export function readImage(bytes: Uint8Array): (Entry & { raw: Buffer })[] {
  const entries: (Entry & { raw: Buffer })[] = [];
  const parser = new StreamParser({
    frame(frame) {
      if (frame.kind === kinds.end) return;
      const copy = frame.copy();
      entries.push({
        kind: kindName(frame.kind) ?? frame.kind,
        meta: copy.meta,
        data: copy.data,
        flags: frame.flags,
        raw: Buffer.from(copy.raw),
      });
    },
    end() {},
    abort() {},
  });
  parser.write(bytes);
  parser.end();
  return entries;
}

/** Metas of one kind. */
export function metasOf<Name extends KindName & keyof Records>(
  entries: readonly Entry[],
  kind: Name,
): Records[Name][] {
  return entries.filter((each) => each.kind === kind).map((each) => each.meta as unknown as Records[Name]);
}

/** The only meta of a kind. */
export function metaOf<Name extends KindName & keyof Records>(
  entries: readonly Entry[],
  kind: Name,
): Records[Name] {
  const [first, ...others] = metasOf(entries, kind);
  if (!first || others.length > 0) throw new Error(`${others.length + (first ? 1 : 0)} ${kind} records`);
  return first;
}

export function hello(semantics: Semantics, change: Partial<Records['hello']> = {}): Entry {
  return entry('hello', {
    producer: 'records/1',
    engine: 'user',
    kernel: semantics === '2.4' ? '2.4.37' : '6.1.0',
    semantics,
    arch: 'x86_64',
    pageSize: 4096,
    cpuFeatures: ['fpu'],
    clocks: { realtimeNs: 1n, monotonicNs: 2n, boottimeNs: 3n },
    pod: 'test',
    imageId: '00112233445566778899aabbccddeeff',
    requires: [],
    history: [],
    ...change,
  });
}

export function pod(): Entry {
  return entry('pod', {
    name: 'test',
    hostname: 'pod',
    domainname: '',
    root: '/',
    rooted: false,
    init: true,
  });
}

export type TreeEntry = Records['tree']['processes'][number];

export function treeEntry(pid: number, change: Partial<TreeEntry> = {}): TreeEntry {
  return { pid, ppid: 0, pgid: 2, sid: 2, state: 'alive', comm: 'worker', exitSignal: 17, ...change };
}

export function tree(...processes: TreeEntry[]): Entry {
  return entry('tree', { processes });
}

export type Area = Records['areas']['areas'][number];

export function anonymous(start: bigint, pages: number, change: Partial<Area> = {}): Area {
  return {
    start,
    end: start + BigInt(pages) * 0x1000n,
    prot: 3,
    kind: 'anonymous',
    shared: false,
    ...change,
  };
}

export function mm(id: number, change: Partial<Records['mm']> = {}): Entry {
  return entry('mm', {
    id,
    startCode: textAddress,
    endCode: textAddress + 0x1000n,
    startData: heapAddress,
    endData: heapAddress,
    startBrk: heapAddress,
    brk: heapAddress + 0x2000n,
    startStack: stackAddress + 0x1ff0n,
    argStart: stackAddress + 0x1000n,
    argEnd: stackAddress + 0x1010n,
    envStart: stackAddress + 0x1010n,
    envEnd: stackAddress + 0x1020n,
    auxv: auxv([6n, 4096n]),
    exe: { path: '/usr/bin/worker', size: 4096n, mode: 0o100755 },
    dumpable: 1,
    ...change,
  });
}

/** An auxiliary vector of u64 pairs, AT_NULL added. */
export function auxv(...pairs: [bigint, bigint][]): Uint8Array {
  return new Uint8Array(BigUint64Array.from([...pairs, [0n, 0n]].flat() as bigint[]).buffer);
}

/** Text, two pages of heap and two of stack. */
export function areas(id: number, change: Area[] = []): Entry {
  return entry('areas', {
    mm: id,
    areas: [
      {
        start: textAddress,
        end: textAddress + 0x1000n,
        prot: 5,
        kind: 'file',
        shared: false,
        offset: 0n,
        file: { path: '/usr/bin/worker', size: 4096n, mode: 0o100755 },
      },
      anonymous(heapAddress, 2, { heap: true }),
      ...change,
      anonymous(stackAddress, 2, { growsDown: true, stack: true }),
    ],
  });
}

export function device(id: number, change: Partial<Records['device']> = {}): Entry {
  return entry('device', { id, path: '/dev/null', flags: 2, rdev: 0x103n, position: 0n, ...change });
}

export function fdTable(id: number, ...files: number[]): Entry {
  return entry('fd-table', { id, entries: files.map((file, fd) => ({ fd, file })) });
}

export function fs(id: number, change: Partial<Records['fs']> = {}): Entry {
  return entry('fs', { id, cwd: '/', root: '/', umask: 0o22, ...change });
}

type Action = Records['handlers']['actions'][number];

export function handlers(id: number, ...actions: Partial<Action>[]): Entry {
  return entry('handlers', {
    id,
    actions: actions.map((action) => ({
      signal: 10,
      handler: 0x400100n,
      flags: 0x4000000n,
      restorer: 0x400200n,
      mask: 0n,
      ...action,
    })),
  });
}

export function limits(count: number): Records['process']['limits'] {
  return Array.from({ length: count }, (_each, index) => ({ soft: BigInt(index) + 100n, hard: unlimited }));
}

export function process_(semantics: Semantics, pid: number, change: Partial<Records['process']> = {}): Entry {
  return entry('process', {
    pid,
    mm: 1,
    files: 1,
    fs: 1,
    handlers: 1,
    limits: limits(semantics === '2.4' ? 11 : 16),
    personality: 0,
    ...change,
  });
}

/** Those of an ordinary user. */
export const usersCredentials: Records['thread']['credentials'] = {
  uids: [1000, 1000, 1000, 1000],
  gids: [1000, 1000, 1000, 1000],
  groups: [1000],
  inheritable: 0n,
  permitted: 0n,
  effective: 0n,
  bounding: 0x1ffffffffffn,
  ambient: 0n,
  securebits: 0,
  noNewPrivs: false,
};

export function thread(
  semantics: Semantics,
  pid: number,
  tid: number,
  change: Partial<Records['thread']> = {},
): Entry {
  return entry(
    'thread',
    {
      pid,
      tid,
      comm: `task-${tid}`,
      registers: registers({ cs: 0x33n, ss: 0x2bn }),
      signalMask: 0n,
      credentials: usersCredentials,
      scheduling: { policy: 0, nice: 0, priority: 0, ...(semantics === '2.4' ? { counter: tid } : {}) },
      ...change,
    },
    new Uint8Array(576).fill(tid & 0xff),
  );
}

const places = { rip: 16, cs: 17, rsp: 19, ss: 20, ds: 23, es: 24, fs: 25, gs: 26 };

/** struct user_regs_struct with some registers set. */
export function registers(values: Partial<Record<keyof typeof places, bigint>>): Uint8Array {
  const words = new BigUint64Array(27);
  for (const [name, value] of Object.entries(values)) words[places[name as keyof typeof places]] = value;
  return new Uint8Array(words.buffer);
}

export function readRegister(bytes: Uint8Array, name: keyof typeof places): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(places[name] * 8, true);
}

/** siginfo_t: si_signo, si_code, si_pid (kill, sigqueue), a mark at its end to tell equal ones apart. */
export function siginfo(signal: number, code = 0, sender = 0, mark = 0): Uint8Array {
  const bytes = new Uint8Array(128);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, signal, true);
  view.setInt32(8, code, true);
  view.setInt32(16, sender, true);
  view.setInt32(24, mark, true);
  return bytes;
}

export function pages(change: Partial<Records['pages']> = {}, count = 1): Entry {
  const data = new Uint8Array(count * 4096).fill(7);
  return entry('pages', { addr: heapAddress, mm: 1, ...change } as Records['pages'], data);
}

/** A whole image of one process; parts can be replaced. */
export function simpleImage(
  semantics: Semantics,
  parts: { hello?: Partial<Records['hello']> } = {},
): Entry[] {
  return [
    hello(semantics, parts.hello),
    pod(),
    tree(treeEntry(2)),
    mm(1),
    areas(1),
    device(1),
    fdTable(1, 1, 1, 1),
    fs(1),
    handlers(1),
    process_(semantics, 2),
    thread(semantics, 2, 2),
    pages(),
    pages({ addr: stackAddress }),
  ];
}
