/**
 * What stands against a dump. The first thing that can't be saved ends it; but who asks for all of them (pod-dump
 * --explain) wants the walk to go on behind each: then it is noted, and what it would have given is left out.
 */
import { PodError } from '../../stream/error.ts';

export class Obstacles {
  readonly #noted: Map<string, PodError> | undefined;

  /** `all`: note them and go on. */
  constructor(all: boolean) {
    this.#noted = all ? new Map() : undefined;
  }

  /** Each once. */
  get found(): PodError[] {
    return [...(this.#noted?.values() ?? [])];
  }

  /** A step of the walk that others don't need; undefined when something in it can't be saved. */
  past<Result>(step: () => Result): Result | undefined {
    if (!this.#noted) return step();
    try {
      return step();
    } catch (cause) {
      if (!(cause instanceof PodError) || cause.failure !== 'cannot-checkpoint') throw cause;
      this.#noted.set(cause.message, cause);
      return undefined;
    }
  }
}
