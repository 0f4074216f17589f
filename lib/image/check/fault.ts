import { PodError } from '../../stream/error.ts';
import { type bounds, pathFault, quote } from '../model.ts';

const hint = 'the stream was damaged or made by a hostile program; load it again or use an older generation';

/** A record that does not fit the others: exit 6. */
export function damaged(message: string): PodError {
  return new PodError('damaged', message, hint);
}

/** More of something than a sane image has: exit 9. */
export function beyond(what: string, limit: number | bigint): PodError {
  return new PodError('limit', `the image has ${what}, more than ${limit}`, hint);
}

/** Throw unless `path` is absolute, free of NUL and of '..' components. */
export function checkPath(path: string, owner: string): void {
  const fault = pathFault(path);
  if (fault) throw damaged(`${owner}: its path ${quote(path)} ${fault}`);
}

/** A set of ids of one space, each defined once, no more than `limit`. */
export class IdSpace {
  readonly #what: string;
  readonly #limit: number;
  readonly #ids = new Set<number>();

  constructor(what: string, limit: (typeof bounds)[keyof typeof bounds] & number) {
    this.#what = what;
    this.#limit = limit;
  }

  define(id: number): void {
    if (this.#ids.has(id)) throw damaged(`${this.#what} ${id} is defined twice`);
    if (this.#ids.size >= this.#limit) throw beyond(`${this.#ids.size + 1} times ${this.#what}`, this.#limit);
    this.#ids.add(id);
  }

  require(id: number, owner: string): void {
    if (!this.#ids.has(id))
      throw damaged(`${owner} names ${this.#what} ${id}, which is not defined before it`);
  }

  has(id: number): boolean {
    return this.#ids.has(id);
  }
}
