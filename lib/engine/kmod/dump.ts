/** The engine in the kernel: the stream is what /dev/pod gives, handed on as it is. */
import { randomBytes } from 'node:crypto';
import { fstatSync } from 'node:fs';
import { writeDescriptor } from '../../stream/descriptor.ts';
import { failureOf, PodError, UpstreamError } from '../../stream/error.ts';
import type { Sink } from '../../stream/sink.ts';
import { StreamParser } from '../../stream/stream-parser.ts';
import type { DumpOptions, DumpTarget, Engine, Explanation, StoppedSession } from '../engine.ts';
import { cpuFlags } from '../user/preflight.ts';
import { Device } from './device.ts';
import { refuseTarget, refuseUnseen } from './unseen.ts';

const piece = 1 << 20;

export const kmodEngine: Engine = { name: 'kmod', dump, explain };

function dump(target: DumpTarget, options: DumpOptions, sink: Sink): StoppedSession {
  refuseTarget(target, options);
  const device = openDevice();
  try {
    const imageId = randomBytes(16).toString('hex');
    const { memory, processes, threads } = start(device, target, options.producer, imageId);
    // It stands, and nothing is written yet.
    refuseUnseen(target);
    options.onReady?.({ memoryBytes: memory, processes, threads });
    const { descriptor } = options;
    if (descriptor !== undefined && fstatSync(descriptor).isFIFO()) spliceAll(device, descriptor, options);
    else copyAll(device, sink);
    checkEnd(device);
    return {
      imageId,
      losses: [],
      thaw: () => device.close(),
      kill: () => {
        device.kill();
        device.close();
      },
    };
  } catch (cause) {
    device.close();
    throw cause;
  }
}

/** The module stops at the first thing that it does not handle: no more than that is told. */
function explain(target: DumpTarget): Explanation {
  let device: Device | undefined;
  try {
    refuseTarget(target, {});
    device = openDevice();
    start(device, target, 'podstream', randomBytes(16).toString('hex'));
    refuseUnseen(target);
    return { obstacles: [], losses: [] };
  } catch (cause) {
    if (!(cause instanceof PodError) || cause.failure !== 'cannot-checkpoint') throw cause;
    return { obstacles: [{ message: cause.message, hint: cause.hint ?? null }], losses: [] };
  } finally {
    device?.close();
  }
}

function openDevice(): Device {
  try {
    return new Device();
  } catch (cause) {
    throw new PodError(
      'cannot-checkpoint',
      `/dev/pod can't be opened: ${(cause as Error).message.split(',', 1)[0]}`,
      'load the module (kmod/README.md), or use --engine user',
      { cause },
    );
  }
}

function start(device: Device, target: DumpTarget, producer: string, imageId: string) {
  try {
    const found = device.dump({ target, producer, imageId, cpuFeatures: cpuFlags() });
    device.compareWatched();
    return found;
  } catch (cause) {
    throw reasonOf(device, cause);
  }
}

/** What the ERROR says that stands in place of the stream. */
function reasonOf(device: Device, cause: unknown): unknown {
  const parser = new StreamParser({ frame() {}, end() {}, abort() {} });
  const buffer = new Uint8Array(64 << 10);
  try {
    for (let length = device.read(buffer); length > 0; length = device.read(buffer))
      parser.write(buffer.subarray(0, length));
    parser.end();
  } catch (found) {
    if (!(found instanceof UpstreamError)) return cause;
    const { code, message, hint } = found.origin;
    return new PodError(failureOf(code), message, hint || undefined, { cause });
  }
  return cause;
}

function copyAll(device: Device, sink: Sink): void {
  const buffer = new Uint8Array(piece);
  for (let length = device.read(buffer); length > 0; length = device.read(buffer))
    sink.write(buffer.subarray(0, length));
}

function spliceAll(device: Device, pipe: number, { onProgress }: DumpOptions): void {
  for (let done = 0; ; ) {
    const length = writeDescriptor(() => device.splice(pipe, piece));
    if (length === 0) return;
    done += length;
    onProgress?.(done);
  }
}

/** The reader of the stream has the reason: it ends in ERROR. */
function checkEnd(device: Device): void {
  try {
    device.check();
  } catch (cause) {
    throw new PodError(
      'other',
      'the module could not finish the image',
      'the last frame of the stream says why',
      { cause },
    );
  }
}
