/**
 * The worker threads of this process, shared by all stages of a chain. The main thread never returns to its
 * event loop while bytes flow, so everything goes through shared memory and Atomics.
 */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { packageRoot } from '../../../native/package-root.ts';
import { control, type JobSource, ringLength, type StageMessage } from './job.ts';

/** More than this costs memory (a thread is some 10 MB) and does not pay: then reading and writing is the limit. */
const mostWorkers = 8;

class Pool {
  readonly size = Math.min(availableParallelism(), mostWorkers);
  readonly #words = new Int32Array(new SharedArrayBuffer((control.ring + 2 * ringLength) * 4));
  readonly #workers: Worker[] = [];
  #stages = 0;

  constructor() {
    const file = pathToFileURL(join(packageRoot(), 'dist/esm/lib/filter/parallel/worker.js'));
    for (let i = 0; i < this.size; i++) {
      // stdout and stderr: without them a Worker makes the process's own descriptors non-blocking.
      const worker = new Worker(file, {
        workerData: this.#words.buffer,
        stdout: true,
        stderr: true,
        execArgv: [],
        // A worker makes next to no garbage; V8's defaults would take some 30 MB each for it.
        resourceLimits: { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 64 },
      });
      worker.on('error', () => undefined);
      worker.unref();
      this.#workers.push(worker);
    }
  }

  /** Some worker is up, and none was lost. */
  get usable(): boolean {
    return Atomics.load(this.#words, control.ready) > 0 && Atomics.load(this.#words, control.gone) === 0;
  }

  /** Some worker has left, and what it had taken will never be done. */
  get broken(): boolean {
    return Atomics.load(this.#words, control.gone) > 0;
  }

  /** Make a stage known to all workers; returns its number. */
  register(source: JobSource, buffers: Omit<StageMessage, 'stage' | 'module' | 'make' | 'params'>): number {
    const stage = this.#stages++;
    const module = pathToFileURL(join(packageRoot(), 'dist/esm', source.module)).href;
    const message: StageMessage = { ...buffers, stage, module, make: source.make, params: source.params };
    for (const worker of this.#workers) worker.postMessage(message);
    return stage;
  }

  /** Put a slot of a stage on the ring; false when the ring is full. */
  submit(stage: number, slot: number): boolean {
    const words = this.#words;
    const submitted = words[control.submitted]!;
    if (((submitted - Atomics.load(words, control.taken)) | 0) >= ringLength) return false;
    const at = control.ring + ((submitted >>> 0) % ringLength) * 2;
    Atomics.store(words, at, stage);
    Atomics.store(words, at + 1, slot);
    Atomics.store(words, control.submitted, (submitted + 1) | 0);
    Atomics.notify(words, control.submitted, 1);
    return true;
  }
}

let pool: Pool | undefined;

/** The pool; its threads start at the first call. */
export function startPool(): Pool {
  pool ??= new Pool();
  return pool;
}

export type { Pool };
