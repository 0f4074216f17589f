/**
 * Writes test/vectors: streams kept for ever, right ones and one for each rule by which a reader must reject, each
 * with what every reader of every later version must find (class, frames handed on, SHA-256 of those frames).
 * What exists is never rewritten: an old stream that reads otherwise than it did is a broken reader.
 *
 *     node dist/esm/test/tools/make-vectors.js
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { maxData } from '../../lib/stream/frame.ts';
import { kinds } from '../../lib/stream/kind.ts';
import { packageRoot } from '../../native/package-root.ts';
import { type ForgedFrame, forge, goodPreamble } from './forge.ts';
import { streamBytes } from './make-stream.ts';
import { judge } from './read-vector.ts';

const imageId = '00112233445566778899aabbccddeeff';
const hello: ForgedFrame = {
  kind: kinds.hello,
  meta: {
    producer: 'vectors/1',
    engine: 'user',
    kernel: '6.1.0',
    semantics: '2.6',
    arch: 'x86_64',
    pageSize: 4096,
    cpuFeatures: ['sse2'],
    clocks: { realtimeNs: 1n, monotonicNs: 2n, boottimeNs: 3n },
    pod: 'vector',
    imageId,
    requires: [],
    history: [],
  },
};
const layer: ForgedFrame = {
  kind: kinds.layer,
  meta: { filter: 'compress', version: '1', params: {}, imageId },
};
const pipe: ForgedFrame = { kind: kinds.pipe, meta: { id: 1, capacity: 65536 } };
const content: ForgedFrame = { kind: kinds.content, meta: { file: 1 }, data: Buffer.from('hello, pipe\n') };
const data: ForgedFrame = { kind: kinds.data, data: Buffer.from('transformed bytes') };
const failure: ForgedFrame = {
  kind: kinds.error,
  meta: { stage: 'pod-dump', code: 11, message: 'cannot save descriptor 7', hint: 'close it' },
};
const small = forge({ frames: [hello, pipe, content] });
const bytesOf = (...values: number[]) => Uint8Array.from(values);
/** A map of one key `a` whose value are these bytes of msgpack. */
const metaWith = (...value: number[]) => bytesOf(0x81, 0xa1, 0x61, ...value);
/** A non-critical frame of a known kind, so that only its meta can be at fault. */
const withMeta = (meta: Uint8Array) => forge({ frames: [hello, { kind: kinds.pipe, meta }] });
const changed = (at: number, value: number) => {
  const bytes = Buffer.from(goodPreamble);
  bytes[at] = value;
  return bytes;
};

interface Vector {
  class: string;
  rule: string;
  bytes: Uint8Array;
}

const vectors: Record<string, Vector> = {
  // Right ones.
  'good-shortest': { class: 'done', rule: 'HELLO and END are a stream', bytes: forge({ frames: [hello] }) },
  'good-image': {
    class: 'done',
    rule: 'an image of one process',
    bytes: streamBytes({ size: 8192, seed: 11 }),
  },
  'good-image-2.4': {
    class: 'done',
    rule: 'an image of semantics 2.4',
    bytes: streamBytes({ size: 8192, seed: 12, semantics: '2.4' }),
  },
  'good-layer': { class: 'done', rule: 'a layer', bytes: forge({ frames: [layer, data, data] }) },
  'good-minor-version': {
    class: 'done',
    rule: 'a higher minor version is read',
    bytes: forge({ preamble: changed(10, 9), frames: [hello] }),
  },
  'good-unknown-kind': {
    class: 'done',
    rule: 'a frame of unknown kind that is not critical passes',
    bytes: forge({ frames: [hello, { kind: 230, flags: 0, meta: bytesOf(0xc1, 0xff), data: bytesOf(1) }] }),
  },
  'good-unknown-kind-in-layer': {
    class: 'done',
    rule: 'a frame of unknown kind that is not critical passes in a layer',
    bytes: forge({ frames: [layer, { kind: 224, flags: 0 }, data] }),
  },
  'good-unknown-key': {
    class: 'done',
    rule: 'unknown keys of a meta pass',
    bytes: forge({
      frames: [hello, { ...pipe, meta: { id: 1, capacity: 4096, later: [1, null, 'x', true] } }],
    }),
  },
  'good-empty-meta': {
    class: 'done',
    rule: 'a meta of no bytes is the empty map',
    bytes: forge({ frames: [layer, { ...data, meta: bytesOf() }] }),
  },
  'good-largest-data': {
    class: 'done',
    rule: 'a frame may carry 1 MiB of data',
    bytes: forge({ frames: [layer, { kind: kinds.data, data: new Uint8Array(maxData) }] }),
  },
  // The preamble.
  'foreign-text': { class: 'foreign', rule: 'the magic', bytes: Buffer.from('hello, world, this is text\n') },
  'foreign-png': {
    class: 'foreign',
    rule: 'the magic',
    bytes: Buffer.from(goodPreamble).fill('PNG', 1, 4),
  },
  'foreign-line-ends': {
    class: 'foreign',
    rule: 'the magic shows line ends that were turned on the way',
    bytes: Buffer.from(small.toString('latin1').replace('\r\n', '\n'), 'latin1'),
  },
  'truncated-empty': { class: 'truncated', rule: 'no bytes at all', bytes: bytesOf() },
  'truncated-preamble': { class: 'truncated', rule: 'end in the preamble', bytes: goodPreamble.slice(0, 10) },
  'truncated-no-frame': { class: 'truncated', rule: 'end behind the preamble', bytes: goodPreamble },
  'version-2': {
    class: 'version',
    rule: 'a higher major version',
    bytes: forge({ preamble: changed(8, 2), frames: [hello] }),
  },
  'damaged-version-0': {
    class: 'damaged',
    rule: 'major version 0',
    bytes: forge({ preamble: changed(8, 0), frames: [hello] }),
  },
  'damaged-preamble-reserved': {
    class: 'damaged',
    rule: 'the reserved field of the preamble is zero',
    bytes: forge({ preamble: changed(12, 1), frames: [hello] }),
  },
  // Frames.
  'truncated-in-header': { class: 'truncated', rule: 'end in a header', bytes: small.subarray(0, 16 + 9) },
  'truncated-in-body': { class: 'truncated', rule: 'end in a body', bytes: small.subarray(0, 16 + 60) },
  'truncated-before-end': {
    class: 'truncated',
    rule: 'end before END',
    bytes: forge({ frames: [hello, pipe, content], end: undefined }),
  },
  'truncated-last-byte': { class: 'truncated', rule: 'one byte missing', bytes: small.subarray(0, -1) },
  'damaged-header-crc': {
    class: 'damaged',
    rule: 'the CRC of the header',
    bytes: forge({ frames: [hello, { ...pipe, headerCrcXor: 1 }] }),
  },
  'damaged-body-crc': {
    class: 'damaged',
    rule: 'the CRC of the body',
    bytes: forge({ frames: [hello, { ...content, bodyCrcXor: 1 << 31 }] }),
  },
  'limit-data': {
    class: 'limit',
    rule: 'at most 1 MiB of data in a frame',
    bytes: forge({ frames: [hello, { ...content, claims: maxData + 1 }] }),
  },
  'limit-data-4-gib': {
    class: 'limit',
    rule: 'at most 1 MiB of data in a frame',
    bytes: forge({ frames: [hello, { ...content, claims: 0xffffffff }] }),
  },
  'damaged-flags': {
    class: 'damaged',
    rule: 'reserved flags are zero',
    bytes: forge({ frames: [hello, { ...pipe, flags: 3 }] }),
  },
  'damaged-lost-frame': {
    class: 'damaged',
    rule: 'sequence: a frame is missing',
    bytes: forge({ frames: [hello, { ...content, seq: 2 }] }),
  },
  'damaged-doubled-frame': {
    class: 'damaged',
    rule: 'sequence: a frame came twice',
    bytes: forge({ frames: [hello, pipe, { ...pipe, seq: 1 }] }),
  },
  'damaged-swapped-frames': {
    class: 'damaged',
    rule: 'sequence: frames changed places',
    bytes: forge({ frames: [hello, { ...content, seq: 2 }, { ...pipe, seq: 1 }] }),
  },
  // What follows what.
  'damaged-starts-with-record': {
    class: 'damaged',
    rule: 'the first frame is HELLO or LAYER',
    bytes: forge({ frames: [pipe] }),
  },
  'damaged-starts-with-end': {
    class: 'damaged',
    rule: 'the first frame is HELLO or LAYER',
    bytes: forge({ frames: [] }),
  },
  'damaged-second-hello': {
    class: 'damaged',
    rule: 'HELLO stands once',
    bytes: forge({ frames: [hello, hello] }),
  },
  'damaged-layer-behind-hello': {
    class: 'damaged',
    rule: 'LAYER stands first',
    bytes: forge({ frames: [hello, layer] }),
  },
  'damaged-data-in-image': {
    class: 'damaged',
    rule: 'DATA stand in layers only',
    bytes: forge({ frames: [hello, data] }),
  },
  'damaged-record-in-layer': {
    class: 'damaged',
    rule: 'a layer holds no records',
    bytes: forge({ frames: [layer, pipe] }),
  },
  'unknown-critical': {
    class: 'unknown-critical',
    rule: 'a critical frame of unknown kind',
    bytes: forge({ frames: [hello, { kind: 200, flags: 1 }] }),
  },
  // The end.
  'damaged-end-frames': {
    class: 'damaged',
    rule: 'END counts the frames',
    bytes: forge({
      frames: [hello, pipe],
      end: (right) => ({ ...right, meta: { ...right.meta, frames: 3n } }),
    }),
  },
  'damaged-end-bytes': {
    class: 'damaged',
    rule: 'END counts the bytes',
    bytes: forge({
      frames: [hello, pipe],
      end: (right) => ({ ...right, meta: { ...right.meta, bytes: 1n } }),
    }),
  },
  'damaged-end-crc': {
    class: 'damaged',
    rule: 'END sums up the CRCs',
    bytes: forge({ frames: [hello, pipe], end: (right) => ({ ...right, meta: { ...right.meta, crc: 0 } }) }),
  },
  'damaged-end-with-data': {
    class: 'damaged',
    rule: 'END carries no data',
    bytes: forge({ frames: [hello], end: (right) => ({ ...right, data: bytesOf(1) }) }),
  },
  'damaged-bytes-after-end': {
    class: 'damaged',
    rule: 'nothing behind END',
    bytes: forge({ frames: [hello], after: bytesOf(0) }),
  },
  'damaged-two-streams': {
    class: 'damaged',
    rule: 'nothing behind END',
    bytes: Buffer.concat([small, small]),
  },
  upstream: {
    class: 'upstream',
    rule: 'ERROR: an earlier stage failed',
    bytes: forge({ frames: [hello, pipe, failure], end: undefined }),
  },
  'upstream-alone': {
    class: 'upstream',
    rule: 'ERROR may be the only frame',
    bytes: forge({ frames: [failure], end: undefined }),
  },
  'damaged-bytes-after-error': {
    class: 'damaged',
    rule: 'nothing behind ERROR',
    bytes: forge({ frames: [hello, failure], end: (right) => right }),
  },
  // Metas.
  'damaged-meta-array': { class: 'damaged', rule: 'a meta is a map', bytes: withMeta(bytesOf(0x91, 1)) },
  'damaged-meta-cut': {
    class: 'damaged',
    rule: 'a meta is whole',
    bytes: withMeta(bytesOf(0x81, 0xa2, 0x69)),
  },
  'damaged-meta-trailing': {
    class: 'damaged',
    rule: 'nothing stands behind the map',
    bytes: withMeta(bytesOf(0x80, 0xc0)),
  },
  'damaged-meta-key': { class: 'damaged', rule: 'keys are strings', bytes: withMeta(bytesOf(0x81, 1, 1)) },
  'damaged-meta-doubled-key': {
    class: 'damaged',
    rule: 'a key stands once in a map',
    bytes: withMeta(bytesOf(0x82, 0xa1, 0x61, 1, 0xa1, 0x61, 2)),
  },
  'damaged-meta-proto': {
    class: 'damaged',
    rule: 'no key is __proto__',
    bytes: withMeta(Buffer.concat([bytesOf(0x81, 0xa9), Buffer.from('__proto__'), bytesOf(0x80)])),
  },
  'damaged-meta-extension': {
    class: 'damaged',
    rule: 'no extension types',
    bytes: withMeta(metaWith(0xd6, 0xff, 0, 0, 0, 0)),
  },
  'damaged-meta-record-extension': {
    class: 'damaged',
    rule: 'no extension types',
    bytes: withMeta(metaWith(0xd4, 0x72, 0x40, 0x91, 0xa1, 0x61, 1)),
  },
  'damaged-meta-never-used': { class: 'damaged', rule: 'no 0xc1', bytes: withMeta(metaWith(0xc1)) },
  'damaged-meta-huge-array': {
    class: 'damaged',
    rule: 'counts are true',
    bytes: withMeta(metaWith(0xdd, 0xff, 0xff, 0xff, 0xff)),
  },
  'damaged-meta-huge-map': {
    class: 'damaged',
    rule: 'counts are true',
    bytes: withMeta(metaWith(0xdf, 0xff, 0xff, 0xff, 0xff)),
  },
  'damaged-meta-huge-string': {
    class: 'damaged',
    rule: 'lengths are true',
    bytes: withMeta(metaWith(0xdb, 0xff, 0xff, 0xff, 0xff)),
  },
  'damaged-meta-deep': {
    class: 'damaged',
    rule: 'at most 16 containers inside each other',
    bytes: withMeta(metaWith(...new Array<number>(60_000).fill(0x91), 0xc0)),
  },
  'damaged-meta-text': { class: 'damaged', rule: 'strings are UTF-8', bytes: withMeta(metaWith(0xa1, 0xff)) },
  // Records against their schemas.
  'damaged-record-field-missing': {
    class: 'damaged',
    rule: 'required fields are there',
    bytes: forge({ frames: [hello, { ...pipe, meta: { id: 1 } }] }),
  },
  'damaged-record-field-type': {
    class: 'damaged',
    rule: 'fields have their type',
    bytes: forge({ frames: [hello, { ...pipe, meta: { id: 1, capacity: '65536' } }] }),
  },
  'damaged-record-small-u64': {
    class: 'damaged',
    rule: '64-bit fields take nine bytes',
    bytes: forge({ frames: [hello, { kind: kinds.pages, meta: { mm: 1, addr: 4096 } }] }),
  },
  'damaged-record-negative-id': {
    class: 'damaged',
    rule: 'fields lie in their range',
    bytes: forge({ frames: [hello, { ...pipe, meta: { id: -1, capacity: 65536 } }] }),
  },
  'damaged-record-nul-in-path': {
    class: 'damaged',
    rule: 'a path holds no NUL',
    bytes: forge({ frames: [hello, { ...pipe, meta: { id: 1, capacity: 65536, path: '/a\0b' } }] }),
  },
};

const folder = join(packageRoot(), 'test/vectors');
mkdirSync(folder, { recursive: true });
for (const [name, { class: expected, rule, bytes }] of Object.entries(vectors)) {
  const stream = join(folder, `${name}.pod`);
  const verdict = judge(bytes);
  if (verdict.class !== expected) {
    console.error(`${name}: expected ${expected}, found ${verdict.class}: ${verdict.message ?? ''}`);
    process.exitCode = 1;
    continue;
  }
  if (existsSync(stream)) continue;
  const { frames, released } = verdict;
  writeFileSync(stream, bytes);
  writeFileSync(
    join(folder, `${name}.json`),
    `${JSON.stringify({ rule, class: expected, frames, released }, null, 2)}\n`,
  );
  console.log(`${name}: written`);
}
