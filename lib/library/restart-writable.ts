import { Writable } from 'node:stream';
import type { PodEntry } from '../pod/registry.ts';
import { type RestartSessionOptions, restartSession } from '../session/restart-session.ts';

type Done = (error?: Error | null) => void;

/**
 * A Writable that makes a session from the stream written to it. It finishes when the session runs; on any failure,
 * also when it is destroyed before its end, nothing is left of the session.
 */
export class RestartWritable extends Writable {
  /** The new pod. */
  readonly session: Promise<PodEntry>;
  #chunk: Uint8Array | undefined;
  #taken: Done | undefined;
  #ended = false;
  #failure: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(options: RestartSessionOptions) {
    super({ highWaterMark: 1 << 20 });
    this.session = restartSession((target) => this.#read(target), options).then(({ entry }) => entry);
    this.session.catch((cause) => this.destroy(cause as Error));
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: Done): void {
    this.#chunk = chunk;
    this.#taken = done;
    this.#wake?.();
  }

  override _final(done: Done): void {
    this.#ended = true;
    this.#wake?.();
    this.session.then(
      () => done(),
      (cause) => done(cause as Error),
    );
  }

  override _destroy(cause: Error | null, done: Done): void {
    if (!this.#ended) this.#failure ??= cause ?? new Error('the stream was destroyed');
    this.#wake?.();
    // What was made is gone when the restart has settled.
    this.session.then(
      () => done(cause),
      () => done(cause),
    );
  }

  async #read(target: Uint8Array): Promise<number> {
    while (this.#chunk === undefined) {
      if (this.#failure) throw this.#failure;
      if (this.#ended) return 0;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#failure) throw this.#failure;
    const length = Math.min(target.length, this.#chunk.length);
    target.set(this.#chunk.subarray(0, length));
    this.#chunk = length === this.#chunk.length ? undefined : this.#chunk.subarray(length);
    if (this.#chunk === undefined) {
      const taken = this.#taken;
      this.#taken = undefined;
      taken?.();
    }
    return length;
  }
}
