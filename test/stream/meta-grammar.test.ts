import t from 'tap';
import { encodeMeta } from '../../lib/stream/meta.ts';
import { faultOfMeta, maxMetaDepth } from '../../lib/stream/meta-grammar.ts';
import { Random } from '../tools/random.ts';

const bytes = (...values: number[]) => Uint8Array.from(values);
const value = (...values: number[]) => Uint8Array.from([0x81, 0xa1, 0x61].concat(values));

t.test('takes all that encodeMeta makes', async (t) => {
  const meta = {
    nil: null,
    yes: true,
    no: false,
    small: [0, 1, -1, 127, 128, 255, 256, 65535, 65536, 4294967295, -32, -33, -128, -129, -32769],
    wide: [0n, 1n, -1n, 2n ** 64n - 1n, -(2n ** 63n)],
    real: [1.5, Math.PI, Number.POSITIVE_INFINITY],
    text: ['', 'a', 'x'.repeat(31), 'x'.repeat(32), 'é'.repeat(300), '漢字🎮', 'y'.repeat(40_000)],
    bin: [new Uint8Array(0), new Uint8Array(255), new Uint8Array(256)],
    list: Array.from({ length: 20 }, (_, index) => ({ index })),
    map: Object.fromEntries(Array.from({ length: 40 }, (_, index) => [`key${index}`, index])),
  };
  t.equal(faultOfMeta(encodeMeta(meta)), undefined);
  t.equal(faultOfMeta(bytes(0x80)), undefined);
  t.equal(faultOfMeta(bytes(0xde, 0, 0)), undefined);
  t.equal(faultOfMeta(value(0xca, 0, 0, 0, 0)), undefined);
});

t.test('names what it refuses', async (t) => {
  const cases: [Uint8Array, RegExp][] = [
    [bytes(), /empty/],
    [bytes(0x90), /not a msgpack map/],
    [bytes(0xc0), /not a msgpack map/],
    [bytes(0x81), /more elements than it has/],
    [bytes(0x81, 0xa1), /more elements|cut short/],
    [bytes(0x80, 0x80), /behind its map/],
    [bytes(0x81, 0x01, 0x01), /key is not a string/],
    [bytes(0x81, 0xc4, 0x01), /key is not a string/],
    [bytes(0x82, 0xa1, 0x61, 1, 0xd9, 1, 0x61, 1), /twice/],
    [value(0xc1), /0xc1/],
    ...[0xc7, 0xc8, 0xc9, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8].map((type): [Uint8Array, RegExp] => [
      value(type, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
      /not allowed/,
    ]),
    [value(0xdd, 0x7f, 0xff, 0xff, 0xff), /more elements/],
    [value(0xdf, 0, 0, 0, 2, 0xa1, 0x61), /more elements/],
    [value(0xc6, 0xff, 0xff, 0xff, 0xff), /cut short/],
    [value(0xcf, 0, 0, 0), /cut short/],
    [value(0xa2, 0xc3, 0x28), /not UTF-8/],
    // A surrogate half: some decoders let it pass.
    [value(0xa3, 0xed, 0xa0, 0x80), /not UTF-8/],
  ];
  for (const [meta, fault] of cases) t.match(faultOfMeta(meta), fault, Buffer.from(meta).toString('hex'));
});

t.test('depth is counted, never recursed into', async (t) => {
  const deep = (levels: number) =>
    Uint8Array.from([0x81, 0xa1, 0x61].concat(new Array(levels).fill(0x91), 0xc0));
  t.equal(faultOfMeta(deep(maxMetaDepth - 1)), undefined);
  t.match(faultOfMeta(deep(maxMetaDepth)), /nested deeper/);
  t.match(faultOfMeta(deep(65_000)), /nested deeper/);
});

t.test('time is bounded for the largest metas', async (t) => {
  // 64 KiB of the shortest elements, and a map of as many different keys as fit.
  const nils = new Uint8Array(65535).fill(0xc0);
  nils.set(value(0xdd, 0, 0, 0xff, 0xf0));
  const keys = Object.fromEntries(Array.from({ length: 9000 }, (_, index) => [`k${index}`, 1]));
  const from = process.hrtime.bigint();
  for (let i = 0; i < 20; i += 1) {
    faultOfMeta(nils);
    t.equal(faultOfMeta(encodeMeta(keys)), undefined);
  }
  const ms = Number(process.hrtime.bigint() - from) / 1e6;
  // Anything quadratic takes many minutes.
  t.ok(ms < 25_000, `${ms} ms`);
});

t.test('noise throws nothing', async (t) => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
  const random = new Random(seed);
  t.pass();
  for (let round = 0; round < 5000; round += 1) {
    const noise = Uint8Array.from({ length: 1 + random.below(60) }, () => random.below(256));
    noise[0] = 0x80 + random.below(16);
    try {
      faultOfMeta(noise);
    } catch (cause) {
      t.fail(`SEED=${seed} round ${round}: ${cause}`);
    }
  }
});
