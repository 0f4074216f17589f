/**
 * Every command that reads a stream, given every stream of test/vectors that breaks a rule, and what is no stream at
 * all. Who reads records ends with the class of the vector. Who only carries bytes may let through what only a reader
 * of records sees (docs/format.md), and then changes nothing of it.
 */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { filter as compress } from '../../filters/compress.ts';
import { encodeBech32 } from '../../lib/filter/age/bech32.ts';
import { undoStage } from '../../lib/filter/undo.ts';
import { exitCodes, type Failure } from '../../lib/stream/error.ts';
import type { Sink } from '../../lib/stream/sink.ts';
import { packageRoot } from '../../native/package-root.ts';
import { type Ended, faultOf, Surroundings, some, thorough, together } from '../tools/bad-input.ts';
import { goodPreamble } from '../tools/forge.ts';
import { judge } from '../tools/read-vector.ts';

interface Bad {
  what: string;
  bytes: Uint8Array | '/dev/zero';
  class: Failure;
  /** The first frame is a LAYER that is whole. */
  layer: boolean;
  /** Wrong before a first frame could be read. */
  atOnce: boolean;
}

const folder = join(packageRoot(), 'test/vectors');
const layerKind = 2;

function readVector(name: string): Bad {
  const bytes = readFileSync(join(folder, `${name}.pod`));
  const verdict = JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8')) as {
    class: Failure;
    frames: number;
  };
  return {
    what: name,
    bytes,
    class: verdict.class,
    layer: verdict.frames > 0 && bytes[16] === layerKind,
    atOnce: verdict.frames === 0,
  };
}

const vectors = readdirSync(folder)
  .filter((file) => file.endsWith('.json'))
  .map((file) => readVector(file.slice(0, -'.json'.length)))
  .filter((vector) => vector.class !== 'done');

/** One of each class, and some more of those with many. */
function choose(): Bad[] {
  if (thorough) return vectors;
  const classes = [...new Set(vectors.map((vector) => vector.class))];
  return classes.flatMap((each) =>
    some(
      vectors.filter((vector) => vector.class === each),
      18,
    ),
  );
}

const noise = Buffer.alloc(3 << 20, 'no stream at all. ');
const more: Bad[] = [
  { what: 'zeros without end', bytes: '/dev/zero', class: 'foreign', layer: false, atOnce: true },
  { what: 'megabytes of text', bytes: noise, class: 'foreign', layer: false, atOnce: true },
  {
    what: 'noise behind a preamble',
    bytes: Buffer.concat([goodPreamble, noise]),
    class: 'damaged',
    layer: false,
    atOnce: true,
  },
];

/** A command, and what it does with a stream. */
interface Reader {
  command: [string, ...string[]];
  role: 'carries' | 'maps' | 'undoes' | 'reads';
  /** The stream out of what it wrote, when it ended well. */
  result?(stdout: Buffer): Uint8Array;
}

const recipient = encodeBech32('age', Buffer.alloc(32, 9));
const secret = encodeBech32('age-secret-key-', Buffer.alloc(32, 9)).toUpperCase();
/** The layers of the vectors are of filters or algorithms that nobody has. */
const unknownLayer = [exitCodes['cannot-restart'], exitCodes.version];
const unwrap = (bytes: Buffer): Uint8Array => {
  const chunks: Buffer[] = [];
  const sink: Sink = { write: (chunk) => void chunks.push(Buffer.from(chunk)), end() {}, abort() {} };
  const stage = undoStage(compress, {}, sink);
  stage.write(bytes);
  stage.end();
  return Buffer.concat(chunks);
};

const drive = 'stick';
const readers: Reader[] = [
  { command: ['pod-filter', 'compress'], role: 'carries', result: unwrap },
  { command: ['pod-filter', 'encrypt', '-r', recipient], role: 'carries' },
  { command: ['pod-layer', 'cat', 'cat'], role: 'carries' },
  { command: ['pod-store', drive], role: 'carries' },
  { command: ['pod-filter', '--undo'], role: 'carries', result: (stdout) => stdout },
  { command: ['pod-filter', 'upgrade-2.6'], role: 'maps', result: (stdout) => stdout },
  { command: ['pod-filter', 'relocate', '/a=/b'], role: 'maps', result: (stdout) => stdout },
  { command: ['pod-filter', 'upgrade-2.6', 'compress'], role: 'maps', result: unwrap },
  { command: ['pod-filter', '--undo', 'compress'], role: 'undoes' },
  { command: ['pod-filter', '--undo', 'encrypt', '-i', 'key'], role: 'undoes' },
  { command: ['pod-layer', '--undo', 'cat', 'cat'], role: 'undoes' },
  { command: ['pod-restart', '-d'], role: 'reads' },
  { command: ['pod-restart', '--plan'], role: 'reads' },
  { command: ['pod-inspect'], role: 'reads' },
  { command: ['pod-inspect', '--verify'], role: 'reads' },
];

/** Exit statuses that are right. */
function allowed({ role, command }: Reader, bad: Bad): number[] {
  const own = exitCodes[bad.class];
  if (bad.atOnce && !(bad.class === 'damaged' || bad.class === 'unknown-critical')) return [own];
  switch (role) {
    case 'carries':
      return bad.layer ? [own, exitCodes.done, ...unknownLayer] : [own, exitCodes.done];
    case 'maps':
      return bad.layer ? [own, exitCodes.usage] : [own, exitCodes.done];
    case 'undoes':
      return bad.layer ? [own, exitCodes.usage, ...unknownLayer] : [own, exitCodes.usage];
    case 'reads':
      if (bad.layer) return [own, ...unknownLayer];
      // A vector is a stream of few records: who looks for a whole image may miss the others first.
      return bad.atOnce || command.join(' ') === 'pod-inspect' ? [own] : [own, exitCodes.damaged];
  }
}

/** What let a bad stream through must have let all of it through. */
function faultOfResult(home: Surroundings, reader: Reader, bad: Bad, ended: Ended): string | undefined {
  const stored = join(home.work, drive, '00000001.000');
  const output = existsSync(stored) ? readFileSync(stored) : reader.result?.(ended.stdout);
  rmSync(join(home.work, drive), { recursive: true, force: true });
  if (output === undefined) return undefined;
  const found = judge(output).class;
  return found === bad.class ? undefined : `what came of it is ${found}`;
}

async function give(t: Test, bad: Bad, reader: Reader): Promise<void> {
  const home = new Surroundings(t);
  writeFileSync(join(home.work, 'key'), `${secret}\n`, { mode: 0o600 });
  home.settle();
  const ended = await home.run({ command: reader.command, input: bad.bytes });
  const [name] = reader.command;
  const faults = [
    allowed(reader, bad).includes(ended.status as number) ? undefined : `it ends with ${ended.status}`,
    faultOf(name, ended),
    ended.status === 0 ? faultOfResult(home, reader, bad, ended) : undefined,
    ...home.leftovers(),
  ].filter((fault) => fault !== undefined);
  t.same(faults, [], `${bad.what} (${bad.class}) into ${reader.command.join(' ')}: ${ended.stderr}`);
}

t.setTimeout(3_600_000);
t.test('bad streams', { timeout: 3_600_000 }, async (t) => {
  const pairs = [...choose(), ...more].flatMap((bad, row) =>
    readers
      .filter((_reader, column) => thorough || (row + column) % 2 === 0)
      .map((reader) => () => give(t, bad, reader)),
  );
  await together(pairs);
});
