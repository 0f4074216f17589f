/** pod-load | pod-restart, in one process. */
import { loadPieces } from '../drive/index.ts';
import type { ConnectionFate } from '../engine/engine.ts';
import type { FilterDefinition } from '../filter/define.ts';
import { openLayers } from '../filter/open-layers.ts';
import type { Secrets } from '../filter/secrets.ts';
import type { PodEntry } from '../pod/registry.ts';
import { piecesSource } from './pieces-source.ts';
import { restartSession } from './restart-session.ts';

export interface ResumeOptions {
  builtIn: readonly FilterDefinition[];
  secrets?: Secrets;
  /** Filter programs that may run. */
  allow?: readonly string[];
  /** Only an image that was encrypted. */
  onlyEncrypted?: boolean | undefined;
  generation?: number | undefined;
  name?: string | undefined;
  root?: string | undefined;
  ignoreCpu?: boolean | undefined;
  confine?: boolean | undefined;
  /** Of connections that were kept. Default: keep. */
  tcp?: ConnectionFate | undefined;
  warn(message: string, hint?: string): void;
  /** Told of bytes as they are read. */
  moved?(bytes: number): void;
}

/** Make the session again from the image in `folder`. Resolves when it runs; on failure nothing is left of it. */
export async function resumeSession(folder: string, options: ResumeOptions): Promise<{ entry: PodEntry }> {
  const { builtIn, secrets = {}, allow = [], onlyEncrypted, generation, warn, moved } = options;
  const pieces = loadPieces(folder, { generation, warn });
  const source = piecesSource(pieces);
  try {
    return await restartSession(
      (target) => {
        const length = source(target);
        moved?.(length);
        return length;
      },
      {
        name: options.name,
        root: options.root,
        ignoreCpu: options.ignoreCpu,
        confine: options.confine,
        tcp: options.tcp,
        open: (image) => openLayers(image, { builtIn, secrets, allow, onlyEncrypted }),
        warn,
      },
    );
  } finally {
    pieces.return(undefined as never);
  }
}
