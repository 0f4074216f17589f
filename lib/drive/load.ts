/**
 * pod-load: a generation out of a drive into a Sink.
 *
 * Manifest and sizes are checked before the first byte leaves. The digest of a segment is known only behind its
 * last byte, so the last piece of every segment is held back until it fits: what a damaged drive gave never passes
 * for a complete stream, because its END was not let out.
 */
import { closeSync, constants, fstatSync, readSync } from 'node:fs';
import { tryLock } from '../runtime/lock.ts';
import { crc32 } from '../stream/crc.ts';
import { PodError } from '../stream/error.ts';
import type { Sink } from '../stream/sink.ts';
import { StreamParser } from '../stream/stream-parser.ts';
import { driveError, onDrive } from './drive-error.ts';
import { readFirstFrame } from './first-frame.ts';
import type { Manifest } from './manifest.ts';
import { segmentName } from './names.ts';
import { type Generation, PodFolder } from './pod-folder.ts';

export interface LoadOptions {
  /** Which generation; default the current one. */
  generation?: number | undefined;
  /** Told when HEAD is missing or invalid and the newest complete generation is taken. */
  warn?(message: string, hint?: string): void;
  /** Told what is loaded, before the first byte. */
  loading?(manifest: Manifest): void;
}

const bufferSize = 1 << 20;

/**
 * Push a generation of the pod in `folder` into a sink and end it; when anything is wrong, abort it and throw:
 * `drive` (nothing there, unreadable) or `damaged` (with the older generation that can be loaded, as hint).
 */
export function loadInto(folder: string, options: LoadOptions, sink: Sink): Manifest {
  const pieces = loadPieces(folder, options);
  try {
    let next = pieces.next();
    for (; !next.done; next = pieces.next()) sink.write(next.value);
    sink.end();
    return next.value;
  } catch (cause) {
    // What comes out of the generator speaks of the drive already; what a sink throws says nothing about it.
    sink.abort(cause);
    throw cause;
  } finally {
    pieces.return(undefined as never);
  }
}

/** The same for who pulls: the bytes in pieces, each valid until the next is taken. Throws as loadInto. */
export function* loadPieces(path: string, options: LoadOptions): Generator<Uint8Array, Manifest> {
  let folder: PodFolder | undefined;
  try {
    folder = PodFolder.open(path);
    return yield* generationPieces(folder, options);
  } catch (cause) {
    throw driveError(cause, path);
  } finally {
    folder?.close();
  }
}

function* generationPieces(folder: PodFolder, options: LoadOptions): Generator<Uint8Array, Manifest> {
  const { number, fd, manifest } = openGeneration(folder, options);
  try {
    folder.checkSizes(manifest);
    options.loading?.(manifest);
    const buffer = new Uint8Array(bufferSize);
    for (const index of manifest.segments.keys()) {
      yield* segmentPieces(folder, manifest, index, buffer);
    }
    return manifest;
  } catch (cause) {
    throw withOlder(folder, number, cause);
  } finally {
    closeSync(fd);
  }
}

function chooseCurrent(folder: PodFolder, options: LoadOptions): number {
  const found = onDrive(folder.path, () => folder.scan());
  const current = onDrive(folder.path, () => folder.current(found));
  if (current === undefined) {
    throw new PodError(
      'drive',
      `there is no image in ${folder.path}`,
      found.length > 0
        ? `pod-load --list ${folder.path} shows what is there`
        : 'the argument is the folder of one pod, as in /media/stick/quake',
    );
  }
  if (typeof folder.readHead() !== 'number') {
    options.warn?.(
      `HEAD is missing or damaged, taking the newest complete generation, ${current}`,
      'the next pod-store repairs it',
    );
  }
  return current;
}

/** The manifest, and a descriptor of it whose lock keeps pod-store from removing the generation. */
function openGeneration(
  folder: PodFolder,
  options: LoadOptions,
): { number: number; fd: number; manifest: Manifest } {
  for (let tries = 0; ; tries++) {
    const number = options.generation ?? chooseCurrent(folder, options);
    try {
      const { fd, manifest } = folder.openManifest(number);
      tryLock(fd, 'shared');
      if (fstatSync(fd).nlink > 0) return { number, fd, manifest };
      closeSync(fd);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw withOlder(folder, number, cause);
    }
    // Between HEAD and here a pod-store may have made a newer one current and removed this.
    if (options.generation === undefined && tries < 3) continue;
    throw withOlder(
      folder,
      number,
      new PodError(
        'damaged',
        `there is no complete generation ${number} in ${folder.path}`,
        `pod-load --list ${folder.path} shows what is there`,
      ),
    );
  }
}

function* segmentPieces(
  folder: PodFolder,
  manifest: Manifest,
  index: number,
  buffer: Uint8Array,
): Generator<Uint8Array> {
  const name = segmentName(manifest.generation, index);
  const { bytes, crc32: expected } = manifest.segments[index]!;
  const fd = onDrive(folder.path, () => folder.openFile(name, constants.O_RDONLY));
  try {
    let crc = 0;
    for (let left = bytes; left > 0; ) {
      const length = onDrive(folder.path, () => readSync(fd, buffer, 0, Math.min(left, bufferSize), null));
      if (length === 0) throw new PodError('damaged', `${name} became shorter while it was read`);
      const piece = buffer.subarray(0, length);
      crc = crc32(piece, crc);
      left -= length;
      if (left === 0 && crc !== expected)
        throw new PodError('damaged', `${name} is damaged: its checksum is wrong`);
      yield piece;
    }
  } finally {
    closeSync(fd);
  }
}

/** A damaged or unreadable generation: say which older one can be loaded instead. */
function withOlder(folder: PodFolder, number: number, cause: unknown): unknown {
  const error = driveError(cause, folder.path);
  if (error.failure !== 'damaged' && error.failure !== 'drive') return error;
  let older: Generation | undefined;
  try {
    older = folder.scan().find((each) => each.number < number && each.state === 'complete');
  } catch {
    return error;
  }
  if (older?.manifest === undefined) return error;
  return new PodError(
    error.failure,
    error.message.includes('generation')
      ? error.message
      : `generation ${number} cannot be loaded: ${error.message}`,
    `generation ${older.number}, stored ${older.manifest.created}, is complete: pod-load --generation ${older.number} ${folder.path}`,
    { cause: error },
  );
}

/** What `pod-load --list` and `--verify` tell of a generation. */
export interface GenerationReport {
  generation: number;
  /** The one pod-load loads by default. */
  current: boolean;
  /** As far as was looked: --list looks at manifest and sizes, --verify at every byte. */
  state: Generation['state'];
  problem: string | null;
  imageId: string | null;
  pod: string | null;
  /** Layers in the clear, outermost first; null when not known, empty for a plain image. */
  layers: string[] | null;
  bytes: number | null;
  segments: number;
  created: string | null;
}

/** The generations of a pod's folder, newest first. */
export function listGenerations(path: string): GenerationReport[] {
  const folder = PodFolder.open(path);
  try {
    return onDrive(path, () => {
      const found = folder.scan();
      const current = folder.current(found);
      if (current !== undefined && !found.some(({ number }) => number === current)) {
        const problem = new PodError('damaged', 'HEAD names it, but none of its files is there');
        found.unshift({ number: current, manifest: undefined, state: 'damaged', problem, segments: [] });
      }
      return found.map((each) => report(each, current));
    });
  } finally {
    folder.close();
  }
}

function report(generation: Generation, current: number | undefined): GenerationReport {
  const { number, manifest, state, problem, segments } = generation;
  return {
    generation: number,
    current: number === current,
    state,
    problem: problem?.message ?? null,
    imageId: manifest?.imageId ?? null,
    pod: manifest?.pod ?? null,
    layers: manifest?.layers.map(({ filter }) => filter) ?? null,
    bytes: manifest?.bytes ?? null,
    segments: segments.length,
    created: manifest?.created ?? null,
  };
}

/**
 * Read generations whole, one or all: digests, and the stream itself to its END. `moved` hears of every piece read.
 * Incomplete ones are reported, not read: nothing was ever promised of them.
 */
export function verifyGenerations(
  path: string,
  options: { generation?: number | undefined; moved?(bytes: number): void } = {},
): GenerationReport[] {
  const wanted = listGenerations(path).filter(
    ({ generation }) => options.generation === undefined || generation === options.generation,
  );
  if (wanted.length === 0) {
    throw new PodError(
      'drive',
      options.generation === undefined
        ? `there is no image in ${path}`
        : `there is no generation ${options.generation} in ${path}`,
      `pod-load --list ${path} shows what is there`,
    );
  }
  return wanted.map((each) => {
    if (each.state !== 'complete') return each;
    try {
      verifyOne(path, each.generation, options.moved);
      return each;
    } catch (cause) {
      // Not the advice for whoever wants to load, only what is wrong.
      const inner = (cause as Error).cause;
      const { message } = PodError.from(inner instanceof PodError ? inner : cause);
      return { ...each, state: 'damaged', problem: message };
    }
  });
}

function verifyOne(path: string, generation: number, moved?: (bytes: number) => void): void {
  let imageId: string | undefined;
  let ended = false;
  const parser = new StreamParser(
    {
      frame: (frame) => {
        imageId ??= readFirstFrame(frame)?.imageId;
      },
      end: () => {
        ended = true;
      },
      abort: () => undefined,
    },
    { unknownCritical: true },
  );
  const manifest = loadInto(
    path,
    { generation },
    {
      write: (chunk) => {
        parser.write(chunk);
        moved?.(chunk.length);
      },
      end: () => parser.end(),
      abort: () => undefined,
    },
  );
  if (!ended) throw new PodError('truncated', `generation ${generation} has no END`);
  if (imageId !== manifest.imageId)
    throw new PodError('damaged', `generation ${generation} holds another image than its manifest says`);
}
