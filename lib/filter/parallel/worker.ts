/** A worker thread of the pool: takes jobs off the ring, sleeps on Atomics when there are none. */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import {
  control,
  type Job,
  ringLength,
  type StageMessage,
  slotBuffers,
  slotState,
  slotWords,
} from './job.ts';

interface Stage {
  job: Job;
  message: StageMessage;
  words: Int32Array;
}

const words = new Int32Array(workerData as SharedArrayBuffer);
const stages = new Map<number, Stage>();

/** The stage's job; its message is in the port's queue, put there before the first job was submitted. */
async function findStage(number: number): Promise<Stage> {
  for (;;) {
    const known = stages.get(number);
    if (known) return known;
    const received = receiveMessageOnPort(parentPort!) as { message: StageMessage } | undefined;
    if (!received) throw new Error(`stage ${number} is unknown`);
    const { message } = received;
    const module = (await import(message.module)) as Record<string, (params: unknown) => Job>;
    stages.set(message.stage, {
      job: module[message.make]!(message.params),
      message,
      words: new Int32Array(message.words),
    });
  }
}

async function work(): Promise<never> {
  for (;;) {
    const taken = Atomics.load(words, control.taken);
    const submitted = Atomics.load(words, control.submitted);
    if (taken === submitted) {
      Atomics.wait(words, control.submitted, submitted);
      continue;
    }
    const at = control.ring + ((taken >>> 0) % ringLength) * 2;
    const number = Atomics.load(words, at);
    const slot = Atomics.load(words, at + 1);
    if (Atomics.compareExchange(words, control.taken, taken, (taken + 1) | 0) !== taken) continue;
    const stage = await findStage(number);
    const { bytes, inputSize, outputSize } = stage.message;
    const { input, output } = slotBuffers(bytes, slot, inputSize, outputSize);
    const own = stage.words;
    const first = slot * slotWords;
    let state: number = slotState.done;
    try {
      own[first + 2] = stage.job(
        input.subarray(0, own[first + 1]!),
        output,
        own[first + 3]!,
        own[first + 4]!,
      );
    } catch {
      // The main thread runs it again, and so gets the error itself.
      state = slotState.failed;
    }
    Atomics.store(own, first, state);
    Atomics.notify(own, first);
  }
}

Atomics.add(words, control.ready, 1);
work().catch(() => {
  Atomics.add(words, control.gone, 1);
  Atomics.notify(words, control.gone);
});
