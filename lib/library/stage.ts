import type { Sink } from '../stream/sink.ts';

/** What Node's streams call when a step is done, or failed. */
type Done = (error?: Error | null) => void;

/** A Sink under a Node stream: it is ended or aborted once, and what it throws becomes the stream's error. */
export class Stage {
  readonly #sink: Sink;
  #open = true;

  constructor(sink: Sink) {
    this.#sink = sink;
  }

  write(chunk: Uint8Array, done: Done): void {
    this.#try(done, () => this.#sink.write(chunk));
  }

  end(done: Done): void {
    this.#try(done, () => {
      this.#sink.end();
      this.#open = false;
    });
  }

  /** The stream was destroyed; after its end there is nothing to abort. */
  destroy(cause: Error | null, done: Done): void {
    this.#abort(cause ?? new Error('the stream was destroyed'));
    done(cause);
  }

  #try(done: Done, act: () => void): void {
    try {
      act();
    } catch (cause) {
      this.#abort(cause);
      done(cause as Error);
      return;
    }
    done();
  }

  #abort(cause: unknown): void {
    if (!this.#open) return;
    this.#open = false;
    this.#sink.abort(cause);
  }
}
