/**
 * Receipts: how pod-store tells a waiting `pod-dump --suspend` that its image is durable, without a way back
 * through the pipe. Both are of one user on one machine; they meet in the runtime directory under the image id:
 *
 *   IMAGEID.pending   a store works on it (its pid and start time, so that its death is seen)
 *   IMAGEID.json      it is durable (schemas/receipt.json)
 *   IMAGEID.failed    it is not, and why
 *
 * The dumper ends its session only on the second. Everything else, silence included, lets the session go on.
 */
import { readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ReceiptDocument } from '../../schemas/generated/types.ts';
import { validators } from '../../schemas/generated/validators.js';
import { exitCodes, type Failure, PodError } from '../stream/error.ts';
import { isAlive, ownIdentity, type ProcessIdentity } from './process-identity.ts';
import { runtimeDirectory } from './runtime-dir.ts';

export type Receipt = ReceiptDocument;

/** What a store holds while it works. One of the two is called, once; later calls do nothing. */
export interface PendingReceipt {
  /** The image is durable: leave the receipt. */
  commit(info: Omit<Receipt, 'imageId'>): void;
  /** It is not: leave the reason. */
  fail(cause: unknown): void;
}

export interface WaitOptions {
  /** Longest wait while a store is at work, ms. Default: as long as it lives (a slow drive may take minutes). */
  timeoutMs?: number;
  /** Longest wait for a store to show up at all, ms. Default 20 000: a filter may think first (scrypt). */
  firstSignMs?: number;
  /** Time between looks, ms. Default 20. */
  intervalMs?: number;
}

type Kind = 'pending' | 'json' | 'failed';
const kinds: readonly Kind[] = ['pending', 'json', 'failed'];
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
  let open = true;
  place(pathOf(imageId, 'pending'), ownIdentity());
  const close = (kind: 'json' | 'failed', value: object) => {
    if (!open) return;
    open = false;
    // First the word, then the sign of life: the other side must never see neither.
    place(pathOf(imageId, kind), value);
    remove(imageId, 'pending');
  };
  return {
    commit: (info) => close('json', { imageId, ...info }),
    fail: (cause) => {
      const { message, hint, failure } = PodError.from(cause);
      close('failed', { failure, message, hint });
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

/**
 * Wait until the image is durable. Call it after the last byte was sent and the pipe is closed.
 * Throws what the store failed with; `drive` when it died or took longer than `timeoutMs`; `upstream` when no
 * store showed up within `firstSignMs` of the call.
 */
export async function waitForReceipt(imageId: string, options: WaitOptions = {}): Promise<Receipt> {
  const { timeoutMs = Number.POSITIVE_INFINITY, firstSignMs = 20_000, intervalMs = 20 } = options;
  const start = performance.now();
  let seen = false;
  for (;;) {
    const receipt = look(imageId);
    if (receipt) return receipt;
    const store = read(imageId, 'pending') as ProcessIdentity | undefined;
    // A store that is gone may have left its word between our two looks.
    if (store === undefined ? seen : !isAlive(store)) {
      const late = look(imageId);
      if (late) return late;
      remove(imageId, 'pending');
      throw new PodError(
        'drive',
        'the image was not stored: pod-store died before it was durable',
        'was it killed? its own messages tell more',
      );
    }
    seen ||= store !== undefined;
    const waited = performance.now() - start;
    if (!seen && waited >= firstSignMs) {
      throw new PodError(
        'upstream',
        'no pod-store has taken the image in',
        'suspending needs a pod-store at the end of the pipe, on this machine and as this user',
      );
    }
    if (waited >= timeoutMs) {
      throw new PodError(
        'drive',
        `no receipt for the image came in ${Math.round(timeoutMs / 1000)} s`,
        'is the drive slow? look at pod-store',
      );
    }
    await new Promise((resolve) => setTimeout(resolve, intervalMs));
  }
}
