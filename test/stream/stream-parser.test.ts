import t from 'tap';
import { PodError, UpstreamError } from '../../lib/stream/error.ts';
import { maxData, maxFrame } from '../../lib/stream/frame.ts';
import { kinds } from '../../lib/stream/kind.ts';
import { StreamParser } from '../../lib/stream/stream-parser.ts';
import { forge, goodPreamble } from '../tools/forge.ts';
import { streamBytes } from '../tools/make-stream.ts';

const quiet = { frame() {}, end() {}, abort() {} };
const hello = { kind: kinds.hello };

function failureOf(body: () => unknown): PodError {
  try {
    body();
  } catch (cause) {
    if (cause instanceof PodError) return cause;
    throw cause;
  }
  throw new Error('nothing was thrown');
}

t.test('frames lying whole in a chunk are handed on as views of it', async (t) => {
  const bytes = streamBytes({ size: 1 << 20 });
  let views = 0;
  let frames = 0;
  const parser = new StreamParser({
    ...quiet,
    frame: (frame) => {
      frames += 1;
      if (frame.data.buffer === bytes.buffer) views += 1;
    },
  });
  parser.write(bytes);
  parser.end();
  t.ok(frames > 10);
  t.equal(views, frames);
});

t.test('what is handed on for a frame in pieces is the frame', async (t) => {
  const bytes = streamBytes({ size: 1 << 20, frameSize: maxData });
  const seen: Buffer[] = [];
  const parser = new StreamParser({
    ...quiet,
    frame: (frame) => void seen.push(Buffer.from(frame.copy().raw)),
  });
  for (let at = 0; at < bytes.length; at += 4099) parser.write(bytes.subarray(at, at + 4099));
  parser.end();
  t.ok(Buffer.concat([goodPreamble, ...seen]).equals(bytes));
});

t.test('memory is bounded by one frame, whatever sizes come in pieces', async (t) => {
  // Frames that grow by one byte each would make a buffer a frame if it were not grown by halves.
  const frames = [
    { kind: kinds.layer },
    ...Array.from({ length: 3000 }, (_, i) => ({ kind: kinds.data, data: new Uint8Array(i) })),
  ];
  const bytes = forge({ frames });
  const before = process.memoryUsage().arrayBuffers;
  const parser = new StreamParser(quiet);
  let most = 0;
  for (let at = 0; at < bytes.length; at += 1000) {
    parser.write(bytes.subarray(at, at + 1000));
    most = Math.max(most, process.memoryUsage().arrayBuffers - before);
  }
  parser.end();
  t.ok(most < 4 * maxFrame, `${most} bytes`);
});

t.test('a header that claims too much is refused before a byte of it is awaited', async (t) => {
  const bytes = forge({ frames: [hello, { kind: kinds.content, claims: 0xffffffff }], end: undefined });
  const parser = new StreamParser(quiet);
  const upToHeader = bytes.length - 5;
  const error = failureOf(() => parser.write(bytes.subarray(0, upToHeader)));
  t.equal(error.failure, 'limit');
});

t.test('a stream once found wrong stays wrong', async (t) => {
  const parser = new StreamParser(quiet);
  const first = failureOf(() => parser.write(Buffer.from('not a stream')));
  t.equal(first.failure, 'foreign');
  t.equal(
    failureOf(() => parser.write(goodPreamble)),
    first,
  );
  t.equal(
    failureOf(() => parser.end()),
    first,
  );
});

t.test('an error of the handler is passed on as it is, and sticks', async (t) => {
  const full = new PodError('drive', 'no space');
  const parser = new StreamParser({
    ...quiet,
    frame() {
      throw full;
    },
  });
  t.equal(
    failureOf(() => parser.write(forge({ frames: [hello] }))),
    full,
  );
  t.equal(
    failureOf(() => parser.end()),
    full,
  );
});

t.test('end() of the handler is called only behind END and end of file', async (t) => {
  let ended = 0;
  const bytes = forge({ frames: [hello] });
  const parser = new StreamParser({ ...quiet, end: () => void (ended += 1) });
  parser.write(bytes);
  t.equal(ended, 0);
  parser.end();
  t.equal(ended, 1);
});

t.test('unknown critical kinds pass where a stage only carries', async (t) => {
  const bytes = forge({ frames: [hello, { kind: 200 }] });
  t.equal(failureOf(() => new StreamParser(quiet).write(bytes)).exitCode, 8);
  const parser = new StreamParser(quiet, { unknownCritical: true });
  parser.write(bytes);
  parser.end();
});

t.test('ERROR names the first cause, without control characters, whatever it holds', async (t) => {
  const report = (meta: object) => {
    const parser = new StreamParser(quiet);
    parser.write(forge({ frames: [{ kind: kinds.error, meta }], end: undefined }));
    return failureOf(() => parser.end());
  };
  const error = report({ stage: 'pod-dump', code: 11, message: 'no \u001b[2Jway\n', hint: 'close \u202eit' });
  t.ok(error instanceof UpstreamError);
  t.equal(error.exitCode, 10);
  t.equal(error.message, 'upstream failed: pod-dump: no ?[2Jway?');
  t.equal(error.hint, 'close ?it');
  t.strictSame((error as UpstreamError).origin.code, 11);
  const odd = report({ stage: 7, code: 'x', message: null, hint: [] });
  t.equal(odd.message, 'upstream failed: an unnamed stage: no reason given');
  t.strictSame((odd as UpstreamError).origin.code, 1);
});

t.test('messages say what to do', async (t) => {
  for (const bytes of [
    goodPreamble.subarray(0, 0),
    goodPreamble,
    Buffer.from('%PDF'),
    forge({ frames: [{ kind: 16 }] }),
  ]) {
    const error = failureOf(() => {
      const parser = new StreamParser(quiet);
      parser.write(bytes);
      parser.end();
    });
    t.match(error.message, /^[a-z][^\n]*[^.\n]$/);
    t.ok(error.hint);
  }
});
