/**
 * Receipts: how pod-store tells a waiting `pod-dump --suspend` that its image is durable, without a way back
 * through the pipe. Both are of one user on one machine; they meet in the runtime directory under the image id:
 *
 *   IMAGEID.pending    a store works on it (its pid and start time, so that its death is seen)
 *   IMAGEID.beat       one byte: odd while that store is at work on the drive, even while it waits for its input
 *   IMAGEID.json       it is durable (schemas/receipt.json)
 *   IMAGEID.failed     it is not, and why
 *   IMAGEID.withdrawn  the dumper has given up: the store named in it must not make the image current
 *
 * The dumper ends its session only on the third. Everything else, silence included, lets the session go on.
 *
 * A store that is at work may take as long as it likes: a slow drive is no failure. But one that waits for input,
 * when the dumper has sent all, waits for something that may never come: a stage between them hangs, or some process
 * keeps a pipe's writing end open (`{ pod-dump --suspend s; echo; } | …`), so that nobody downstream sees the end of
 * the stream before the dumper ends, which waits for the receipt. Committing without that end is no way out: bytes
 * after END are damage. So the dumper gives up after a while, and says to the store that it did; who of the two was
 * first is settled by each leaving its word before it looks for the other's.
 */
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import type { ReceiptDocument } from '../../schemas/generated/types.ts';
import { validators } from '../../schemas/generated/validators.js';
import { exitCodes, type Failure, PodError } from '../stream/error.ts';
import { isAlive, ownIdentity, type ProcessIdentity } from './process-identity.ts';
import { runtimeDirectory } from './runtime-dir.ts';

export type Receipt = ReceiptDocument;

/** What a store holds while it works. One of commit and fail is called, once; later calls do nothing. */
export interface PendingReceipt {
  /** It begins (true) or ends to work on the drive; in between it waits for its input. */
  working(yes: boolean): void;
  /** All has come and is right: from here on the store does not turn back. Throws `upstream` when the dumper did. */
  seal(): void;
  /** The image is durable: leave the receipt. */
  commit(info: Omit<Receipt, 'imageId'>): void;
  /** It is not: leave the reason. */
  fail(cause: unknown): void;
}

export interface WaitOptions {
  /** Longest wait for a store to show up at all, ms. Default 20 000: a filter may think first (scrypt). */
  firstSignMs?: number;
  /** Longest that the store may wait for input without getting any, ms. Default 60 000. */
  silenceMs?: number;
  /** Time between looks, ms. Default 20. */
  intervalMs?: number;
  /** Why the end of the stream does not come, if the caller can tell: a hint. */
  explainSilence?(): string | undefined;
}

type Kind = 'pending' | 'beat' | 'json' | 'failed' | 'withdrawn';
const kinds: readonly Kind[] = ['pending', 'beat', 'json', 'failed', 'withdrawn'];
/** Receipts nobody came for are swept after a day. */
const maxAgeMs = 24 * 3600 * 1000;

function pathOf(imageId: string, kind: Kind): string {
  if (!/^[0-9a-f]{32}$/.test(imageId)) throw new PodError('damaged', 'the image id is not 32 hex digits');
  return join(runtimeDirectory('receipts'), `${imageId}.${kind}`);
}

/** Put a file in place whole: a reader sees all of it or none. */
function place(path: string, value: object): void {
  const partial = `${path}.${process.pid}`;
  writeFileSync(partial, `${JSON.stringify(value)}\n`, { mode: 0o600 });
  renameSync(partial, path);
}

function read(imageId: string, kind: Kind): Record<string, unknown> | undefined {
  try {
    return JSON.parse(readFileSync(pathOf(imageId, kind), 'utf8')) as Record<string, unknown>;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw cause;
  }
}

function remove(imageId: string, ...which: readonly Kind[]): void {
  for (const kind of which) rmSync(pathOf(imageId, kind), { force: true });
}

function sweep(): void {
  const folder = runtimeDirectory('receipts');
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Number.NaN);
    if (!(age > maxAgeMs)) continue;
    if (name.endsWith('.pending') && isAlive(JSON.parse(readFileSync(path, 'utf8')) as ProcessIdentity))
      continue;
    rmSync(path, { force: true });
  }
}

/** A store begins to take in the image. */
export function beginReceipt(imageId: string): PendingReceipt {
  sweep();
  const identity = ownIdentity();
  const beat = openSync(pathOf(imageId, 'beat'), 'w', 0o600);
  const turn = new Uint8Array(1);
  let open = true;
  const working = (yes: boolean) => {
    if (!open || (turn[0]! & 1) === Number(yes)) return;
    turn[0]! += 1;
    try {
      writeSync(beat, turn, 0, 1, 0);
    } catch {
      // A full runtime directory must not fail the store; that its dumper loses patience sooner is all.
    }
  };
  working(true);
  place(pathOf(imageId, 'pending'), identity);
  const isWithdrawn = () => {
    const withdrawn = read(imageId, 'withdrawn');
    return withdrawn?.['pid'] === identity.pid && withdrawn['startTime'] === identity.startTime;
  };
  const close = (leaveWord: () => void) => {
    if (!open) return;
    open = false;
    closeSync(beat);
    // First the word, then the sign of life: the other side must never see neither.
    leaveWord();
    remove(imageId, 'pending', 'beat', 'withdrawn');
  };
  return {
    working,
    seal() {
      place(pathOf(imageId, 'pending'), { ...identity, sealed: true });
      if (!isWithdrawn()) return;
      throw new PodError(
        'upstream',
        'the image came too late: pod-dump --suspend has given up waiting, and the session went on',
        'see its message; pod-dump without --suspend never waits',
      );
    },
    commit: (info) => close(() => place(pathOf(imageId, 'json'), { imageId, ...info })),
    fail(cause) {
      const { message, hint, failure } = PodError.from(cause);
      close(() => {
        // Nobody waits for the word of one that was given up.
        if (!isWithdrawn()) place(pathOf(imageId, 'failed'), { failure, message, hint });
      });
    },
  };
}

/** A dumper is about to send the image: forget what an earlier try under the same id left. */
export function expectReceipt(imageId: string): void {
  remove(imageId, ...kinds);
}

/** The receipt if it is there by now; throws when the store failed. */
function look(imageId: string): Receipt | undefined {
  const receipt = read(imageId, 'json');
  if (receipt !== undefined) {
    if (!validators.receipt(receipt) || receipt['imageId'] !== imageId)
      throw new PodError('drive', 'the receipt of the stored image cannot be read');
    remove(imageId, ...kinds);
    return receipt as unknown as Receipt;
  }
  const failed = read(imageId, 'failed');
  if (failed === undefined) return undefined;
  remove(imageId, ...kinds);
  const { failure, message, hint } = failed;
  throw new PodError(
    typeof failure === 'string' && Object.hasOwn(exitCodes, failure) && failure !== 'done'
      ? (failure as Failure)
      : 'drive',
    `the image was not stored: ${String(message)}`,
    typeof hint === 'string' ? hint : undefined,
  );
}

/** Where the store's beat stands; undefined while it works, and when it left none (a podstream before beats). */
function waitingSince(imageId: string): number | undefined {
  try {
    const [turn] = readFileSync(pathOf(imageId, 'beat'));
    return turn === undefined || (turn & 1) === 1 ? undefined : turn;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw cause;
  }
}

/** Tell the store that nobody waits any more. False when it is past turning back: then its word is near. */
function withdraw(imageId: string, { pid, startTime }: ProcessIdentity): boolean {
  place(pathOf(imageId, 'withdrawn'), { pid, startTime });
  const pending = read(imageId, 'pending');
  return pending !== undefined && pending['sealed'] !== true;
}

const seconds = (ms: number) => `${Math.round(ms / 100) / 10} s`;

/**
 * Wait until the image is durable. Call it after the last byte was sent and the pipe is closed.
 * Throws what the store failed with; `drive` when it died; `upstream` when none showed up within `firstSignMs` of the
 * call, or when it got no input for `silenceMs` while it waited for some.
 */
export async function waitForReceipt(imageId: string, options: WaitOptions = {}): Promise<Receipt> {
  const { firstSignMs = 20_000, silenceMs = 60_000, intervalMs = 20, explainSilence } = options;
  const start = performance.now();
  let seen = false;
  let turn: number | undefined;
  let turned = start;
  let withdrawn = false;
  for (;;) {
    const receipt = look(imageId);
    if (receipt) return receipt;
    const store = read(imageId, 'pending') as (ProcessIdentity & { sealed?: boolean }) | undefined;
    // A store that is gone may have left its word between our two looks.
    if (store === undefined ? seen : !isAlive(store)) {
      const late = look(imageId);
      if (late) return late;
      remove(imageId, 'pending', 'beat', 'withdrawn');
      throw new PodError(
        'drive',
        'the image was not stored: pod-store died before it was durable',
        'was it killed? its own messages tell more',
      );
    }
    seen ||= store !== undefined;
    const now = performance.now();
    if (!seen && now - start >= firstSignMs) {
      throw new PodError(
        'upstream',
        `no pod-store has taken the image in within ${seconds(firstSignMs)}`,
        explainSilence?.() ??
          'suspending needs a pod-store at the end of the pipe, on this machine and as this user',
      );
    }
    const stands = store === undefined || store.sealed || withdrawn ? undefined : waitingSince(imageId);
    if (stands === undefined || stands !== turn) {
      turn = stands;
      turned = now;
    } else if (now - turned >= silenceMs) {
      if (withdraw(imageId, store!)) {
        throw new PodError(
          'upstream',
          `pod-store got nothing for ${seconds(silenceMs)} and still waits for the end of the stream`,
          explainSilence?.() ??
            'does a command between hang, or a shell keep a pipe open? --receipt-timeout SECONDS waits longer',
        );
      }
      withdrawn = true;
    }
    await new Promise((resolve) => setTimeout(resolve, intervalMs));
  }
}
