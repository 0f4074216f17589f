import t from 'tap';
import { decodeMeta, encodeMeta } from '../../lib/stream/meta.ts';

t.test('what is encoded comes back', async (t) => {
  const meta = {
    a: 1,
    b: -5,
    c: 2n ** 63n,
    d: [1n, -1n],
    e: 'é',
    f: new Uint8Array([1, 2]),
    g: null,
    h: { i: true },
  };
  const back = decodeMeta(encodeMeta(meta));
  t.strictSame({ ...back, f: undefined }, { ...meta, f: undefined });
  t.ok(Buffer.from(back['f'] as Uint8Array).equals(Buffer.from([1, 2])));
});

t.test('64-bit integers are nine bytes both ways', async (t) => {
  t.equal(Buffer.from(encodeMeta({ a: 1n })).toString('hex'), '81a161d30000000000000001');
  t.equal(Buffer.from(encodeMeta({ a: 2n ** 63n })).toString('hex'), '81a161cf8000000000000000');
  t.strictSame(decodeMeta(Buffer.from('81a161cf0000000000000001', 'hex')), { a: 1n });
  t.strictSame(decodeMeta(Buffer.from('81a16101', 'hex')), { a: 1 });
});

t.test('a view into a larger buffer is read exactly', async (t) => {
  const meta = encodeMeta({ text: 'x'.repeat(100), list: ['abc', 'def'] });
  const around = new Uint8Array(meta.length + 200).fill(0xc1);
  around.set(meta, 100);
  const view = around.subarray(100, 100 + meta.length);
  t.strictSame(decodeMeta(view), { text: 'x'.repeat(100), list: ['abc', 'def'] });
});

t.test('decoded bytes do not hold on to the buffer they came from', async (t) => {
  const meta = encodeMeta({ bin: new Uint8Array([1, 2, 3]) });
  const shared = new Uint8Array(1 << 20);
  shared.set(meta);
  const { bin } = decodeMeta(shared.subarray(0, meta.length)) as { bin: Uint8Array };
  shared.fill(0xff);
  t.strictSame([...bin], [1, 2, 3]);
});

t.test('no bytes are the empty map; keys of Object.prototype are plain keys', async (t) => {
  t.strictSame(decodeMeta(new Uint8Array(0)), {});
  const odd = decodeMeta(encodeMeta({ constructor: 1, toString: 2, hasOwnProperty: 3 }));
  t.strictSame(Object.keys(odd), ['constructor', 'toString', 'hasOwnProperty']);
});

t.test('what is not lawful is damaged', async (t) => {
  for (const hex of ['90', '8101', '80c0', '81a161c1', '81a161d4724091a16101', '82a16101a16102']) {
    t.throws(() => decodeMeta(Buffer.from(hex, 'hex')), /a record cannot be read/);
  }
});

t.test('fields that are undefined are left out', async (t) => {
  const meta = encodeMeta({ a: 1, b: undefined, c: { d: undefined, e: 2 } });
  t.strictSame(decodeMeta(meta), { a: 1, c: { e: 2 } });
  t.equal(Buffer.from(meta).toString('hex'), Buffer.from(encodeMeta({ a: 1, c: { e: 2 } })).toString('hex'));
});
