/** One random change of an image whose checksums are mended. */

import { kinds } from '../../lib/stream/kind.ts';
import { encodeMeta } from '../../lib/stream/meta.ts';
import { type ForgedFrame, forge } from './forge.ts';
import type { Random } from './random.ts';
import type { Entry } from './records.ts';

type Branch = Record<string, unknown> | unknown[];
interface Leaf {
  holder: Branch;
  key: string | number;
  path: string;
}

/** `what` says which record was changed, and how. */
export function flipImage(image: readonly Entry[], random: Random): { bytes: Buffer; what: string } {
  // Pages are most of an image and a session's own business: seldom.
  const choices = image.filter(({ kind }) => kind !== 'pages' || random.below(16) === 0);
  const victim = random.pick(choices);
  const [changed, how] = random.below(4) === 0 ? flipBytes(victim, random) : flipValue(victim, random);
  const frames = image.map((entry): ForgedFrame => (entry === victim ? changed : frameOf(entry)));
  return { bytes: forge({ frames }), what: `${victim.kind} ${how}` };
}

function frameOf({ kind, meta, data, flags }: Entry): ForgedFrame {
  return {
    kind: typeof kind === 'number' ? kind : kinds[kind],
    meta,
    ...(data === undefined ? {} : { data }),
    ...(flags === undefined ? {} : { flags }),
  };
}

/** A bit of the record as it is encoded, or of its data. */
function flipBytes(entry: Entry, random: Random): [ForgedFrame, string] {
  const frame = frameOf(entry);
  const meta = new Uint8Array(encodeMeta(entry.meta));
  if (frame.data && frame.data.length > 0 && random.below(2) === 0) {
    const data = new Uint8Array(frame.data);
    const at = flipBit(data, random);
    return [{ ...frame, data }, `data byte ${at}`];
  }
  const at = flipBit(meta, random);
  return [{ ...frame, meta }, `byte ${at}`];
}

function flipBit(bytes: Uint8Array, random: Random): number {
  const at = random.below(bytes.length);
  bytes[at]! ^= 1 << random.below(8);
  return at;
}

/** A bit of one value: the record stays one by its schema more often. */
function flipValue(entry: Entry, random: Random): [ForgedFrame, string] {
  const meta = structuredClone(entry.meta);
  const leaves = leavesOf(meta, '');
  if (leaves.length === 0) return flipBytes(entry, random);
  const { holder, key, path } = random.pick(leaves);
  const value = (holder as Record<string | number, unknown>)[key];
  (holder as Record<string | number, unknown>)[key] = flipped(value, random);
  return [{ ...frameOf(entry), meta }, path];
}

function leavesOf(holder: Branch, path: string): Leaf[] {
  return Object.entries(holder).flatMap(([key, value]) => {
    const here = `${path}/${key}`;
    if (value !== null && typeof value === 'object' && !(value instanceof Uint8Array))
      return leavesOf(value as Branch, here);
    return [{ holder, key, path: here }];
  });
}

function flipped(value: unknown, random: Random): unknown {
  if (typeof value === 'bigint') return value ^ (1n << BigInt(random.below(64)));
  if (typeof value === 'number') return value < 0 ? 0 : (value ^ (1 << random.below(31))) >>> 0;
  if (typeof value === 'boolean') return !value;
  if (value instanceof Uint8Array) {
    const bytes = new Uint8Array(value);
    if (bytes.length > 0) flipBit(bytes, random);
    return bytes;
  }
  const text = [...String(value)];
  if (text.length === 0) return 'x';
  const at = random.below(text.length);
  text[at] = String.fromCodePoint(text[at]!.codePointAt(0)! ^ (1 << random.below(7)) || 1);
  return text.join('');
}
