import type { Source } from './restart-session.ts';

/** A Source out of pieces of any size. */
export function piecesSource(pieces: Iterator<Uint8Array>): Source {
  let rest = new Uint8Array(0) as Uint8Array;
  return (target) => {
    while (rest.length === 0) {
      const next = pieces.next();
      if (next.done) return 0;
      rest = next.value;
    }
    const length = Math.min(rest.length, target.length);
    target.set(rest.subarray(0, length));
    rest = rest.subarray(length);
    return length;
  };
}
