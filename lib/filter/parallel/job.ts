/**
 * Work that can run on any core: a function from one buffer to another, made once a thread. It lives in a module
 * of its own, so that a worker thread loads that module and nothing else.
 */

/** Returns the bytes written to `output`. `index` counts the jobs of a stage; `note` is the stage's own. */
export type Job = (input: Uint8Array, output: Uint8Array, index: number, note: number) => number;

/** Where a worker finds a job: `make` is exported by `module` (path below dist/esm) and gets `params`. */
export interface JobSource {
  module: string;
  make: string;
  /** Structured-cloneable; secrets only inside a SharedArrayBuffer, so that there is one copy to wipe. */
  params: unknown;
}

/** Indices into the pool's control words. */
export const control = {
  /** Workers that are up. */
  ready: 0,
  /** Workers that have left. */
  gone: 1,
  /** Jobs put on the ring; a worker with nothing to do waits on this word. */
  submitted: 2,
  /** Jobs taken off the ring. */
  taken: 3,
  /** Where the ring starts: (stage, slot) pairs. */
  ring: 4,
} as const;
export const ringLength = 256;

/** Words of a slot: state, input length, output length, index, note. */
export const slotWords = 5;
export const slotState = { free: 0, queued: 1, done: 2, failed: 3 } as const;

/** What a worker must know of a stage before it can run its jobs. */
export interface StageMessage {
  stage: number;
  /** URL of the module. */
  module: string;
  make: string;
  params: unknown;
  words: SharedArrayBuffer;
  bytes: SharedArrayBuffer;
  inputSize: number;
  outputSize: number;
}

/** The two buffers of a slot. */
export function slotBuffers(
  bytes: SharedArrayBuffer,
  slot: number,
  inputSize: number,
  outputSize: number,
): { input: Uint8Array; output: Uint8Array } {
  const at = slot * (inputSize + outputSize);
  return {
    input: new Uint8Array(bytes, at, inputSize),
    output: new Uint8Array(bytes, at + inputSize, outputSize),
  };
}
