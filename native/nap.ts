const cell = new Int32Array(new SharedArrayBuffer(4));

/** This thread sleeps, ms, also less than one; nothing else is done in it meanwhile. */
export function nap(milliseconds: number): void {
  Atomics.wait(cell, 0, 0, milliseconds);
}
