import { type Job, type JobSource, slotBuffers, slotState, slotWords } from './job.ts';
import { type Pool, startPool } from './pool.ts';

/** Input that is done here before threads are started: for a small image starting them costs more than it gives. */
const startAfter = 4 << 20;

export interface StageOptions {
  /** Most bytes that go into and come out of one job. */
  inputSize: number;
  outputSize: number;
  /** The job, for this thread. */
  job: Job;
  /** The same job, for the workers. */
  source: JobSource;
  /** Takes the results, in order; the bytes are valid until it returns. */
  output(bytes: Uint8Array): void;
}

/**
 * Runs jobs on every core and gives their results in the order they were submitted. Fill `input`, call submit();
 * finish() waits for all. Memory is a fixed ring of slots, made whole only when the threads start.
 */
export class ParallelStage {
  readonly #options: StageOptions;
  #slots: { input: Uint8Array; output: Uint8Array }[];
  #words: Int32Array = new Int32Array(slotWords);
  #pool: Pool | undefined;
  /** Our number in the pool, once we use it. */
  #stage: number | undefined;
  #index = 0;
  #bytes = 0;
  /** The slot being filled, and the oldest that is not yet given out. */
  #head = 0;
  #tail = 0;

  constructor(options: StageOptions) {
    this.#options = options;
    const { inputSize, outputSize } = options;
    this.#slots = [{ input: new Uint8Array(inputSize), output: new Uint8Array(outputSize) }];
  }

  /** Where the next job's input goes. Valid until submit(). */
  get input(): Uint8Array {
    return this.#slots[this.#head % this.#slots.length]!.input;
  }

  submit(length: number, note = 0): void {
    const index = this.#index++;
    this.#bytes += length;
    if (this.#stage === undefined) {
      const { input, output } = this.#slots[0]!;
      const made = this.#options.job(input.subarray(0, length), output, index, note);
      this.#options.output(output.subarray(0, made));
      if (this.#bytes >= startAfter) this.#join();
      return;
    }
    const slot = this.#head % this.#slots.length;
    const first = slot * slotWords;
    this.#words[first + 1] = length;
    this.#words[first + 3] = index;
    this.#words[first + 4] = note;
    Atomics.store(this.#words, first, slotState.queued);
    if (!this.#pool!.submit(this.#stage, slot)) Atomics.store(this.#words, first, slotState.failed);
    this.#head += 1;
    // Give out what is ready, and make sure that the next slot is free.
    while (
      this.#tail < this.#head &&
      (this.#head - this.#tail === this.#slots.length || this.#state(this.#tail) !== slotState.queued)
    ) {
      this.#give();
    }
  }

  /** Wait for all jobs, give out what they made. */
  finish(): void {
    while (this.#tail < this.#head) this.#give();
  }

  /** Wait until no job is running, and forget the results: before secrets that jobs use are wiped. */
  settle(): void {
    for (; this.#tail < this.#head; this.#tail++) this.#await(this.#tail % this.#slots.length);
  }

  /** Start the threads; use them as soon as one is up. */
  #join(): void {
    this.#pool ??= startPool();
    if (!this.#pool.usable) return;
    const { inputSize, outputSize, source } = this.#options;
    const count = this.#pool.size + 2;
    const bytes = new SharedArrayBuffer(count * (inputSize + outputSize));
    const words = new SharedArrayBuffer(count * slotWords * 4);
    this.#words = new Int32Array(words);
    this.#slots = Array.from({ length: count }, (_, slot) => slotBuffers(bytes, slot, inputSize, outputSize));
    this.#stage = this.#pool.register(source, { words, bytes, inputSize, outputSize });
  }

  #state(position: number): number {
    return Atomics.load(this.#words, (position % this.#slots.length) * slotWords);
  }

  #await(slot: number): number {
    const first = slot * slotWords;
    for (;;) {
      const state = Atomics.load(this.#words, first);
      if (state !== slotState.queued) return state;
      if (Atomics.wait(this.#words, first, slotState.queued, 1000) === 'timed-out' && this.#pool!.broken) {
        return slotState.failed;
      }
    }
  }

  /** Hand the oldest job's result on. */
  #give(): void {
    const slot = this.#tail % this.#slots.length;
    const first = slot * slotWords;
    const failed = this.#await(slot) === slotState.failed;
    const { input, output } = this.#slots[slot]!;
    const words = this.#words;
    // A job that failed in a worker runs again here, so that its error is thrown here.
    const made = failed
      ? this.#options.job(input.subarray(0, words[first + 1]!), output, words[first + 3]!, words[first + 4]!)
      : words[first + 2]!;
    Atomics.store(words, first, slotState.free);
    this.#tail += 1;
    this.#options.output(output.subarray(0, made));
  }
}
