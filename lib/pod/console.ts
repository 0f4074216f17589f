/**
 * The other end of a pod's socket: native/pod-init/protocol.h in TypeScript. Frames: u8 type, u8 zero, u16 length,
 * payload; little-endian.
 */
import { closeSync, openSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { basename, dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { getSystemErrorMap } from 'node:util';
import { PodError } from '../stream/error.ts';
import type { PodEntry } from './registry.ts';

const headerSize = 4;
const mostPayload = 4096;

export interface AttachOptions {
  /** Begin with what the console showed before (up to 64 KiB). */
  replay?: boolean;
  /** The session's output waits for us; otherwise, when we are slow, the oldest is lost. */
  wait?: boolean;
  /** Only what the console showed before: `done` follows. */
  once?: boolean;
  /** Window size; also makes a program redraw that knows how. */
  rows?: number;
  columns?: number;
}

export interface PodStatus {
  state: 'held' | 'running' | 'ending';
  /** Pid inside. */
  main: number;
  rows: number;
  columns: number;
  viewers: number;
  /** Bytes of console output since the start. */
  output: bigint;
}

export interface ConsoleEvents {
  /** Console output; the bytes are only valid during the call. May block: nothing is read meanwhile. */
  output?(bytes: Uint8Array): void;
  /** The main process ended, with this wait status; all output came before. */
  exit?(status: number): void;
  /** `once`: everything was sent. */
  done?(): void;
  /** The connection ended; without exit() before, pid 1 was killed. */
  close?(): void;
}

/** Connect to a live pod. Waits when all its places are taken (16, and a queue of 64). */
export async function connectPod(entry: PodEntry, events: ConsoleEvents = {}): Promise<PodConnection> {
  for (let turn = 0; ; turn++) {
    try {
      return new PodConnection(await openSocket(entry.socket), events);
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      if (code === 'EAGAIN' && turn < 100) await sleep(50);
      else {
        throw new PodError(
          'other',
          `pod ${entry.name} does not answer${code === 'EAGAIN' ? ': too many are attached' : ''}`,
          'pod-ps lists the pods that run',
          { cause },
        );
      }
    }
  }
}

async function openSocket(path: string): Promise<Socket> {
  // An address holds 108 bytes, a path more: go through the folder's descriptor.
  const folder = openSync(dirname(path), 'r');
  try {
    const socket = connect(`/proc/self/fd/${folder}/${basename(path)}`);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return socket;
  } finally {
    closeSync(folder);
  }
}

export class PodConnection {
  readonly #socket: Socket;
  readonly #events: ConsoleEvents;
  /** Bytes of a frame that is not whole yet. */
  #rest: Buffer = Buffer.alloc(0);
  #answers: ((payload: Buffer | undefined) => void)[] = [];
  #closed = false;

  constructor(socket: Socket, events: ConsoleEvents) {
    this.#socket = socket;
    this.#events = events;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    // What went wrong shows in the close.
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#closed = true;
      for (const answer of this.#answers.splice(0)) answer(undefined);
      events.close?.();
    });
  }

  #take(chunk: Buffer): void {
    let bytes = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk;
    while (bytes.length >= headerSize) {
      const end = headerSize + bytes.readUInt16LE(2);
      if (bytes.length < end) break;
      this.#act(String.fromCharCode(bytes[0]!), bytes.subarray(headerSize, end));
      bytes = bytes.subarray(end);
    }
    this.#rest = Buffer.from(bytes);
  }

  #act(type: string, payload: Buffer): void {
    if (type === 'O') this.#events.output?.(payload);
    else if (type === 'X') this.#events.exit?.(payload.readUInt32LE(0));
    // Results and statuses come in the order of the questions; the one nobody asked for ends `once`.
    else if (this.#answers.length > 0) this.#answers.shift()!(Buffer.from(payload));
    else this.#events.done?.();
  }

  /** Queue a frame; false when the pod is slow to take it (see drained()). */
  #send(type: string, payload: Uint8Array = new Uint8Array(0)): boolean {
    const frame = Buffer.alloc(headerSize + payload.length);
    frame[0] = type.charCodeAt(0);
    frame.writeUInt16LE(payload.length, 2);
    frame.set(payload, headerSize);
    return this.#socket.write(frame);
  }

  async #ask(type: string, payload?: Uint8Array): Promise<Buffer> {
    const answer = new Promise<Buffer | undefined>((resolve) => {
      if (this.#closed) resolve(undefined);
      else this.#answers.push(resolve);
    });
    this.#send(type, payload);
    const bytes = await answer;
    if (!bytes) throw new PodError('other', 'the pod ended');
    return bytes;
  }

  /** Ask for the console's output. */
  attach(options: AttachOptions): void {
    const payload = Buffer.alloc(6);
    payload[0] = (options.replay ? 1 : 0) | (options.wait ? 2 : 0) | (options.once ? 4 : 0);
    payload.writeUInt16LE(options.rows ?? 0, 2);
    payload.writeUInt16LE(options.columns ?? 0, 4);
    this.#send('A', payload);
  }

  /** Bytes as if typed; false: wait for drained() before sending more. */
  input(bytes: Uint8Array): boolean {
    let ready = true;
    for (let at = 0; at < bytes.length; at += mostPayload)
      ready = this.#send('I', bytes.subarray(at, at + mostPayload));
    return ready;
  }

  /** The input ends: the terminal's end-of-file character, when it is in line mode. */
  endInput(): void {
    this.#send('E');
  }

  resize(rows: number, columns: number): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt16LE(rows, 0);
    payload.writeUInt16LE(columns, 2);
    this.#send('W', payload);
  }

  /** Signal the main process's group. */
  async signal(number: number): Promise<void> {
    const payload = Buffer.alloc(4);
    payload.writeUInt32LE(number, 0);
    const result = (await this.#ask('S', payload)).readInt32LE(0);
    if (result === 0) return;
    const [, text] = getSystemErrorMap().get(result) ?? ['', `error ${-result}`];
    throw new PodError('other', `cannot send signal ${number}: ${text}`);
  }

  async status(): Promise<PodStatus> {
    const bytes = await this.#ask('Q');
    return {
      state: (['held', 'running', 'ending'] as const)[bytes.readUInt32LE(0)]!,
      main: bytes.readUInt32LE(4),
      rows: bytes.readUInt16LE(8),
      columns: bytes.readUInt16LE(10),
      viewers: bytes.readUInt32LE(12),
      output: bytes.readBigUInt64LE(16),
    };
  }

  /** Resolves when what was sent is on its way. */
  async drained(): Promise<void> {
    if (this.#closed || this.#socket.writableLength === 0) return;
    await new Promise<void>((resolve) => {
      this.#socket.once('drain', resolve);
      this.#socket.once('close', () => resolve());
    });
  }

  close(): void {
    this.#socket.destroy();
  }
}
