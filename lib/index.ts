/**
 * podstream as a library: the parts of the pipeline as Node streams.
 *
 *     import { pipeline } from 'node:stream/promises';
 *     import { dump, filter, store, load, restart } from 'podstream';
 *     await pipeline(dump('quake'), filter('compress'), filter('encrypt', { recipientsFile: 'key.pub' }), store(dir));
 *     await pipeline(load(dir), restart({ identity: ['key'] }));
 *
 * Your own Transform may stand between any two. Failures are PodErrors; their `failure` is the class and `exitCode`
 * what the command would end with (docs/format.md).
 */
import { Readable, type Transform, type Writable } from 'node:stream';
import { builtIn } from '../filters/built-in/index.ts';
import { loadPieces, storeSink } from './drive/index.ts';
import { buildChain, parseChain } from './filter/chain.ts';
import { openLayers } from './filter/open-layers.ts';
import type { Secrets } from './filter/secrets.ts';
import { DumpReadable } from './library/dump-readable.ts';
import { RestartWritable } from './library/restart-writable.ts';
import { SinkTransform } from './library/sink-transform.ts';
import { SinkWritable } from './library/sink-writable.ts';

export { type Failure, PodError } from './stream/error.ts';
export type { RestartWritable };

export interface DumpOptions {
  /** What becomes of the session once its image is written; `suspend` ends it when a store has made it durable. */
  then?: 'run' | 'kill' | 'suspend';
}

/** The image of a running session: a pod's name, or the pid of its topmost process. */
export function dump(pod: string | number, { then = 'run' }: DumpOptions = {}): Readable {
  return new DumpReadable(String(pod), then);
}

/** Options of a filter by name, as on its command line but in camel case; `undo: true` takes its layer off. */
export type FilterOptions = Record<
  string,
  string | number | boolean | readonly (string | number)[] | undefined
>;

/** A filter by name: a built-in one, or a program pod-filter-NAME in $POD_FILTER_PATH or $PATH. */
export function filter(name: string, options: FilterOptions = {}): Transform {
  const { undo, ...own } = options;
  const direction = undo === true ? 'undo' : 'forward';
  const links = parseChain([name, ...tokensOf(own)], direction, builtIn);
  return new SinkTransform((output) => buildChain(links, direction, output));
}

export interface StoreStreamOptions {
  /** Generations to keep, the new one included. Default 2. */
  keep?: number;
  /** Most bytes of a file. Default 2 GiB. */
  segmentSize?: number;
  /** Told of things that are no failure, as an image that is stored in the clear. Default: a process warning. */
  warn?(message: string, hint?: string): void;
}

/** Keeps the stream as a new generation in `folder`, the folder of one pod on a drive; finishes when it is durable. */
export function store(folder: string, options: StoreStreamOptions = {}): Writable {
  return new SinkWritable(storeSink(folder, { warn: warnProcess, ...options }));
}

export interface LoadStreamOptions {
  /** Default: the current one. */
  generation?: number;
  warn?(message: string, hint?: string): void;
}

/** A stored image: the current generation in `folder`. */
export function load(folder: string, options: LoadStreamOptions = {}): Readable {
  return Readable.from(copies(loadPieces(folder, { warn: warnProcess, ...options })), { objectMode: false });
}

export interface RestartOptions extends Secrets {
  /** The new pod's name. Default: the one in the image. */
  name?: string;
  /** Folder that is the session's /, when it had one of its own. */
  root?: string;
  /** Restart on a processor that lacks features the session saw. */
  ignoreCpu?: boolean;
  /** Filter programs that may run to undo layers. */
  allow?: readonly string[];
  /** Refuse an image that was not encrypted, whoever wrote it. */
  onlyEncrypted?: boolean;
  warn?(message: string): void;
}

/** Makes the session again from the stream written to it, taking layers off; finishes when the session runs. */
export function restart(options: RestartOptions = {}): RestartWritable {
  const { name, root, ignoreCpu, allow = [], onlyEncrypted, warn = warnProcess, ...secrets } = options;
  return new RestartWritable({
    name,
    root,
    ignoreCpu,
    open: (image) => openLayers(image, { builtIn, secrets, allow, onlyEncrypted }),
    warn,
  });
}

function* copies(pieces: Iterable<Uint8Array>): Generator<Buffer> {
  for (const piece of pieces) yield Buffer.from(piece);
}

function tokensOf(options: FilterOptions): string[] {
  return Object.entries(options).flatMap(([key, value]) => {
    const option = `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    if (value === undefined || value === false) return [];
    if (value === true) return [option];
    return [value].flat().flatMap((each) => [option, String(each)]);
  });
}

function warnProcess(message: string): void {
  process.emitWarning(message, 'PodWarning');
}
