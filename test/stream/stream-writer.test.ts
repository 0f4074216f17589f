import t from 'tap';
import { PodError, UpstreamError } from '../../lib/stream/error.ts';
import { maxData, maxMeta } from '../../lib/stream/frame.ts';
import { kinds } from '../../lib/stream/kind.ts';
import { StreamParser } from '../../lib/stream/stream-parser.ts';
import { StreamWriter } from '../../lib/stream/stream-writer.ts';
import { forge } from '../tools/forge.ts';
import { judge } from '../tools/read-vector.ts';

function collect() {
  const chunks: Buffer[] = [];
  return {
    sink: {
      write: (chunk: Uint8Array) => void chunks.push(Buffer.from(chunk)),
      end() {},
      abort() {},
    },
    bytes: () => Buffer.concat(chunks),
  };
}

t.test('writes the bytes that the specification gives', async (t) => {
  const out = collect();
  const writer = new StreamWriter(out.sink);
  t.ok(writer.untouched);
  writer.record(kinds.layer, { filter: 'compress', version: '1', params: {}, imageId: '0'.repeat(32) });
  writer.record(kinds.data, {}, Buffer.from('abc'));
  writer.end();
  t.ok(writer.finished);
  const frames = [
    { kind: kinds.layer, meta: { filter: 'compress', version: '1', params: {}, imageId: '0'.repeat(32) } },
    { kind: kinds.data, data: Buffer.from('abc') },
  ];
  t.ok(out.bytes().equals(forge({ frames })));
  t.equal(judge(out.bytes()).class, 'done');
});

t.test('forwarded frames change nothing but their number', async (t) => {
  const frames = [
    { kind: kinds.layer, meta: { filter: 'x', version: '1', params: {}, imageId: '0'.repeat(32) } },
    { kind: kinds.data, data: Buffer.from('one') },
    { kind: 230, flags: 0, meta: Uint8Array.of(1, 2, 3) },
    { kind: kinds.data, data: Buffer.from('two') },
  ];
  const out = collect();
  const writer = new StreamWriter(out.sink);
  const parser = new StreamParser({
    frame: (frame) => {
      // Leave one out: the rest is renumbered.
      if (frame.kind !== kinds.end && frame.seq !== 1) writer.forward(frame);
    },
    end: () => writer.end(),
    abort() {},
  });
  const input = forge({ frames });
  for (let at = 0; at < input.length; at += 7) parser.write(input.subarray(at, at + 7));
  parser.end();
  t.ok(out.bytes().equals(forge({ frames: frames.filter((_, index) => index !== 1) })));
});

t.test('ERROR carries the failure, and the first cause from upstream as it was', async (t) => {
  const report = (cause: PodError) => {
    const out = collect();
    new StreamWriter(out.sink).error('pod-filter compress', cause);
    const parser = new StreamParser({ frame() {}, end() {}, abort() {} });
    parser.write(out.bytes());
    try {
      parser.end();
    } catch (found) {
      return (found as UpstreamError).origin;
    }
    throw new Error('no error');
  };
  const own = report(new PodError('drive', 'two\nlines', 'a hint'));
  t.strictSame(own, { stage: 'pod-filter compress', code: 13, message: 'two?lines', hint: 'a hint' });
  const origin = { stage: 'pod-dump', code: 11, message: 'no way', hint: '' };
  t.strictSame(report(new UpstreamError(origin)), origin);
  t.equal(report(new PodError('other', 'x'.repeat(100_000))).message.length, 1025);
});

t.test('refuses what no reader would take', async (t) => {
  const writer = new StreamWriter(collect().sink);
  t.throws(() => writer.record(kinds.data, {}, new Uint8Array(maxData + 1)), RangeError);
  t.throws(() => writer.frame(kinds.data, 1, new Uint8Array(maxMeta + 1)), RangeError);
  t.ok(writer.untouched);
  writer.record(kinds.hello, {});
  writer.end();
  t.throws(() => writer.record(kinds.hello, {}), /after the end/);
});
