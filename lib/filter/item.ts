/** A frame as a map filter's functions see it. */
import { checkRecord, type Records } from '../image/record.ts';
import { PodError } from '../stream/error.ts';
import { criticalFlag, type Frame, maxMeta } from '../stream/frame.ts';
import { type KindName, kindName, kinds } from '../stream/kind.ts';
import { encodeMeta } from '../stream/meta.ts';
import type { StreamWriter } from '../stream/stream-writer.ts';

const noData = new Uint8Array(0);

/**
 * One frame between two functions of a map filter. Never changed in place: `with()` makes the changed one, and
 * an item that is returned as it came leaves byte for byte as it came.
 *
 * `data` (and the whole item, as long as it is untouched) is a view that is valid until the function returns; a
 * function that keeps an item for later keeps `item.copy()`.
 */
export class Item {
  readonly kind: number;
  readonly flags: number;
  readonly data: Uint8Array;
  /** Number of the frame in the input; of the origin for a changed one, -1 for a new one. */
  readonly seq: number;
  readonly #frame: Frame | undefined;
  readonly #meta: Record<string, unknown> | undefined;

  private constructor(
    kind: number,
    flags: number,
    seq: number,
    meta: Record<string, unknown> | undefined,
    data: Uint8Array,
    frame?: Frame,
  ) {
    this.kind = kind;
    this.flags = flags;
    this.seq = seq;
    this.data = data;
    this.#meta = meta;
    this.#frame = frame;
  }

  static fromFrame(frame: Frame): Item {
    return new Item(frame.kind, frame.flags, frame.seq, undefined, frame.data, frame);
  }

  /** A new frame; critical unless said otherwise. */
  static make(kind: KindName, meta: object, data: Uint8Array = noData, flags: number = criticalFlag): Item {
    return new Item(kinds[kind], flags, -1, meta as Record<string, unknown>, data);
  }

  /** Name of the kind; undefined when this version does not know it. */
  get name(): KindName | undefined {
    return kindName(this.kind);
  }

  /** The meta map as it is, unchecked. Do not change it: see with(). */
  get meta(): Readonly<Record<string, unknown>> {
    return this.#meta ?? this.#frame!.meta;
  }

  /** The meta map, checked against the schema of `name`. Exit 6 when it does not fit. */
  record<Name extends keyof Records>(name: Name): Records[Name] {
    checkRecord(name, this.meta, `frame ${this.seq}`);
    return this.meta as unknown as Records[Name];
  }

  /** The same frame with another meta map, other data, or both. */
  with(change: { meta?: object; data?: Uint8Array }): Item {
    const meta = (change.meta ?? this.meta) as Record<string, unknown>;
    return new Item(this.kind, this.flags, this.seq, meta, change.data ?? this.data);
  }

  /** One that may be kept. */
  copy(): Item {
    return this.#frame
      ? Item.fromFrame(this.#frame.copy())
      : new Item(this.kind, this.flags, this.seq, this.#meta, new Uint8Array(this.data));
  }

  /** Send it on; a record that has outgrown its frame is exit 9. */
  writeTo(writer: StreamWriter): void {
    if (this.#frame) {
      writer.forward(this.#frame);
      return;
    }
    const meta = encodeMeta(this.#meta!);
    if (meta.length > maxMeta) {
      throw new PodError(
        'limit',
        `the ${this.name ?? this.kind} record made of frame ${this.seq} has ${meta.length} bytes, more than ${maxMeta}`,
      );
    }
    writer.frame(this.kind, this.flags, meta, this.data);
  }
}
