/**
 * Processor time used: told by a dump; given back at restart by the module, for nobody else can set it (docs/kmod.md).
 * What a program has seen of a clock never runs back then.
 */
import type { Records } from '../../image/record.ts';
import { SYS } from './abi.ts';
import type { ProcessImage } from './image-records.ts';
import { statField } from './proc.ts';
import type { Asking, Remote } from './remote.ts';

type OfThread = NonNullable<Records['thread']['processorTime']>;
type OfProcess = NonNullable<Records['process']['processorTime']>;

/** Of a process beside what its threads have: those that have ended, and children that were waited for. */
export interface ProcessTimes {
  ended: OfThread;
  childrenUserNs: bigint;
  childrenSystemNs: bigint;
}

/** Gives to a task of ours, which stands in a stop, what only the kernel can give. */
export interface TimeGiver {
  /** `tid`: the host's. `process` with its first thread only. */
  giveTimes(tid: number, thread: OfThread, process: ProcessTimes | undefined): void;
}

const CLOCK_PROCESS = 2;
export const CLOCK_THREAD = 3;
const RUSAGE = { self: 0, children: -1 };
/** struct timespec, struct rusage; bytes. */
export const timeLength = 16;
const usageLength = 144;

/** A struct timespec. */
export const readTime = (view: DataView, at: number): bigint =>
  view.getBigInt64(at, true) * 1_000_000_000n + view.getBigInt64(at + 8, true);

/** ru_utime and ru_stime of a struct rusage, ns. */
function readUsage(view: DataView, at: number): { userNs: bigint; systemNs: bigint } {
  const time = (from: number) =>
    view.getBigInt64(from, true) * 1_000_000_000n + view.getBigInt64(from + 8, true) * 1000n;
  return { userNs: time(at), systemNs: time(at + 16) };
}

/** USER_HZ is 100 wherever anybody can see it. */
const tick = 10_000_000n;

/** `fields`: of the thread's stat. Only the proportion of the first two counts: the kernel fits them to the third. */
export const threadTime = (fields: readonly string[], runNs: bigint): OfThread => ({
  userNs: BigInt(statField(fields, 14)) * tick,
  systemNs: BigInt(statField(fields, 15)) * tick,
  runNs,
});

export function* askProcessTime(remote: Remote): Asking<OfProcess> {
  remote.reset();
  const clock = remote.reserve(timeLength);
  const self = remote.reserve(usageLength);
  const children = remote.reserve(usageLength);
  yield [
    [SYS.clock_gettime, CLOCK_PROCESS, clock],
    [SYS.getrusage, RUSAGE.self, self],
    [SYS.getrusage, RUSAGE.children, children],
  ];
  const bytes = remote.read(clock, timeLength + 2 * usageLength);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const ofChildren = readUsage(view, Number(children - clock));
  return {
    ...readUsage(view, Number(self - clock)),
    runNs: readTime(view, 0),
    childrenUserNs: ofChildren.userNs,
    childrenSystemNs: ofChildren.systemNs,
  };
}

/** What is said of a process beyond its threads; absent when the image does not tell. */
export function beyondThreads({ record, threads }: ProcessImage): ProcessTimes | undefined {
  const all = record.processorTime;
  if (!all) return undefined;
  const rest = (key: keyof OfThread) => {
    const live = threads.reduce((sum, thread) => sum + (thread.record.processorTime?.[key] ?? 0n), 0n);
    return all[key] > live ? all[key] - live : 0n;
  };
  const { childrenUserNs, childrenSystemNs } = all;
  const ended = { userNs: rest('userNs'), systemNs: rest('systemNs'), runNs: rest('runNs') };
  return { ended, childrenUserNs, childrenSystemNs };
}
