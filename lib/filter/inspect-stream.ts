/**
 * Looks through a whole stream, once: from outside (what a layer leaves in the clear), and inside as far as the
 * keys at hand open it. Nothing is run but built-in filters and those the user allowed.
 */
import { ReferenceChecker } from '../image/check-references.ts';
import type { Inspection } from '../image/format-inspection.ts';
import { ImageInspector, OuterInspector } from '../image/inspect.ts';
import { PodError } from '../stream/error.ts';
import type { Frame } from '../stream/frame.ts';
import type { Sink } from '../stream/sink.ts';
import { StreamParser } from '../stream/stream-parser.ts';
import { type OpenOptions, openLayers } from './open-layers.ts';

export interface InspectOptions extends OpenOptions {
  /** Check the references between records too; a stream that cannot be opened is then a failure. */
  verify?: boolean;
}

/** `feed` pushes the whole stream into the sink it is given, and ends it. Throws what is wrong with the stream. */
export function inspectStream(feed: (sink: Sink) => void, options: InspectOptions): Inspection {
  const outer = new OuterInspector();
  const image = new ImageInspector();
  const checker = options.verify ? new ReferenceChecker() : undefined;
  const opened: string[] = [];
  const outside = new StreamParser(
    handlerOf((frame) => outer.frame(frame)),
    { unknownCritical: true },
  );
  const inside = openLayers(
    new StreamParser(
      handlerOf(
        (frame) => {
          checker?.frame(frame);
          image.frame(frame);
        },
        () => checker?.end(),
      ),
    ),
    { ...options, opened: (filter) => opened.push(filter) },
  );
  const both = new BothSides(outside, inside, keysMissing(options), (bytes) => outer.count(bytes));
  feed(both);
  const facts = both.closed === undefined ? image.facts : undefined;
  return {
    opened: both.closed === undefined ? opened : [],
    outer: outer.facts,
    ...(facts ? { image: facts } : {}),
    ...(both.closed === undefined ? {} : { closed: both.closed }),
    ...(options.verify ? { verified: true as const } : {}),
  };
}

/** Without any key, a layer that wants one is no failure: the outside is still to be seen. */
function keysMissing({ secrets = {}, verify }: InspectOptions): (cause: unknown) => boolean {
  const given = Object.values(secrets).some((secret) => secret !== undefined);
  const classes = new Set(['wrong-key', 'usage', 'cannot-restart']);
  return (cause) => !given && !verify && cause instanceof PodError && classes.has(cause.failure);
}

class BothSides implements Sink {
  readonly #outside: Sink;
  readonly #mayStayClosed: (cause: unknown) => boolean;
  readonly #count: (bytes: number) => void;
  #inside: Sink | undefined;
  #outsideReads = true;
  closed: string | undefined;

  constructor(
    outside: Sink,
    inside: Sink,
    mayStayClosed: (cause: unknown) => boolean,
    count: (bytes: number) => void,
  ) {
    this.#count = count;
    this.#outside = outside;
    this.#inside = inside;
    this.#mayStayClosed = mayStayClosed;
  }

  write(chunk: Uint8Array): void {
    this.#count(chunk.length);
    this.#within((inside) => inside.write(chunk));
    this.#without(() => this.#outside.write(chunk));
  }

  end(): void {
    this.#within((inside) => inside.end());
    this.#without(() => this.#outside.end());
  }

  abort(cause: unknown): void {
    this.#inside?.abort(cause);
    if (this.#outsideReads) this.#outside.abort(cause);
  }

  #within(act: (inside: Sink) => void): void {
    const inside = this.#inside;
    if (!inside) return;
    try {
      act(inside);
    } catch (cause) {
      if (!this.#mayStayClosed(cause)) throw cause;
      this.closed = (cause as PodError).message;
      this.#inside = undefined;
      inside.abort(cause);
    }
  }

  #without(act: () => void): void {
    if (!this.#outsideReads) return;
    try {
      act();
    } catch (cause) {
      // A bare file of age or zstd has no frames outside; what it holds was read from within.
      const bare = cause instanceof PodError && cause.failure === 'foreign' && this.#inside !== undefined;
      if (!bare) throw cause;
      this.#outsideReads = false;
    }
  }
}

function handlerOf(frame: (frame: Frame) => void, end: () => void = () => undefined) {
  return { frame, end, abort: () => undefined };
}
