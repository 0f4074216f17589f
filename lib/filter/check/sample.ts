/** Streams that the kit feeds to a filter: a small valid image, and what a hostile or careless sender makes of it. */
import type { Records } from '../../image/record.ts';
import type { Frame } from '../../stream/frame.ts';
import { greaseKinds, type KindName, kinds } from '../../stream/kind.ts';
import type { Sink } from '../../stream/sink.ts';
import { StreamParser } from '../../stream/stream-parser.ts';
import { StreamWriter } from '../../stream/stream-writer.ts';
import { watchFrames } from '../watch-frames.ts';

export const sampleId = '0123456789abcdef0123456789abcdef';
const unlimited = 0xffffffffffffffffn;
const heap = 0x10000n;
const frameSize = 256 << 10;

/** A key that no version knows: it has to survive in a record that is passed on. */
export const unknownKey = 'x-check';

export interface SampleOptions {
  /** Bytes of memory; default 32 KiB. */
  size?: number;
  /** Add a frame of this unknown kind. */
  unknown?: { kind: number; flags: number };
}

export const greaseKind = greaseKinds.first;
/** A kind that will never be known, as critical. */
export const alienKind = 200;

/** Push a whole image into a sink. */
export function writeSample(sink: Sink, options: SampleOptions = {}): void {
  const { size = 32 << 10 } = options;
  const writer = new StreamWriter(sink);
  const record = <Name extends KindName & keyof Records>(name: Name, meta: Records[Name]): void =>
    writer.record(kinds[name], meta);
  record('hello', {
    producer: 'pod-filter-check/1',
    engine: 'user',
    kernel: '6.1.0',
    semantics: '2.6',
    arch: 'x86_64',
    pageSize: 4096,
    cpuFeatures: ['fpu'],
    clocks: { realtimeNs: 1_700_000_000_000_000_000n, monotonicNs: 1n, boottimeNs: 1n },
    pod: 'sample',
    imageId: sampleId,
    requires: [],
    history: [],
    [unknownKey]: 'kept',
  } as Records['hello']);
  record('pod', { name: 'sample', hostname: 'pod', domainname: '', root: '/', rooted: false, init: true });
  record('tree', {
    processes: [{ pid: 2, ppid: 0, pgid: 2, sid: 2, state: 'alive', comm: 'sample', exitSignal: 17 }],
  });
  if (options.unknown) {
    writer.record(
      options.unknown.kind,
      { anything: [1, 'two'] },
      Buffer.from('unknown'),
      options.unknown.flags,
    );
  }
  record('mm', {
    id: 1,
    startCode: 0x400000n,
    endCode: 0x401000n,
    startData: heap,
    endData: heap,
    startBrk: heap,
    brk: heap + BigInt(size),
    startStack: 0x7ffff000n,
    argStart: 0x7ffff000n,
    argEnd: 0x7ffff010n,
    envStart: 0x7ffff010n,
    envEnd: 0x7ffff020n,
    auxv: new Uint8Array(16),
    exe: { path: '/usr/bin/sample', size: 4096n, mode: 0o100755 },
    dumpable: 1,
  });
  const file = { path: '/usr/bin/sample', size: 4096n, mode: 0o100755 };
  record('areas', {
    mm: 1,
    areas: [
      { start: heap, end: heap + BigInt(size), prot: 3, kind: 'anonymous', shared: false, heap: true },
      { start: 0x400000n, end: 0x401000n, prot: 5, kind: 'file', shared: false, offset: 0n, file },
    ],
  });
  record('device', { id: 1, path: '/dev/null', flags: 2, rdev: 0x103n, position: 0n });
  record('fd-table', { id: 1, entries: [0, 1, 2].map((fd) => ({ fd, file: 1 })) });
  record('fs', { id: 1, cwd: '/', root: '/', umask: 0o22 });
  record('handlers', { id: 1, actions: [] });
  record('process', {
    pid: 2,
    mm: 1,
    files: 1,
    fs: 1,
    handlers: 1,
    limits: Array.from({ length: 16 }, () => ({ soft: unlimited, hard: unlimited })),
    personality: 0,
  });
  record('thread', {
    pid: 2,
    tid: 2,
    comm: 'sample',
    registers: new Uint8Array(216),
    signalMask: 0n,
    credentials: {
      uids: [1000, 1000, 1000, 1000],
      gids: [1000, 1000, 1000, 1000],
      groups: [],
      inheritable: 0n,
      permitted: 0n,
      effective: 0n,
      bounding: 0n,
      ambient: 0n,
      securebits: 0,
      noNewPrivs: false,
    },
    scheduling: { policy: 0, nice: 0, priority: 0 },
  });
  const data = new Uint8Array(frameSize);
  let state = 1;
  for (let at = 0; at < size; at += frameSize) {
    const page = data.subarray(0, Math.min(frameSize, size - at));
    // Half noise, half zeros: neither a compressor nor a copier is favoured.
    for (let i = 0; i < page.length; i += 2) {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      page[i] = state >>> 24;
    }
    writer.record(kinds.pages, { mm: 1, addr: heap + BigInt(at) }, page);
  }
  writer.end();
}

/** A sink that keeps all. */
export class Collector implements Sink {
  readonly #chunks: Buffer[] = [];
  write(chunk: Uint8Array): void {
    this.#chunks.push(Buffer.from(chunk));
  }
  end(): void {}
  abort(): void {}
  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }
}

export function sample(options: SampleOptions = {}): Buffer {
  const collector = new Collector();
  writeSample(collector, options);
  return collector.bytes;
}

/** A stream whose maker failed: the sample's beginning and ERROR. */
export function failedSample(): Buffer {
  const collector = new Collector();
  const writer = new StreamWriter(collector);
  const { frames } = readStream(sample());
  for (const frame of frames.slice(0, 4)) writer.forward(frame);
  writer.record(kinds.error, { stage: 'pod-check', code: 11, message: 'made to fail', hint: 'none' });
  return collector.bytes;
}

export interface Reading {
  frames: Frame[];
  /** END was seen and checked, and nothing is behind it. */
  whole: boolean;
  /** Why it is not whole. */
  error: unknown;
}

/** Read a stream as far as it goes. */
export function readStream(bytes: Uint8Array): Reading {
  const frames: Frame[] = [];
  const parser = new StreamParser(
    watchFrames((frame) => frames.push(frame.copy())),
    { unknownCritical: true },
  );
  try {
    parser.write(bytes);
    parser.end();
    return { frames, whole: true, error: undefined };
  } catch (error) {
    return { frames, whole: false, error };
  }
}

/** Offsets where frames begin: all borders at which a stream may be cut. */
export function borders(bytes: Uint8Array): number[] {
  const found = [16];
  for (const { raw } of readStream(bytes).frames) found.push(found.at(-1)! + raw.length);
  return found.slice(0, -1);
}
