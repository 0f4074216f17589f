/**
 * Takes the layers off a stream, outermost first, whatever they are, and gives the image on. What runs is never
 * the image's choice: built-in wrap filters, and programs that the user named in `allow`; anything else is
 * refused by name.
 */
import { readRecord } from '../image/record.ts';
import { PodError } from '../stream/error.ts';
import type { Frame } from '../stream/frame.ts';
import { kinds } from '../stream/kind.ts';
import type { Sink } from '../stream/sink.ts';
import { StreamParser } from '../stream/stream-parser.ts';
import type { FilterDefinition } from './define.ts';
import { optionSpecs } from './describe.ts';
import { describeProgram, locate } from './discover.ts';
import { formatOptions } from './options.ts';
import { ProcessSink } from './process-sink.ts';
import { type Secrets, undoOptions } from './secrets.ts';
import { looksLikeStream, startLength, undoStage } from './undo.ts';
import { WholeStream } from './whole-stream.ts';

export interface OpenOptions {
  /** Built-in filters. */
  builtIn: readonly FilterDefinition[];
  secrets?: Secrets;
  /** Names of filters that are programs and may run. */
  allow?: readonly string[];
  /** Refuse an image that no layer of encryption covers. */
  onlyEncrypted?: boolean | undefined;
  /** Told of every layer that is taken off, outermost first. */
  opened?: (filter: string) => void;
}

/** The filter whose layer takes a key. */
const encryption = 'encrypt';
/** More layers than anybody needs: each one costs memory. */
const mostLayers = 16;

/** Thrown through the probe to stop at the first frame. */
class FirstFrame {
  readonly layer: string | undefined;
  constructor(frame: Frame) {
    this.layer = frame.kind === kinds.layer ? readRecord('layer', frame).filter : undefined;
  }
}

class LayerOpener implements Sink {
  readonly #downstream: Sink;
  readonly #options: OpenOptions;
  /** Layers taken off so far, outermost first. */
  readonly #off: readonly string[];
  #held: Uint8Array[] = [];
  #heldLength = 0;
  #next: Sink | undefined;
  readonly #probe = new StreamParser(
    {
      frame: (frame) => {
        throw new FirstFrame(frame);
      },
      end: () => undefined,
      abort: () => undefined,
    },
    { unknownCritical: true },
  );

  constructor(downstream: Sink, options: OpenOptions, off: readonly string[]) {
    this.#downstream = downstream;
    this.#options = options;
    this.#off = off;
  }

  write(chunk: Uint8Array): void {
    if (this.#next) {
      this.#next.write(chunk);
      return;
    }
    this.#held.push(chunk.slice());
    this.#heldLength += chunk.length;
    // The outermost may be a bare file of a stock tool, which has no frames to look at.
    const start = this.#heldLength <= startLength * 2 ? Buffer.concat(this.#held) : this.#held[0]!;
    if (!looksLikeStream(start)) {
      if (start.length >= startLength) this.#bare(start);
      return;
    }
    this.#look(chunk);
  }

  end(): void {
    if (!this.#next && this.#heldLength > 0) {
      const start = Buffer.concat(this.#held);
      if (!looksLikeStream(start)) this.#bare(start);
    }
    if (!this.#next) this.#probe.end();
    this.#next!.end();
  }

  abort(cause: unknown): void {
    (this.#next ?? this.#downstream).abort(cause);
  }

  #look(chunk: Uint8Array): void {
    try {
      this.#probe.write(chunk);
    } catch (cause) {
      if (!(cause instanceof FirstFrame)) throw cause;
      this.#open(cause.layer === undefined ? this.#image() : this.#undo(cause.layer));
    }
  }

  #bare(start: Uint8Array): void {
    const definition = this.#options.builtIn.find((each) => each.recognises(start));
    // Not recognised: the parser says what it is not.
    if (!definition) this.#probe.write(start);
    else this.#open(this.#undo(definition.name));
  }

  #open(next: Sink): void {
    this.#next = next;
    const held = this.#held;
    this.#held = [];
    for (const chunk of held) next.write(chunk);
  }

  #image(): Sink {
    if (!this.#options.onlyEncrypted || this.#off.includes(encryption)) return this.#downstream;
    throw new PodError(
      'cannot-restart',
      `the image is not inside a layer ${encryption}, as it must be`,
      'whoever wrote it did not have your key: do not restart it unless you know who that was',
    );
  }

  #undo(name: string): Sink {
    const { builtIn, secrets = {}, allow = [], opened } = this.#options;
    if (this.#off.length >= mostLayers) {
      throw new PodError(
        'limit',
        `the stream has more than ${mostLayers} layers`,
        'the stream is damaged or hostile',
      );
    }
    const inner = new LayerOpener(this.#downstream, this.#options, [...this.#off, name]);
    const definition = builtIn.find((each) => each.name === name && each.class === 'wrap');
    if (!allow.includes(name) && !definition) {
      throw new PodError(
        'cannot-restart',
        `the image is inside the layer ${name}, and nothing here may undo it`,
        `if you trust your program pod-filter-${name}, allow it: --allow ${name}`,
      );
    }
    // A name that the user allows and has put in POD_FILTER_PATH is his own choice, also over a built-in one.
    const program = allow.includes(name)
      ? locate(name, definition ? ['POD_FILTER_PATH'] : undefined)
      : undefined;
    opened?.(name);
    if (program) {
      const description = describeProgram(program);
      if (typeof description === 'string') {
        throw new PodError('other', `the filter ${name} is broken: ${description}`, `see ${program.path}`);
      }
      const options = optionSpecs(description);
      const tokens = formatOptions(options, undoOptions({ options }, secrets));
      return new ProcessSink(name, program.path, ['--undo', ...tokens], new WholeStream(name, inner));
    }
    if (!definition) {
      throw new PodError(
        'cannot-restart',
        `the image is inside the layer ${name}, and there is no program pod-filter-${name}`,
        'put it into POD_FILTER_PATH or PATH',
      );
    }
    return undoStage(definition, undoOptions(definition, secrets), inner);
  }
}

/** A Sink that takes a stream in any layers and gives the image inside, END last and only when all were whole. */
export function openLayers(downstream: Sink, options: OpenOptions): Sink {
  return new LayerOpener(downstream, options, []);
}
