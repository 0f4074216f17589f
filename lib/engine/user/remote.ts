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

/** Code that makes many calls at one stop (call-site.ts), its table, and how many calls that has room for. */
export interface CallLoop {
  code: bigint;
  table: bigint;
  room: number;
}

const noLoop: CallLoop = { code: 0n, table: 0n, room: 0 };

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
  readonly #registers: Uint8Array;
  readonly #data: bigint;
  readonly #dataSize: number;
  readonly #loop: CallLoop | undefined;
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
    this.#registers = registers;
    this.#data = data;
    this.#dataSize = dataSize;
    this.#loop = loop;
  }

  /** Run calls in order; the results may be negative errnos. The data area may be used anew afterwards. */
  run(calls: readonly (readonly Word[])[]): BigInt64Array {
    const words = new BigUint64Array(calls.length * 7);
    calls.forEach((call, index) => {
      call.forEach((word, place) => {
        words[index * 7 + place] = BigInt.asUintN(64, BigInt(word));
      });
    });
    const { code, table, room } = this.#loop ?? noLoop;
    const { results, children } = native().remoteCalls(this.tid, this.#registers, words, code, table, room);
    this.children = children;
    return results;
  }

  /** One call; throws RemoteError on failure. */
  call(what: string, ...words: Word[]): bigint {
    const result = this.run([words])[0]!;
    if (result < 0n && result > -4096n) throw new RemoteError(what, Number(-result));
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
