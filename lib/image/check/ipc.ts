/** System V semaphores and message queues. Shared memory is with the memory. */
import { bounds } from '../model.ts';
import type { Records } from '../record.ts';
import { damaged, IdSpace } from './fault.ts';

const largestValue = 32767;
const anyKey = 0;

export class IpcCheck {
  readonly #semaphores = new IdSpace('set of semaphores', bounds.sysvObjects);
  readonly #queues = new IdSpace('message queue', bounds.sysvObjects);
  readonly #keys = new Set<string>();
  #queue: number | undefined;

  semaphores(record: Records['sysv-semaphores'], data: Uint8Array, isAlive: (pid: number) => boolean): void {
    const { id, count, undo = [] } = record;
    const name = `set of semaphores ${id}`;
    this.#semaphores.define(id);
    this.#takeKey(name, record.key, 'semaphores');
    if (data.length !== 2 * count)
      throw damaged(`${name} has ${data.length} bytes of values instead of ${2 * count}`);
    const values = new DataView(data.buffer, data.byteOffset, data.length);
    for (let at = 0; at < data.length; at += 2)
      if (values.getUint16(at, true) > largestValue)
        throw damaged(`${name}: a value is above ${largestValue}`);
    const seen = new Set<string>();
    for (const { pid, number } of undo) {
      if (number >= count)
        throw damaged(`${name}: semaphore ${number} is given back, which it does not have`);
      if (!isAlive(pid)) throw damaged(`${name} names process ${pid}, which is not alive`);
      if (seen.has(`${pid} ${number}`)) throw damaged(`${name}: process ${pid} gives ${number} back twice`);
      seen.add(`${pid} ${number}`);
    }
  }

  /** Several frames in a row continue one queue. */
  queue(record: Records['sysv-queue'], length: number): void {
    const { id, types, lengths } = record;
    const name = `message queue ${id}`;
    if (this.#queue !== id) {
      this.#queues.define(id);
      this.#takeKey(name, record.key, 'queues');
      this.#queue = id;
    }
    if (types.length !== lengths.length)
      throw damaged(`${name} has ${types.length} types and ${lengths.length} lengths of messages`);
    if (types.some((type) => type <= 0n)) throw damaged(`${name} has a message of no type`);
    const sum = lengths.reduce((total, each) => total + each, 0);
    if (sum !== length) throw damaged(`${name} has ${length} bytes of messages instead of ${sum}`);
  }

  #takeKey(name: string, key: number, space: string): void {
    if (key === anyKey) return;
    if (this.#keys.has(`${space} ${key}`)) throw damaged(`${name} has the key ${key} of another`);
    this.#keys.add(`${space} ${key}`);
  }
}
