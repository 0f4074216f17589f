/**
 * Layers that are damaged inside: the frames around are whole, what they carry is not. And layers that are cut, of
 * another key, nested without end, or around no stream at all.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { filter as compress } from '../../filters/compress.ts';
import { filter as encrypt } from '../../filters/encrypt.ts';
import { encodeBech32 } from '../../lib/filter/age/bech32.ts';
import { x25519Public } from '../tools/age-key.ts';
import { faultOf, Surroundings, thorough, together } from '../tools/bad-input.ts';
import { streamBytes } from '../tools/make-stream.ts';
import { readImage, writeImage } from '../tools/records.ts';
import { runFilter } from '../tools/run-filter.ts';

const secretBytes = Buffer.alloc(32, 9);
const secret = encodeBech32('age-secret-key-', secretBytes).toUpperCase();
const recipientOf = (bytes: Uint8Array) => encodeBech32('age', x25519Public(bytes));

// Nobody's image: a restart that has seen all of its records (6) need not have seen the end of the stream (5).
const image = streamBytes({ size: 400_000 });
const compressed = runFilter(compress, image).output;
const encrypted = runFilter(encrypt, image, { recipient: [recipientOf(secretBytes)] }).output;
const both = runFilter(encrypt, compressed, { recipient: [recipientOf(secretBytes)] }).output;
const foreign = runFilter(encrypt, image, { recipient: [recipientOf(Buffer.alloc(32, 7))] }).output;

/** The layer with other bytes inside, its frames and END made anew. */
function rewrap(layered: Buffer, change: (inner: Buffer) => Buffer): Buffer {
  const [layer, ...rest] = readImage(layered);
  const inner = change(Buffer.concat(rest.map((entry) => Buffer.from(entry.data!))));
  const data = [];
  for (let at = 0; at < inner.length; at += 1 << 20)
    data.push({ kind: 'data' as const, meta: {}, data: inner.subarray(at, at + (1 << 20)) });
  return writeImage([layer!, ...data]);
}

const flip = (at: number) => (bytes: Buffer) => {
  const changed = Buffer.from(bytes);
  changed[at < 0 ? changed.length + at : at]! ^= 1;
  return changed;
};
const half = (bytes: Buffer) => bytes.subarray(0, bytes.length >> 1);
const petabytes = Buffer.from('28b52ffde000000000000000101b000041', 'hex');

function nested(depth: number): Buffer {
  let stream: Buffer = streamBytes({ size: 4096 });
  for (let turn = 0; turn < depth; turn += 1) stream = runFilter(compress, stream).output;
  return stream;
}

interface Bad {
  what: string;
  stream: Buffer;
  exits: number[];
}

const bad: Bad[] = [
  ...Object.entries({ compressed, encrypted, both }).flatMap(([name, stream]): Bad[] => [
    { what: `${name}, cut`, stream: half(stream), exits: [5] },
    { what: `${name}, its last byte cut`, stream: stream.subarray(0, -1), exits: [5, 6] },
    { what: `${name}, cut inside`, stream: rewrap(stream, half), exits: [5, 6] },
    {
      what: `${name}, its last byte inside cut`,
      stream: rewrap(stream, (inner) => inner.subarray(0, -1)),
      exits: [5, 6],
    },
    { what: `${name}, nothing inside`, stream: rewrap(stream, () => Buffer.alloc(0)), exits: [5, 6] },
    {
      what: `${name}, a byte too many inside`,
      stream: rewrap(stream, (inner) => Buffer.concat([inner, Buffer.alloc(1)])),
      exits: [6],
    },
    { what: `${name}, a bit flipped inside`, stream: rewrap(stream, flip(200_000)), exits: [6] },
    { what: `${name}, the last bit flipped inside`, stream: rewrap(stream, flip(-1)), exits: [6] },
    { what: `${name}, a bit flipped at its start`, stream: rewrap(stream, flip(1)), exits: [6] },
    {
      what: `${name}, noise inside`,
      stream: rewrap(stream, (inner) => Buffer.alloc(inner.length, 'noise')),
      exits: [6, 9],
    },
  ]),
  { what: 'for another key', stream: foreign, exits: [7] },
  { what: 'a petabyte compressed', stream: rewrap(compressed, () => petabytes), exits: [9] },
  { what: 'layers without end', stream: nested(40), exits: [9] },
  {
    what: 'text compressed',
    stream: rewrap(compressed, () => runFilter(compress, image).output),
    exits: [6],
  },
];

async function give(t: Test, { what, stream, exits }: Bad, command: [string, ...string[]]): Promise<void> {
  const home = new Surroundings(t);
  writeFileSync(join(home.work, 'key'), `${secret}\n`, { mode: 0o600 });
  home.settle();
  const ended = await home.run({ command, input: stream });
  const faults = [faultOf(command[0], ended), ...home.leftovers()].filter((fault) => fault !== undefined);
  if (!exits.includes(ended.status as number))
    faults.push(`it ends with ${ended.status}, not ${exits.join(' or ')}`);
  t.same(faults, [], `${what} into ${command.join(' ')}: ${ended.stderr}`);
}

const commands: [string, ...string[]][] = [
  ['pod-filter', '--undo', '-i', 'key'],
  ['pod-restart', '-d', '-i', 'key'],
  ['pod-restart', '--plan', '-i', 'key'],
  ['pod-inspect', '--verify', '-i', 'key'],
];

t.setTimeout(3_600_000);
t.test('layers damaged inside', { timeout: 3_600_000 }, async (t) => {
  const jobs = bad.flatMap((each, row) =>
    commands
      .filter((_command, column) => thorough || (row + column) % 4 === 0)
      .map((command) => () => give(t, each, command)),
  );
  await together(jobs);
});
