/**
 * Which tasks share an address space, a descriptor table, …: kcmp(2).
 *
 * kcmp orders its objects, so each kind keeps a sorted list and a new task finds its place in log n calls.
 */
import { native } from '../../../native/index.ts';
import { KCMP, SYS } from './abi.ts';

/** Ids of the objects of one kind that tasks share. */
export class SharedObjects {
  readonly #type: number;
  readonly #sorted: { tid: number; id: number }[] = [];

  constructor(kind: 'vm' | 'files' | 'fs' | 'sighand' | 'sysvsem') {
    this.#type = KCMP[kind];
  }

  /** The object's id; `first` when this task is the first seen with it. */
  find(tid: number): { id: number; first: boolean } {
    const place = search(this.#sorted, (entry) => compare(tid, entry.tid, this.#type, 0, 0));
    if (place.found) return { id: place.found.id, first: false };
    const id = this.#sorted.length;
    this.#sorted.splice(place.at, 0, { tid, id });
    return { id, first: true };
  }
}

/** Open file descriptions among our own descriptors. */
export class SharedFiles<Value> {
  readonly #sorted = new Map<string, { fd: number; value: Value }[]>();

  /**
   * What was remembered for the same open file description, or remember `make()` for it. Only descriptors with the same
   * `key` may be of the same.
   */
  find(fd: number, key: string, make: () => Value): { value: Value; first: boolean } {
    const sorted = this.#sorted.get(key) ?? [];
    this.#sorted.set(key, sorted);
    const place = search(sorted, (entry) => compare(process.pid, process.pid, KCMP.file, fd, entry.fd));
    if (place.found) return { value: place.found.value, first: false };
    const value = make();
    sorted.splice(place.at, 0, { fd, value });
    return { value, first: true };
  }
}

/** Whether two tasks share the object. */
export function shares(a: number, b: number, kind: 'vm' | 'files' | 'fs' | 'sighand' | 'sysvsem'): boolean {
  return compare(a, b, KCMP[kind], 0, 0) === 0;
}

/** 0 same, 1 a below b, 2 a above b. */
function compare(a: number, b: number, type: number, indexA: number, indexB: number): number {
  return Number(native().syscall(SYS.kcmp, a, b, type, indexA, indexB));
}

function search<Entry>(
  sorted: readonly Entry[],
  order: (entry: Entry) => number,
): { at: number; found?: Entry } {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const entry = sorted[middle]!;
    const result = order(entry);
    if (result === 0) return { at: middle, found: entry };
    if (result === 1) high = middle;
    else low = middle + 1;
  }
  return { at: low };
}
