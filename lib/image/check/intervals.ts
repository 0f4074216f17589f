/**
 * Ascending address ranges in two doubles each (addresses are below 2^47, so doubles are exact); neighbours
 * that touch are one. Hundreds of thousands of areas therefore cost a few megabytes.
 */
export class Intervals {
  #bounds = new Float64Array(16);
  #length = 0;
  #last = 0;

  /** Add [start, end), not before anything added earlier. */
  add(start: number, end: number): void {
    if (this.#length > 0 && this.#bounds[this.#length - 1] === start) {
      this.#bounds[this.#length - 1] = end;
      return;
    }
    if (this.#length + 2 > this.#bounds.length) {
      const grown = new Float64Array(this.#bounds.length * 2);
      grown.set(this.#bounds);
      this.#bounds = grown;
    }
    this.#bounds[this.#length] = start;
    this.#bounds[this.#length + 1] = end;
    this.#length += 2;
  }

  /** Whether [start, end) lies inside one of them. Ascending questions are answered without a search. */
  covers(start: number, end: number): boolean {
    const at = this.#holds(this.#last, start) ? this.#last : this.#find(start);
    if (at < 0) return false;
    this.#last = at;
    return end <= this.#bounds[at + 1]!;
  }

  #holds(at: number, address: number): boolean {
    return at < this.#length && this.#bounds[at]! <= address && address < this.#bounds[at + 1]!;
  }

  #find(address: number): number {
    let low = 0;
    let high = this.#length / 2 - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      if (this.#holds(middle * 2, address)) return middle * 2;
      if (this.#bounds[middle * 2]! > address) high = middle - 1;
      else low = middle + 1;
    }
    return -1;
  }
}
