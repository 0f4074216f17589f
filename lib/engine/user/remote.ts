/**
 * System calls in a stopped task.
 *
 * A Remote knows where the task has a `syscall` instruction, which registers to run it with, and a data area in
 * the task for arguments and results. How the task got these differs: a task of a running session lends them
 * (inject.ts), a task under construction owns them (restart).
 */
import { native } from '../../../native/index.ts';
import { PodError } from '../../stream/error.ts';

export type Word = bigint | number;

/** Where tasks that share an address space run their calls: moves when the address space is rebuilt. */
export interface CallSite {
  /** Address of a `syscall` instruction. */
  code: bigint;
  /** A stack pointer that is safe while no code runs. */
  stack: bigint;
  data: bigint;
  dataSize: number;
  /** Absent in a task that we have borrowed. */
  loop?: CallLoop;
}

/** Code that makes many calls at one stop, and the table of these (call-site.ts). */
export interface CallLoop {
  code: bigint;
  table: bigint;
}

/** Calls that the table of a loop has room for. */
export const tableRoom = 200;

export type Calls = readonly (readonly Word[])[];

/**
 * Questions to a task: yields calls and is given their results. So many tasks can be asked at once (askTogether), where
 * with run() each would be waited for.
 */
export type Asking<Answer> = Generator<Calls, Answer, BigInt64Array>;

/** Whether what a call returned is an error. */
export const isErrno = (result: bigint): boolean => result < 0n && result > -4096n;

/** Ask for many calls at once; `failed` is told of those that failed. */
export function* attempt(calls: Calls, failed: (index: number, errno: bigint) => void): Asking<void> {
  if (calls.length === 0) return;
  const results = yield calls;
  results.forEach((result, index) => {
    if (isErrno(result)) failed(index, -result);
  });
}

/** A remote call failed: `errno` is positive. */
export class RemoteError extends Error {
  readonly errno: number;

  constructor(what: string, errno: number) {
    super(`${what} in the task failed with errno ${errno}`);
    this.errno = errno;
  }
}

export class Remote {
  readonly tid: number;
  /** Template. */
  readonly registers: Uint8Array;
  readonly loop: CallLoop | undefined;
  readonly #data: bigint;
  readonly #dataSize: number;
  #used = 0;
  /** Host tids of the tasks that the last run created. */
  children: number[] = [];

  /** `registers`: template whose rip is a `syscall` instruction. `data`: address of a writable area in the task. */
  constructor(
    tid: number,
    registers: Uint8Array,
    { data, dataSize, loop }: Pick<CallSite, 'data' | 'dataSize' | 'loop'>,
  ) {
    this.tid = tid;
    this.registers = registers;
    this.#data = data;
    this.#dataSize = dataSize;
    this.loop = loop;
  }

  /** Run calls in order; the results may be negative errnos. The data area may be used anew afterwards. */
  run(calls: Calls): BigInt64Array {
    return runTogether([{ remote: this, calls }])[0]!;
  }

  /** Ask this task alone. */
  ask<Answer>(asking: Asking<Answer>): Answer {
    return askTogether([{ remote: this, asking }])[0]!;
  }

  /** One call; throws RemoteError on failure. */
  call(what: string, ...words: Word[]): bigint {
    const result = this.run([words])[0]!;
    if (isErrno(result)) throw new RemoteError(what, Number(-result));
    return result;
  }

  /** Room in the data area until the next reset(); 16-byte aligned. */
  reserve(length: number): bigint {
    const at = this.#used;
    this.#used = (at + length + 15) & ~15;
    if (this.#used > this.#dataSize)
      throw new PodError('limit', `one call takes ${this.#used} bytes of data, more than ${this.#dataSize}`);
    return this.#data + BigInt(at);
  }

  /** Copy bytes into the data area. */
  put(bytes: Uint8Array): bigint {
    const address = this.reserve(bytes.length);
    if (bytes.length > 0) native().writeMemory(this.tid, address, bytes);
    return address;
  }

  /** A NUL-terminated string in the data area. */
  putString(text: string): bigint {
    return this.put(Buffer.from(`${text}\0`));
  }

  read(address: bigint, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    native().readMemory(this.tid, address, bytes);
    return bytes;
  }

  /** Forget all that was put. */
  reset(): void {
    this.#used = 0;
  }

  /** Bytes the data area can still take. */
  get room(): number {
    return this.#dataSize - this.#used;
  }
}

type Job = { remote: Remote; calls: Calls };

/** Run calls in several tasks at once; those that make them one by one apart from those with a loop. */
export function runTogether(jobs: readonly Job[]): BigInt64Array[] {
  const results = new Map<Job, BigInt64Array>();
  for (const looping of [true, false]) {
    const alike = jobs.filter(({ remote }) => (remote.loop !== undefined) === looping);
    if (alike.length === jobs.length) return runAlike(jobs);
    if (alike.length === 0) continue;
    const found = runAlike(alike);
    alike.forEach((job, index) => {
      results.set(job, found[index]!);
    });
  }
  return jobs.map((job) => results.get(job)!);
}

function runAlike(jobs: readonly Job[]): BigInt64Array[] {
  const count = jobs.reduce((sum, { calls }) => sum + calls.length, 0);
  const heads = new BigUint64Array(jobs.length * 4);
  const templates = new Uint8Array(jobs.length * registersLength);
  const words = new BigUint64Array(count * 7);
  let at = 0;
  jobs.forEach(({ remote, calls }, index) => {
    const { code, table } = remote.loop ?? { code: 0n, table: 0n };
    heads.set([BigInt(remote.tid), BigInt(calls.length), code, table], index * 4);
    templates.set(remote.registers, index * registersLength);
    for (const call of calls) {
      for (let place = 0; place < call.length; place++)
        words[at + place] = BigInt.asUintN(64, BigInt(call[place]!));
      at += 7;
    }
  });
  const room = jobs[0]?.remote.loop ? tableRoom : 0;
  const { results, children } = native().remoteCalls(heads, templates, words, room);
  let from = 0;
  return jobs.map(({ remote, calls }) => {
    remote.children = children;
    from += calls.length;
    return results.subarray(from - calls.length, from);
  });
}

const registersLength = 216;

/** The answers of several tasks, each asked as far as its last answer leads while the others are at work. */
export function askTogether<Answer>(tasks: readonly { remote: Remote; asking: Asking<Answer> }[]): Answer[] {
  const answers: Answer[] = new Array(tasks.length);
  let open = tasks.map(({ remote, asking }, index) => ({ remote, asking, index, step: asking.next() }));
  for (;;) {
    for (const { step, index } of open) if (step.done) answers[index] = step.value;
    open = open.filter(({ step }) => !step.done);
    if (open.length === 0) return answers;
    const results = runTogether(open.map(({ remote, step }) => ({ remote, calls: step.value as Calls })));
    open.forEach((each, place) => {
      each.step = each.asking.next(results[place]!);
    });
  }
}
