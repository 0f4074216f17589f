import t from 'tap';
import { readRecord } from '../../lib/image/record.ts';
import { type KindName, kindName } from '../../lib/stream/kind.ts';
import { StreamParser } from '../../lib/stream/stream-parser.ts';
import { makeStream, streamBytes } from './make-stream.ts';

function kindsOf(bytes: Uint8Array): KindName[] {
  const seen: KindName[] = [];
  let ended = false;
  const parser = new StreamParser({
    frame(frame) {
      const name = kindName(frame.kind)!;
      if (name !== 'data') readRecord(name, frame);
      seen.push(name);
    },
    end: () => (ended = true),
    abort: (cause) => {
      throw cause;
    },
  });
  parser.write(bytes);
  parser.end();
  t.ok(ended);
  return seen;
}

t.test('every record follows its schema, in the order of an image', async (t) => {
  for (const semantics of ['2.4', '2.6'] as const) {
    const seen = kindsOf(streamBytes({ size: 600_000, semantics }));
    t.same(
      [...new Set(seen)],
      [
        'hello',
        'pod',
        'tree',
        'mm',
        'areas',
        'device',
        'fd-table',
        'fs',
        'handlers',
        'process',
        'thread',
        'pages',
        'end',
      ],
    );
    t.equal(seen.filter((kind) => kind === 'pages').length, 3);
  }
});

t.test('a layer carries noise', async (t) => {
  t.same([...new Set(kindsOf(streamBytes({ layer: 'encrypt', size: 300_000 })))], ['layer', 'data', 'end']);
});

t.test('the same options give the same bytes, another seed others', async (t) => {
  t.same(streamBytes({ seed: 7 }), streamBytes({ seed: 7 }));
  t.notSame(streamBytes({ seed: 7 }), streamBytes({ seed: 8 }));
});

t.test('end() is passed on', async (t) => {
  let ended = 0;
  makeStream({ write: () => undefined, end: () => (ended += 1), abort: () => undefined });
  t.equal(ended, 1);
});
