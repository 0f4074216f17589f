/**
 * POSIX message queues: mq_overview(7). They are not saved: mq_receive(3) is the only way to read one, and it takes the
 * messages out, so a dumper that is killed would lose them. A pod has queues of its own, which outlive who made them;
 * pid 1 holds a folder with all of them open (pod-init.h: queues_fd).
 */
import { readdirSync, statfsSync } from 'node:fs';
import { PodError } from '../../../stream/error.ts';
import { describeProcess } from '../proc.ts';

const queuesDescriptor = 9;
const MQUEUE_MAGIC = 0x19800202;

/** Host pids of the pod's pid 1 and of a process of the session, for the message. */
export function refusePosixQueues(init: number, process: number): void {
  const folder = `/proc/${init}/fd/${queuesDescriptor}`;
  try {
    if (statfsSync(folder).type !== MQUEUE_MAGIC) return;
  } catch {
    // The kernel has no such queues, or the pod was made by an older podstream.
    return;
  }
  const [queue] = readdirSync(folder);
  if (queue === undefined) return;
  throw new PodError(
    'cannot-checkpoint',
    `in the pod of ${describeProcess(process)}, POSIX message queue /${queue} can't be saved`,
    'let the program that made it take it away first (mq_unlink)',
  );
}
