import { PodError } from '../stream/error.ts';
import type { Sink } from '../stream/sink.ts';
import type { StreamWriter } from '../stream/stream-writer.ts';

/** End a stage's output after a failure: an ERROR frame when one can still be written, then the abort. */
export function failStream(writer: StreamWriter, stage: string, cause: unknown, downstream: Sink): void {
  try {
    if (!writer.finished) writer.error(stage, PodError.from(cause));
  } catch {
    // Downstream is what failed, or is gone too: the first cause is what matters.
  }
  downstream.abort(cause);
}
