/** What the kit tries. A case returns what is wrong, or nothing. */
import { kinds } from '../../stream/kind.ts';
import type { FilterDescription } from '../describe.ts';
import { type Outcome, runProgram, runStalled } from './run-program.ts';
import {
  alienKind,
  borders,
  Collector,
  failedSample,
  greaseKind,
  readStream,
  sample,
  sampleId,
  unknownKey,
  writeSample,
} from './sample.ts';

/** The filter under test. */
export interface Subject {
  path: string;
  description: FilterDescription;
  /** Options in each direction. */
  forward: readonly string[];
  undo: readonly string[];
}

export interface Case {
  name: string;
  only?: 'map' | 'wrap';
  run(subject: Subject): Promise<string | undefined>;
}

const megabyte = 1 << 20;
const memoryBound = 150 * megabyte;

const forward = (subject: Subject, ...pieces: Uint8Array[]): Promise<Outcome> =>
  runProgram(subject.path, subject.forward, pieces);
const undo = (subject: Subject, ...pieces: Uint8Array[]): Promise<Outcome> =>
  runProgram(subject.path, ['--undo', ...subject.undo], pieces);

const ended = ({ status, signal, hung }: Outcome): string =>
  hung ? 'did not end' : status === undefined ? `was ended by ${signal}` : `ended with ${status}`;

/** A run that must go well. */
function good(outcome: Outcome, what: string): string | undefined {
  if (outcome.status !== 0) return `${what}: it ${ended(outcome)}: ${outcome.stderr.trim()}`;
  const { whole, error } = readStream(outcome.output);
  return whole ? undefined : `${what}: its output is not a whole stream: ${(error as Error).message}`;
}

/** A run on bad input: one of these exit statuses, and no output that could be taken for whole. */
function refused(outcome: Outcome, what: string, statuses: readonly number[]): string | undefined {
  if (outcome.status === undefined || !statuses.includes(outcome.status)) {
    return `${what}: it ${ended(outcome)}, expected ${statuses.join(' or ')}`;
  }
  return readStream(outcome.output).whole ? `${what}: it failed, but its output ends with END` : undefined;
}

/** What comes back of a wrap's output, or of a map's output itself: to be compared with what went in. */
async function result(subject: Subject, outcome: Outcome): Promise<Outcome> {
  return subject.description.class === 'map' ? outcome : undo(subject, outcome.output);
}

async function roundTrip(
  subject: Subject,
  what: string,
  pieces: Uint8Array[],
  expected: Uint8Array,
): Promise<string | undefined> {
  const out = await forward(subject, ...pieces);
  const bad = good(out, what);
  if (bad) return bad;
  const back = await result(subject, out);
  return (
    good(back, `${what}, undone`) ??
    (back.output.equals(expected) ? undefined : `${what}: other bytes came out`)
  );
}

/** Bytes as pieces of these lengths, in turn. */
function cut(bytes: Buffer, lengths: readonly number[]): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const length = lengths[turn % lengths.length]!;
    pieces.push(bytes.subarray(at, at + length));
    at += length;
  }
  return pieces;
}

async function first(results: AsyncIterable<string | undefined>): Promise<string | undefined> {
  for await (const each of results) if (each) return each;
  return undefined;
}

/** At most `count` of a list, spread over all of it. */
function spread<T>(list: readonly T[], count: number): T[] {
  const step = Math.max(1, list.length / count);
  return Array.from({ length: Math.min(count, list.length) }, (_, index) => list[Math.floor(index * step)]!);
}

const truncatedOr = [5];
const damagedOr = [3, 4, 5, 6, 8, 9, 10];

async function* cuts(
  bytes: Buffer,
  run: (part: Buffer) => Promise<Outcome>,
): AsyncGenerator<string | undefined> {
  const at = borders(bytes);
  for (const border of spread(at, 16)) {
    yield refused(await run(bytes.subarray(0, border)), `cut at byte ${border}, between frames`, truncatedOr);
  }
  for (const border of [1, 15, ...spread(at, 8).map((each) => each + 9), bytes.length - 1]) {
    yield refused(await run(bytes.subarray(0, border)), `cut at byte ${border}`, truncatedOr);
  }
}

async function* flips(
  bytes: Buffer,
  run: (part: Buffer) => Promise<Outcome>,
): AsyncGenerator<string | undefined> {
  for (const at of spread([...bytes.keys()], 24)) {
    // The minor version, bytes 10 and 11, may be any.
    if (at === 10 || at === 11) continue;
    const changed = Buffer.from(bytes);
    changed[at]! ^= 1 << (at % 8);
    yield refused(await run(changed), `bit ${at % 8} of byte ${at} flipped`, damagedOr);
  }
}

/** A frame's bytes without its number: what has to stay of a frame that is passed on. */
const body = (raw: Uint8Array): string => Buffer.from(raw.subarray(16)).toString('latin1');

export const cases: readonly Case[] = [
  {
    name: 'turns an image into a whole stream',
    async run(subject) {
      return good(await forward(subject, sample()), 'the sample');
    },
  },
  {
    name: 'writes itself into the history of the image',
    only: 'map',
    async run(subject) {
      const { frames } = readStream((await forward(subject, sample())).output);
      const history = frames[0]?.meta['history'] as { filter?: string; version?: string }[] | undefined;
      const last = Array.isArray(history) ? history.at(-1) : undefined;
      const { name, version } = subject.description;
      return last?.filter === name && last.version === version
        ? undefined
        : `HELLO.history ends with ${JSON.stringify(last)}, expected filter ${name}, version ${version}`;
    },
  },
  {
    name: 'keeps unknown keys of HELLO and the image id',
    only: 'map',
    async run(subject) {
      const { frames } = readStream((await forward(subject, sample())).output);
      const meta = frames[0]?.meta;
      return meta?.[unknownKey] === 'kept' && meta['imageId'] === sampleId ? undefined : 'they are gone';
    },
  },
  {
    name: 'writes a layer of its own name with the image id',
    only: 'wrap',
    async run(subject) {
      const { frames } = readStream((await forward(subject, sample())).output);
      const { filter, version, imageId } = frames[0]?.meta ?? {};
      const { name } = subject.description;
      if (frames[0]?.kind !== kinds.layer) return 'the first frame is not LAYER';
      if (filter !== name || version !== subject.description.version || imageId !== sampleId) {
        return `LAYER says ${JSON.stringify({ filter, version, imageId })}`;
      }
      return frames.slice(1, -1).some(({ kind }) => kind !== kinds.data)
        ? 'there are other frames than DATA between LAYER and END'
        : undefined;
    },
  },
  {
    name: 'gives back the very bytes it took',
    only: 'wrap',
    run: (subject) => roundTrip(subject, 'the sample', [sample()], sample()),
  },
  {
    name: 'wraps what is wrapped already',
    only: 'wrap',
    async run(subject) {
      const once = (await forward(subject, sample())).output;
      return roundTrip(subject, 'its own output', [once], once);
    },
  },
  {
    name: 'does not care how the input is cut into pieces',
    async run(subject) {
      const image = sample({ size: 4096 });
      const whole = await forward(subject, image);
      const expected = (await result(subject, whole)).output;
      const bad = good(whole, 'whole');
      if (bad) return bad;
      return first(
        (async function* () {
          yield roundTrip(subject, 'byte by byte', cut(image, [1]), expected);
          yield roundTrip(subject, 'in pieces of 7, 4096 and 13', cut(image, [7, 4096, 13]), expected);
          yield roundTrip(subject, 'cut at frames', cut(image, [16, 900]), expected);
          const large = sample({ size: 3 * megabyte });
          const out = await result(subject, await forward(subject, large));
          yield roundTrip(subject, '3 MiB in large pieces', cut(large, [megabyte, 100_003]), out.output);
        })(),
      );
    },
  },
  {
    name: 'undoing does not care how the input is cut into pieces',
    only: 'wrap',
    async run(subject) {
      const image = sample({ size: 4096 });
      const layer = (await forward(subject, image)).output;
      return first(
        (async function* () {
          for (const lengths of [[1], [7, 4096, 13]]) {
            const back = await undo(subject, ...cut(layer, lengths));
            const what = `pieces of ${lengths.join(', ')}`;
            yield good(back, what) ??
              (back.output.equals(image) ? undefined : `${what}: other bytes came out`);
          }
        })(),
      );
    },
  },
  {
    name: 'passes unknown frames that are not critical',
    async run(subject) {
      const image = sample({ unknown: { kind: greaseKind, flags: 0 } });
      const out = await forward(subject, image);
      const bad = good(out, `a frame of kind ${greaseKind}`);
      if (bad) return bad;
      const back = readStream((await result(subject, out)).output).frames.find(
        ({ kind }) => kind === greaseKind,
      );
      const sent = readStream(image).frames.find(({ kind }) => kind === greaseKind)!;
      return back && body(back.raw) === body(sent.raw) ? undefined : 'the frame is gone or changed';
    },
  },
  {
    name: 'refuses unknown frames that are critical',
    only: 'map',
    async run(subject) {
      const image = sample({ unknown: { kind: alienKind, flags: 1 } });
      return refused(await forward(subject, image), `a critical frame of kind ${alienKind}`, [8]);
    },
  },
  {
    name: 'carries unknown critical frames inside',
    only: 'wrap',
    run(subject) {
      const image = sample({ unknown: { kind: alienKind, flags: 1 } });
      return roundTrip(subject, `a critical frame of kind ${alienKind}`, [image], image);
    },
  },
  {
    name: 'refuses empty, foreign and future input',
    async run(subject) {
      const future = Buffer.from(sample());
      future[8] = 2;
      return (
        refused(await forward(subject), 'empty input', [5]) ??
        refused(await forward(subject, Buffer.alloc(5000, 'not a stream\n')), 'text', [4]) ??
        refused(await forward(subject, future), 'major version 2', [3])
      );
    },
  },
  {
    name: 'sees input that ends early',
    run: (subject) => first(cuts(sample({ size: 4096 }), (part) => forward(subject, part))),
  },
  {
    name: 'sees damaged input',
    run: (subject) => first(flips(sample({ size: 4096 }), (part) => forward(subject, part))),
  },
  {
    name: 'sees bytes behind END',
    async run(subject) {
      return refused(await forward(subject, sample(), Buffer.from('more')), 'bytes behind END', [6]);
    },
  },
  {
    name: 'passes on the failure of an earlier stage',
    async run(subject) {
      const out = await forward(subject, failedSample());
      const bad = refused(out, 'an ERROR frame', [10]);
      if (bad) return bad;
      return readStream(out.output).frames.at(-1)?.kind === kinds.error
        ? undefined
        : 'its output does not end with ERROR';
    },
  },
  {
    name: 'undoing sees input that ends early',
    only: 'wrap',
    async run(subject) {
      const layer = (await forward(subject, sample({ size: 4096 }))).output;
      return first(cuts(layer, (part) => undo(subject, part)));
    },
  },
  {
    name: 'undoing sees damaged input',
    only: 'wrap',
    async run(subject) {
      const layer = (await forward(subject, sample({ size: 4096 }))).output;
      return first(flips(layer, (part) => undo(subject, part)));
    },
  },
  {
    name: 'undoing refuses what it did not make',
    only: 'wrap',
    async run(subject) {
      const all = Array.from({ length: 63 }, (_, index) => index + 1);
      return (
        refused(await undo(subject), 'empty input', [5]) ??
        refused(await undo(subject, sample()), 'an image without a layer', all)
      );
    },
  },
  {
    name: 'refuses unknown options',
    async run(subject) {
      const out = await runProgram(subject.path, [...subject.forward, '--no-such-option'], [sample()]);
      return refused(out, '--no-such-option', [2]);
    },
  },
  {
    name: 'leaves when its reader does',
    async run(subject) {
      const { outcome } = await runStalled(subject.path, subject.forward, feed(16 * megabyte), {
        close: true,
      });
      if (outcome.hung) return 'it did not end';
      return outcome.status === 0 ? 'it ended with 0 although its output had no reader' : undefined;
    },
  },
  {
    name: 'waits for a slow reader in bounded memory',
    async run(subject) {
      const size = 192 * megabyte;
      const { outcome, peak } = await runStalled(subject.path, subject.forward, feed(size), {
        pause: 2000,
        patience: 10_000,
      });
      if (peak > memoryBound) return `it held ${Math.round(peak / megabyte)} MiB`;
      if (outcome.hung) return 'it did not end';
      // Some filters work slowly: what counts here is what they hold.
      return outcome.slow ? undefined : good(outcome, `${size / megabyte} MiB`);
    },
  },
];

/** A writer of a large sample, which waits whenever the filter does. */
function feed(size: number): (write: (chunk: Uint8Array) => Promise<boolean>) => Promise<void> {
  return async (write) => {
    const collector = new Collector();
    writeSample(collector, { size });
    for (const piece of cut(collector.bytes, [megabyte])) if (!(await write(piece))) return;
  };
}
