/** What a restart would do: every check that needs no task, and the tree it would make. */
import { ImageRecords } from '../engine/user/image-records.ts';
import { broughtAlong } from '../engine/user/places/build-places.ts';
import {
  carriedPaths,
  checkFiles,
  checkMachine,
  checkTasks,
  memoryAtHand,
} from '../engine/user/preflight.ts';
import { ReferenceChecker } from '../image/check-references.ts';
import { describePlace } from '../image/describe-place.ts';
import type { Records } from '../image/record.ts';
import { PodError } from '../stream/error.ts';
import { kinds } from '../stream/kind.ts';
import type { Sink } from '../stream/sink.ts';
import { StreamParser } from '../stream/stream-parser.ts';
import { podNameOf, type Source } from './restart-session.ts';

export interface RestartPlan {
  pod: string;
  imageId: string;
  made: { engine: string; kernel: string; realtime: string };
  history: string[];
  processes: {
    pid: number;
    ppid: number;
    state: string;
    comm: string;
    threads: number;
    exe: string | null;
  }[];
  /** Bytes of memory in the image, and what this machine has at hand. */
  memory: { image: number; atHand: number };
  /** What is mounted and laid, a sentence each. */
  places: string[];
  files: string[];
  losses: string[];
}

export interface PlanOptions {
  /** Name of the new pod; default: the image's. */
  name?: string | undefined;
  open: (image: Sink) => Sink;
  root?: string | undefined;
  ignoreCpu?: boolean | undefined;
}

/** Read a whole stream and check all that can be checked; throws what a restart would throw. */
export function planRestart(source: Source, options: PlanOptions): RestartPlan {
  const image = new ImageRecords();
  const checker = new ReferenceChecker();
  let bytes = 0;
  const sink = options.open(
    new StreamParser({
      frame(frame) {
        checker.frame(frame);
        if (frame.kind === kinds.pages) bytes += frame.data.length;
        else if (frame.kind !== kinds.end && frame.kind !== kinds.error) image.add(frame);
      },
      end: () => checker.end(),
      abort: () => undefined,
    }),
  );
  const buffer = new Uint8Array(1 << 20);
  try {
    for (let length = source(buffer); length > 0; length = source(buffer))
      sink.write(buffer.subarray(0, length));
    sink.end();
  } catch (cause) {
    sink.abort(cause);
    throw cause;
  }
  const { hello } = image;
  if (!hello) throw new PodError('damaged', 'the image has no HELLO');
  checkMachine(options.ignoreCpu ? { ...hello, cpuFeatures: [] } : hello);
  podNameOf(hello.pod, options.name);
  checkTasks(image);
  checkFiles(image, options.root ?? '', 'planned');
  return describePlan(image, hello, bytes);
}

function describePlan(
  image: ImageRecords,
  hello: NonNullable<ImageRecords['hello']>,
  bytes: number,
): RestartPlan {
  const files = new Set<string>();
  for (const space of image.spaces.values()) {
    if (space.record.exeShm === undefined) files.add(space.record.exe.path);
    for (const area of space.areas) if (area.file) files.add(area.file.path);
  }
  for (const { name, record } of image.objects) {
    if (name !== 'regular' && name !== 'directory') continue;
    const { path, memfd, unlinked } = record as unknown as Records['regular'];
    if (memfd === undefined && unlinked === undefined) files.add(path);
  }
  for (const path of carriedPaths(image)) files.delete(path);
  const along = broughtAlong(image);
  for (const path of files) if (along(path)) files.delete(path);
  return {
    pod: hello.pod,
    imageId: hello.imageId,
    made: {
      engine: hello.engine,
      kernel: hello.kernel,
      realtime: new Date(Number(hello.clocks.realtimeNs / 1_000_000n)).toISOString(),
    },
    history: hello.history.map((each) => each.filter),
    processes: image.tree.map((entry) => {
      const process = image.processes.get(entry.pid);
      const space = process && image.spaces.get(process.record.mm);
      return {
        pid: entry.pid,
        ppid: entry.ppid,
        state: entry.state,
        comm: entry.comm,
        threads: process?.threads.length ?? 0,
        exe: space?.record.exe.path ?? null,
      };
    }),
    memory: { image: bytes, atHand: Number(memoryAtHand()) },
    places: [...image.places.values()].map((place) => describePlace(place, place.files.length)),
    files: [...files].sort(),
    losses: hello.losses ?? [],
  };
}
