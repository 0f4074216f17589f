/** Feeding a stage in this process, cut in any way; running commands of the build. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PodError } from '../../lib/stream/error.ts';
import type { Sink } from '../../lib/stream/sink.ts';
import { packageRoot } from '../../native/package-root.ts';

export interface Fed {
  output: Buffer;
  ended: boolean;
  /** Name of the failure; undefined when all went well. */
  failure: string | undefined;
  error: unknown;
}

/** Lengths of pieces; they repeat. */
export type Cut = readonly number[];
export const whole: Cut = [Number.POSITIVE_INFINITY];
export const bytewise: Cut = [1];

/** Random lengths that follow from a seed. */
export function randomCut(seed: number): Cut {
  let state = seed;
  return Array.from({ length: 97 }, () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return 1 + ((state >>> 8) % 70_000);
  });
}

/** As pump() does: push, end, and on a failure abort. */
export function feed(make: (output: Sink) => Sink, input: Uint8Array, cut: Cut = whole): Fed {
  const chunks: Buffer[] = [];
  let ended = false;
  const output: Sink = {
    write: (chunk) => void chunks.push(Buffer.from(chunk)),
    end: () => (ended = true),
    abort: () => undefined,
  };
  let error: unknown;
  let stage: Sink | undefined;
  try {
    stage = make(output);
    // A chunk is only valid during write(): one buffer, overwritten afterwards, shows who keeps it.
    const scratch = new Uint8Array(Math.min(input.length, Math.max(...cut)));
    for (let at = 0, turn = 0; at < input.length; turn++) {
      const part = input.subarray(at, at + cut[turn % cut.length]!);
      scratch.set(part);
      stage.write(scratch.subarray(0, part.length));
      scratch.fill(0xee, 0, part.length);
      at += part.length;
    }
    stage.end();
  } catch (cause) {
    error = cause;
    stage?.abort(cause);
  }
  const failure = error === undefined ? undefined : PodError.from(error).failure;
  return { output: Buffer.concat(chunks), ended, failure, error };
}

export const bin = (name: string): string => join(packageRoot(), 'dist/bin', name);
export const filterProgram = (name: string): string =>
  join(packageRoot(), 'dist/filters', `pod-filter-${name}`);

/** A folder of its own for a test file, removed at the end. */
export function scratchFolder(t: { teardown(callback: () => void): unknown }): string {
  const folder = mkdtempSync(join(tmpdir(), 'podstream-filter-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface Ran {
  status: number | null;
  output: Buffer;
  stderr: string;
}

export function run(
  command: string,
  args: readonly string[],
  input: Uint8Array = new Uint8Array(0),
  env: Record<string, string> = {},
): Ran {
  // tap loads its own modules into every node through NODE_OPTIONS, which costs each of them time and memory.
  const result = spawnSync('env', ['-u', 'NODE_OPTIONS', command, ...args], {
    input,
    maxBuffer: 1 << 30,
    env: { ...process.env, ...env },
  });
  return { status: result.status, output: result.stdout, stderr: result.stderr?.toString() ?? '' };
}

/** Run a shell line; its status and output. */
export function shell(line: string, env: Record<string, string> = {}): Ran {
  return run('bash', ['-c', line], new Uint8Array(0), env);
}
