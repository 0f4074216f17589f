/** A program that holds what the module does not handle: refused by name before the first byte, and not harmed. */

import { kmodEngine } from '../../../lib/engine/kmod/index.ts';
import { findSession } from '../../../lib/session/dump-session.ts';
import { PodError } from '../../../lib/stream/error.ts';
import type { Sink } from '../../../lib/stream/sink.ts';
import { finishPlain, startPlain } from './plain-session.ts';

/** Counts what nobody should have written. */
class Counter implements Sink {
  bytes = 0;
  write(chunk: Uint8Array): void {
    this.bytes += chunk.length;
  }
  end(): void {}
  abort(): void {}
}

/** What it was refused for. Throws when it was not. */
export async function refuse(program: string): Promise<string> {
  const session = await startPlain(program);
  try {
    const sink = new Counter();
    let refusal: PodError | undefined;
    try {
      kmodEngine.dump(findSession(String(session.pid)).target, { producer: 'test' }, sink).thaw();
    } catch (cause) {
      if (!(cause instanceof PodError)) throw cause;
      refusal = cause;
    }
    if (!refusal) throw new Error('it is not refused: test/kmod/programs.ts says that it is');
    const { failure, message, hint } = refusal;
    const said = `${failure}: ${message} (${hint})`;
    if (failure !== 'cannot-checkpoint') throw new Error(`not refused, but ${said}`);
    if (!/\(pid \d+\), \S/.test(message)) throw new Error(`the refusal names nothing: ${said}`);
    if (sink.bytes > 0) throw new Error(`${sink.bytes} bytes were written before: ${said}`);
    await finishPlain(session);
    return message;
  } finally {
    await session.running.remove();
  }
}
