/**
 * Progress of long work: a line on stderr when it is a terminal, JSON lines on `--progress-fd N`.
 *
 * The byte path is synchronous and never returns to the event loop, so nothing here is a timer: whoever moves
 * bytes says so by add(), and a look at the clock decides whether a report is due. Progress never fails and never
 * holds up the work it is about: a reader of the JSON lines that is slow or gone just misses some.
 *
 * In `a | b | c` on a terminal all stderrs are the same line. Only the last command draws: one whose stdout is a
 * pipe leaves it to the next.
 */
import { closeSync, constants, fstatSync, openSync, writeSync } from 'node:fs';
import { isatty } from 'node:tty';
import type { Sink } from '../stream/sink.ts';

/** One JSON line on the progress descriptor. */
export interface ProgressReport {
  /** The reporting command. */
  stage: string;
  state: 'running' | 'done' | 'failed';
  bytes: number;
  /** Expected bytes, null when not known. */
  total: number | null;
  /** Since the start. */
  seconds: number;
  /** Since the last report; over all when state is not running. */
  bytesPerSecond: number;
}

export interface ProgressOptions {
  /** Expected bytes. */
  total?: number;
  /** Descriptor for JSON lines. */
  fd?: number | undefined;
  /** Draw on stderr; default: when it is a terminal and stdout is not a pipe. */
  terminal?: boolean;
}

/** The first report comes after this, so that short work stays silent on a terminal; ms. */
const quietMs = 700;
const terminalMs = 200;
const jsonMs = 500;

export class Progress {
  readonly #stage: string;
  readonly #total: number | null;
  readonly #terminal: boolean;
  readonly #start = performance.now();
  #json: number | undefined;
  #ownJson = false;
  #bytes = 0;
  #drawn = false;
  #finished = false;
  #next: number;
  #lastTime = this.#start;
  #lastBytes = 0;
  /** Smoothed, for the terminal: bytes a second. */
  #rate = 0;

  constructor(stage: string, options: ProgressOptions = {}) {
    this.#stage = stage;
    this.#total = options.total ?? null;
    this.#terminal = options.terminal ?? (isatty(2) && !isPipe(1));
    if (options.fd !== undefined) this.#openJson(options.fd);
    const first = this.#json === undefined ? quietMs : jsonMs;
    this.#next = this.#terminal || this.#json !== undefined ? this.#start + first : Number.POSITIVE_INFINITY;
  }

  /** Bytes so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** So many bytes more were moved. */
  add(bytes: number): void {
    this.#bytes += bytes;
    if (this.#next === Number.POSITIVE_INFINITY) return;
    const now = performance.now();
    if (now < this.#next) return;
    const rate = ((this.#bytes - this.#lastBytes) / (now - this.#lastTime)) * 1000;
    this.#rate = this.#rate === 0 ? rate : this.#rate * 0.7 + rate * 0.3;
    this.#lastTime = now;
    this.#lastBytes = this.#bytes;
    this.#next = now + (this.#terminal ? terminalMs : jsonMs);
    this.#report('running', now, rate);
    if (this.#terminal && now - this.#start >= quietMs) this.#draw(now);
  }

  /** The work is done, or failed: last report; the terminal's line is free again. */
  finish(state: 'done' | 'failed' = 'done'): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#next = Number.POSITIVE_INFINITY;
    if (this.#drawn) writeQuietly(2, '\r\x1b[K');
    const now = performance.now();
    this.#report(state, now, (this.#bytes / Math.max(now - this.#start, 1)) * 1000);
    if (this.#ownJson && this.#json !== undefined) closeSync(this.#json);
    this.#json = undefined;
  }

  #openJson(fd: number): void {
    this.#json = fd;
    try {
      if (!fstatSync(fd).isFIFO()) return;
      // An open file of our own, so that O_NONBLOCK is not forced on those who share the caller's.
      this.#json = openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK);
      this.#ownJson = true;
    } catch {
      // Not ours to reopen: then it is written as it is.
    }
  }

  #report(state: ProgressReport['state'], now: number, rate: number): void {
    if (this.#json === undefined) return;
    const report: ProgressReport = {
      stage: this.#stage,
      state,
      bytes: this.#bytes,
      total: this.#total,
      seconds: Math.round(now - this.#start) / 1000,
      bytesPerSecond: Math.round(rate),
    };
    writeQuietly(this.#json, `${JSON.stringify(report)}\n`);
  }

  #draw(now: number): void {
    this.#drawn = true;
    const seconds = Math.round((now - this.#start) / 1000);
    const clock = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
    const share = this.#total ? ` ${Math.floor((this.#bytes / this.#total) * 100)}%` : '';
    const text = `${this.#stage}: ${formatBytes(this.#bytes)}${share}  ${formatBytes(this.#rate)}/s  ${clock}`;
    writeQuietly(2, `\r${text}\x1b[K`);
  }
}

/** A sink that counts what passes through it, and ends the progress with the stream. */
export function progressSink(sink: Sink, progress: Pick<Progress, 'add' | 'finish'>): Sink {
  return {
    write(chunk) {
      sink.write(chunk);
      progress.add(chunk.length);
    },
    end() {
      sink.end();
      progress.finish();
    },
    abort(cause) {
      progress.finish('failed');
      sink.abort(cause);
    },
  };
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** Bytes for a person: `1.2 GiB`, at most 7 characters of number. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1023.5 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** `2G`, `512k`, `1.5MiB` or plain bytes, as typed by a user; undefined when it is none of these. */
export function parseBytes(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$/i.exec(text.trim());
  if (!match) return undefined;
  return Math.floor(Number(match[1]) * 1024 ** ' kmgt'.indexOf(match[2]!.toLowerCase() || ' '));
}

function isPipe(fd: number): boolean {
  try {
    return fstatSync(fd).isFIFO();
  } catch {
    return false;
  }
}

function writeQuietly(fd: number, text: string): void {
  try {
    writeSync(fd, text);
  } catch {
    // Full or gone: the work goes on.
  }
}
