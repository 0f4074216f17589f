/**
 * The rest of relative time-outs: an image of the module tells it, a restart goes on with it, and the next image tells
 * that no time was won by it.
 */
import { chmodSync, mkdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Collector } from '../../../lib/filter/check/sample.ts';
import { readRecord } from '../../../lib/image/record.ts';
import { dumpSession, findSession } from '../../../lib/session/dump-session.ts';
import { restartSession } from '../../../lib/session/restart-session.ts';
import { kinds } from '../../../lib/stream/kind.ts';
import { StreamParser } from '../../../lib/stream/stream-parser.ts';
import { until } from '../../tools/running-program.ts';
import { finishPlain, startPlain } from './plain-session.ts';

const program = 'blocked-times';
/** As the program has them: poll, futex, and two sleeps, of an hour. */
const calls = 4;
const hour = 3_600_000_000_000n;
/** Waited before the first image, ms: a call that began anew would have more left than it had then. */
const waited = 5000;
/** poll(2) has its time in milliseconds. */
const rounding = 1_000_000n;
const runtime = '/run/pod-rests';

function restsIn(image: Uint8Array): Map<number, bigint> {
  const found = new Map<number, bigint>();
  const parser = new StreamParser({
    frame(frame) {
      if (frame.kind !== kinds.thread) return;
      const { tid, systemCall } = readRecord('thread', frame);
      if (systemCall?.restNs !== undefined) found.set(tid, systemCall.restNs);
    },
    end() {},
    abort(cause) {
      throw cause;
    },
  });
  parser.write(image);
  parser.end();
  return found;
}

/** Throws when a rest is not told, or has grown. */
export async function checkRests(say: (sentence: string) => void): Promise<string> {
  mkdirSync(runtime, { recursive: true });
  chmodSync(runtime, 0o700);
  process.env['POD_RUNTIME_DIR'] = runtime;
  const session = await startPlain(program);
  const { running } = session;
  try {
    await sleep(waited);
    let target = String(session.pid);
    let before: Map<number, bigint> | undefined;
    for (let generation = 0; generation < 2; generation++) {
      const image = new Collector();
      await dumpSession(findSession(target), { producer: 'test', fate: 'kill', engine: 'kmod' }, image);
      if (!(await until(() => running.pids().length === 0))) throw new Error('alive after its end');
      const { bytes } = image;
      const rests = restsIn(bytes);
      const told = [...rests].map(([tid, ns]) => `${tid}: ${ns}`).join(', ');
      say(`generation ${generation}: ${told}`);
      if (rests.size !== calls) throw new Error(`${calls} rests should be told: ${told}`);
      for (const [tid, rest] of rests) {
        const most = before ? before.get(tid) : hour - BigInt(waited) * 1_000_000n;
        if (most === undefined) throw new Error(`thread ${tid} had none before`);
        if (rest > most + rounding) throw new Error(`thread ${tid} has ${rest} ns left, and had ${most}`);
      }
      before = rests;
      let at = 0;
      target = `rests-${generation}`;
      await restartSession(
        (buffer) => {
          const piece = bytes.subarray(at, at + buffer.length);
          buffer.set(piece);
          at += piece.length;
          return piece.length;
        },
        { name: target, open: (sink) => sink, warn: say },
      );
      await running.beatOn(1);
    }
    await finishPlain(session);
    return '';
  } finally {
    await running.remove();
  }
}
