/** pod-dump --suspend | pod-filter … | pod-store, in one process. */
import { storeSink } from '../drive/index.ts';
import type { ConnectionFate } from '../engine/engine.ts';
import { buildChain, parseChain } from '../filter/chain.ts';
import type { FilterDefinition } from '../filter/define.ts';
import type { Sink } from '../stream/sink.ts';
import { dumpSession, findSession } from './dump-session.ts';

export interface SuspendOptions {
  builtIn: readonly FilterDefinition[];
  /** Filters with their options, as pod-filter takes them. */
  chain: readonly string[];
  producer: string;
  /** Of TCP connections to outside. Default: reset. */
  tcp?: ConnectionFate | undefined;
  /** Folders and files of the session's that go along. */
  withFiles?: readonly string[];
  /** Generations to keep on the drive. */
  keep?: number;
  warn(message: string, hint?: string): void;
  /** Told the bytes of memory before the first byte of the stream. */
  onReady?(memoryBytes: number): void;
  /** Wraps the sink that the image goes into, to count what goes by. */
  observe?(sink: Sink): Sink;
}

/**
 * Stop a session, store its image in `folder`, and end it when the image is durable. On any failure the session
 * goes on, and the generation that was current stays so. Nothing is stopped before the arguments are right.
 */
export async function suspendSession(
  nameOrPid: string,
  folder: string,
  options: SuspendOptions,
): Promise<{ imageId: string }> {
  const found = findSession(nameOrPid);
  const links = parseChain(options.chain, 'forward', options.builtIn);
  const store = storeSink(folder, {
    producer: options.producer,
    warn: options.warn,
    ...(options.keep === undefined ? {} : { keep: options.keep }),
  });
  const first = buildChain(links, 'forward', store);
  return dumpSession(
    found,
    {
      producer: options.producer,
      fate: 'suspend',
      tcp: options.tcp,
      ...(options.withFiles ? { withFiles: options.withFiles } : {}),
      ...(options.onReady ? { onReady: options.onReady } : {}),
      onLoss: (sentence) => options.warn(sentence),
    },
    options.observe?.(first) ?? first,
  );
}
