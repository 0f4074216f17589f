/**
 * Synthetic streams of any size: valid by every schema, consistent in their references, the same bytes for the
 * same options. One process with one thread and one address space that holds all the pages.
 *
 *     node dist/esm/test/tools/make-stream.js --size 100M [--content random|text] [--seed 1] [--layer encrypt] > image
 *
 * `--layer NAME` writes a LAYER of that name whose DATA are noise: whole and well-formed for whoever only carries
 * it (pod-store, pod-load), not to be undone.
 */
import { pathToFileURL } from 'node:url';
import { DescriptorSink } from '../../lib/stream/descriptor.ts';
import { maxData } from '../../lib/stream/frame.ts';
import { type KindName, kinds } from '../../lib/stream/kind.ts';
import type { Sink } from '../../lib/stream/sink.ts';
import { StreamWriter } from '../../lib/stream/stream-writer.ts';
import type { Records } from '../../schemas/generated/types.ts';
import { usersCredentials } from './records.ts';

export interface StreamOptions {
  /** Bytes of memory pages (or of layer data), rounded up to whole pages. Default 64 KiB. */
  size?: number;
  /** What the pages hold: noise, or text that compresses about 3 to 1. Default random. */
  content?: 'random' | 'text';
  /** Default 1. The image id follows from it, unless given. */
  seed?: number;
  imageId?: string;
  semantics?: '2.4' | '2.6';
  /** Data bytes of a PAGES or DATA frame. Default 256 KiB. */
  frameSize?: number;
  /** Write a layer of this filter instead of an image. */
  layer?: string;
  /** Name of the pod. Default `synthetic`. */
  pod?: string;
}

const pageSize = 4096;
const unlimited = 0xffffffffffffffffn;

/** 32 hex digits that follow from a seed. */
export function imageIdOf(seed: number): string {
  return (seed >>> 0).toString(16).padStart(8, '0').repeat(4);
}

/** Push a whole stream, END and end() included, into a sink. */
export function makeStream(sink: Sink, options: StreamOptions = {}): void {
  const { size = 1 << 16, content = 'random', seed = 1, frameSize = 256 << 10, layer } = options;
  if (frameSize % pageSize !== 0 || frameSize > maxData) throw new RangeError(`frame size ${frameSize}`);
  const bytes = Math.ceil(size / pageSize) * pageSize;
  const writer = new StreamWriter(sink);
  const imageId = options.imageId ?? imageIdOf(seed);
  if (layer === undefined) writeImage(writer, { ...options, imageId }, bytes);
  else writer.record(kinds.layer, { filter: layer, version: '1', params: {}, imageId });

  const fill = content === 'text' ? fillText : fillRandom;
  const buffer = new Uint8Array(frameSize);
  let state = (seed * 2654435761) >>> 0 || 1;
  for (let at = 0; at < bytes; at += frameSize) {
    const data = buffer.subarray(0, Math.min(frameSize, bytes - at));
    state = fill(data, state);
    if (layer === undefined) record(writer, 'pages', { mm: 1, addr: heap + BigInt(at) }, data);
    else writer.record(kinds.data, {}, data);
  }
  writer.end();
  sink.end();
}

/** The whole stream in memory, for small ones. */
export function streamBytes(options: StreamOptions = {}): Buffer {
  const chunks: Buffer[] = [];
  makeStream(
    {
      write: (chunk) => void chunks.push(Buffer.from(chunk)),
      end: () => undefined,
      abort: (cause) => {
        throw cause;
      },
    },
    options,
  );
  return Buffer.concat(chunks);
}

function record<Name extends KindName & keyof Records>(
  writer: StreamWriter,
  name: Name,
  meta: Records[Name],
  data?: Uint8Array,
): void {
  writer.record(kinds[name], meta, data);
}

const text = 0x400000n;
const heap = 0x10000000n;
const stack = 0x7ffffffde000n;

function writeImage(writer: StreamWriter, options: StreamOptions & { imageId: string }, bytes: number): void {
  const { semantics = '2.6', pod = 'synthetic' } = options;
  const old = semantics === '2.4';
  record(writer, 'hello', {
    producer: 'make-stream/1',
    engine: 'user',
    kernel: old ? '2.4.37' : '6.1.0',
    semantics,
    arch: 'x86_64',
    pageSize,
    cpuFeatures: ['fpu', 'sse2'],
    clocks: {
      realtimeNs: 1_700_000_000_000_000_000n,
      monotonicNs: 1_000_000_000_000n,
      boottimeNs: 1_000_000_000_000n,
    },
    pod,
    imageId: options.imageId,
    requires: [],
    history: [],
  });
  record(writer, 'pod', { name: pod, hostname: 'pod', domainname: '', root: '/', rooted: false, init: true });
  record(writer, 'tree', {
    processes: [{ pid: 2, ppid: 0, pgid: 2, sid: 2, state: 'alive', comm: 'worker', exitSignal: 17 }],
  });
  record(writer, 'mm', {
    id: 1,
    startCode: text,
    endCode: text + 0x1000n,
    startData: heap,
    endData: heap,
    startBrk: heap,
    brk: heap + BigInt(bytes),
    startStack: stack + 0x1ff0n,
    argStart: stack + 0x1000n,
    argEnd: stack + 0x1010n,
    envStart: stack + 0x1010n,
    envEnd: stack + 0x1020n,
    auxv: new Uint8Array(16),
    exe: { path: '/usr/bin/worker', size: 4096n, mode: 0o100755 },
    dumpable: 1,
  });
  record(writer, 'areas', {
    mm: 1,
    areas: [
      {
        start: text,
        end: text + 0x1000n,
        prot: 5,
        kind: 'file',
        shared: false,
        offset: 0n,
        file: { path: '/usr/bin/worker', size: 4096n, mode: 0o100755 },
      },
      {
        start: heap,
        end: heap + BigInt(Math.max(bytes, pageSize)),
        prot: 3,
        kind: 'anonymous',
        shared: false,
        heap: true,
      },
      {
        start: stack,
        end: stack + 0x2000n,
        prot: 3,
        kind: 'anonymous',
        shared: false,
        growsDown: true,
        stack: true,
      },
    ],
  });
  record(writer, 'device', {
    id: 1,
    path: '/dev/null',
    flags: 0o2,
    rdev: old ? 0x0103n : 0x103n,
    position: 0n,
  });
  record(writer, 'fd-table', { id: 1, entries: [0, 1, 2].map((fd) => ({ fd, file: 1 })) });
  record(writer, 'fs', { id: 1, cwd: '/', root: '/', umask: 0o22 });
  record(writer, 'handlers', { id: 1, actions: [] });
  record(writer, 'process', {
    pid: 2,
    mm: 1,
    files: 1,
    fs: 1,
    handlers: 1,
    limits: Array.from({ length: old ? 11 : 16 }, () => ({ soft: unlimited, hard: unlimited })),
    personality: 0,
  });
  record(writer, 'thread', {
    pid: 2,
    tid: 2,
    comm: 'worker',
    registers: new Uint8Array(216),
    signalMask: 0n,
    credentials: usersCredentials,
    scheduling: { policy: 0, nice: 0, priority: 0, ...(old ? { counter: 10 } : {}) },
  });
}

/** xorshift32, one word at a time: 1 GB/s or so. Returns the state to go on with. */
function fillRandom(target: Uint8Array, seed: number): number {
  const words = new Uint32Array(target.buffer, target.byteOffset, target.length >>> 2);
  let state = seed;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return state >>> 0;
}

/** Words of 4 letters out of 4096: about what a heap full of strings is like. */
function fillText(target: Uint8Array, seed: number): number {
  const words = new Uint32Array(target.buffer, target.byteOffset, target.length >>> 2);
  let state = seed;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    const pick = state & 0xfff & ((state >>> 12) | 0x3f);
    words[i] = 0x20616161 + (pick & 0xf) + ((pick & 0xf0) << 4) + ((pick & 0xf00) << 8);
  }
  return state >>> 0;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { parseArgs } = await import('node:util');
  const { parseBytes } = await import('../../lib/cli/progress.ts');
  const { values } = parseArgs({
    options: {
      size: { type: 'string', default: '64k' },
      content: { type: 'string', default: 'random' },
      seed: { type: 'string', default: '1' },
      'image-id': { type: 'string' },
      semantics: { type: 'string', default: '2.6' },
      'frame-size': { type: 'string', default: '256k' },
      layer: { type: 'string' },
    },
  });
  const size = parseBytes(values.size);
  const frameSize = parseBytes(values['frame-size']);
  if (size === undefined || frameSize === undefined) throw new Error('sizes look like 64k, 100M, 2G');
  makeStream(new DescriptorSink(1), {
    size,
    frameSize,
    content: values.content as 'random' | 'text',
    seed: Number(values.seed),
    semantics: values.semantics as '2.4' | '2.6',
    ...(values['image-id'] === undefined ? {} : { imageId: values['image-id'] }),
    ...(values.layer === undefined ? {} : { layer: values.layer }),
  });
}
