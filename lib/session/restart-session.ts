/** A session out of a stream, in a pod of its own. */
import type { ConnectionFate, Engine } from '../engine/engine.ts';
import { openForRestart } from '../engine/kmod/index.ts';
import type { ObjectImage } from '../engine/user/image-records.ts';
import { Restart } from '../engine/user/restart.ts';
import { ReferenceChecker } from '../image/check-references.ts';
import { quote } from '../image/model.ts';
import type { Records } from '../image/record.ts';
import type { Limits } from '../pod/cgroups.ts';
import { hasTimeNamespaces, readClocks } from '../pod/clocks.ts';
import { keptCapabilities } from '../pod/confine.ts';
import { holdPod, type PodOptions, type PreparedPod } from '../pod/create.ts';
import { isName, type PodEntry } from '../pod/registry.ts';
import { readDescriptor } from '../stream/descriptor.ts';
import { PodError } from '../stream/error.ts';
import { printable } from '../stream/printable.ts';
import type { Sink } from '../stream/sink.ts';
import { StreamParser } from '../stream/stream-parser.ts';

export interface RestartSessionOptions {
  /** Name of the new pod; default: the image's. */
  name?: string | undefined;
  /** The session's root directory here. Needed when it had one of its own. */
  root?: string | undefined;
  ignoreCpu?: boolean | undefined;
  /** Without the means to reach out of the pod. Default: as the session was. */
  confine?: boolean | undefined;
  /** Of connections that were kept. Default: keep. */
  tcp?: ConnectionFate | undefined;
  /** Default: user. With kmod the module gives the tasks what only the kernel can give. */
  engine?: Engine['name'] | undefined;
  /** Instead of those that the session had. */
  limits?: Limits | undefined;
  /** Put what undoes layers before the parser of the image. */
  open: (image: Sink) => Sink;
  warn: (sentence: string) => void;
}

/** A source of bytes: fill the target, return how many; 0 at the end. */
export type Source = (target: Uint8Array) => number;

/** A source that may have to wait for its bytes without stopping the program. */
export type WaitingSource = (target: Uint8Array) => Promise<number>;

export const descriptorSource =
  (fd: number): Source =>
  (target) =>
    readDescriptor(fd, target);

const chunk = 1 << 20;

/** Restart a session. Resolves when it runs; on any failure nothing of it is left. */
export async function restartSession(
  source: Source | WaitingSource,
  options: RestartSessionOptions,
): Promise<{ entry: PodEntry }> {
  const module = options.engine === 'kmod' ? openForRestart() : undefined;
  const restart = new Restart({
    ...(module ? { times: module } : {}),
    ...(options.ignoreCpu ? { ignoreCpu: true } : {}),
    resetsConnections: options.tcp === 'reset',
    warn: options.warn,
  });
  const checker = new ReferenceChecker();
  const sink = options.open(
    new StreamParser({
      frame(frame) {
        checker.frame(frame);
        restart.frame(frame);
      },
      end() {
        checker.end();
        restart.end();
      },
      abort: (cause) => restart.abort(cause),
    }),
  );
  let pod: PreparedPod | undefined;
  const prepare = async () => {
    if (!restart.ready) return;
    pod = await makePod(restart, options);
    const { initPid, consolePath, entry } = pod;
    const most = entry.confined ? { capabilities: keptCapabilities } : {};
    asRefusal(() => restart.build({ initPid, consolePath, ...most }));
    for (const loss of restart.hello.losses ?? []) options.warn(`lost with the dump: ${printable(loss)}`);
  };
  const buffer = new Uint8Array(chunk);
  try {
    for (let length = await source(buffer); length > 0; length = await source(buffer)) {
      sink.write(buffer.subarray(0, length));
      await prepare();
    }
    sink.end();
    await prepare();
    const main = asRefusal(() => restart.finish());
    // pid 1 first closes what only the making needed, and then nothing stands between the session and its life.
    const { entry } = await pod!.adopt(main);
    pod!.letIn();
    asRefusal(() => restart.run());
    return { entry };
  } catch (cause) {
    sink.abort(cause);
    await pod?.destroy();
    throw cause;
  } finally {
    module?.close();
  }
}

/** Values of the image that the kernel does not take (registers, signals, timers) are the image's fault, or this machine's. */
function asRefusal<T>(make: () => T): T {
  try {
    return make();
  } catch (cause) {
    if (cause instanceof PodError) throw cause;
    const { message } = PodError.from(cause);
    throw new PodError(
      'cannot-restart',
      `the kernel refuses a part of the session: ${message}`,
      'the image was damaged or made by a hostile program, or this kernel lacks what it needs',
      { cause },
    );
  }
}

/** The new pod's name: the user's choice, else the image's, which is a stranger's. */
export function podNameOf(inImage: string, chosen: string | undefined): string {
  if (chosen === undefined && !isName(inImage)) {
    throw new PodError(
      'cannot-restart',
      `the image calls its pod ${quote(inImage)}, which cannot be the name of one`,
      'give it another with --name',
    );
  }
  return chosen ?? inImage;
}

async function makePod(restart: Restart, options: RestartSessionOptions): Promise<PreparedPod> {
  const { image, hello } = restart;
  const name = podNameOf(hello.pod, options.name);
  if (image.pod?.rooted && options.root === undefined) {
    throw new PodError(
      'cannot-restart',
      'the session had a root directory of its own',
      'name it with --root DIR',
    );
  }
  const { hostname } = image.pod!;
  return holdPod({
    name,
    ...(options.root === undefined ? {} : { root: options.root }),
    ...(hostname === '' ? {} : { hostname }),
    console: consoleNumber(image.objects),
    ...limitsFor(options, image.pod!.limits),
    confine: options.confine ?? image.pod!.confined ?? false,
    net: image.pod!.net ?? 'host',
    ...(image.pod!.network ? { network: image.pod!.network } : {}),
    holdBack: options.tcp !== 'reset' && image.objects.some(isKept),
    warn: options.warn,
    ...clocksOf(hello, options.warn),
  });
}

const isKept = ({ name, record }: ObjectImage) =>
  name === 'inet-socket' && (record as unknown as Records['inet-socket']).kept !== undefined;

/** Limits the user asks for must be had; those of the image are a matter of the machine it came from. */
function limitsFor(
  { limits, warn }: RestartSessionOptions,
  inImage: Limits | undefined,
): Pick<PodOptions, 'limits' | 'withoutLimits'> {
  if (limits) return { limits };
  if (!inImage) return {};
  return {
    limits: inImage,
    withoutLimits: ({ message }) => warn(`the session's limits don't hold: ${message}`),
  };
}

/** A second more or less is noticed by nobody. */
const noticeable = 1_000_000_000n;

function clocksOf(
  { clocks }: Records['hello'],
  warn: (sentence: string) => void,
): { clocks?: Records['hello']['clocks'] } {
  if (hasTimeNamespaces()) return { clocks };
  const jump = readClocks().monotonicNs - clocks.monotonicNs;
  if (jump > noticeable || -jump > noticeable)
    warn(
      `this kernel has no time namespaces: the session's monotonic clock jumps by ${jump / 1_000_000_000n} seconds, and what waits for a time may come early or late`,
    );
  return {};
}

/** Numbers that a pod's console may have. */
const consoles = 512;

/**
 * The console stands for the terminal that the session had outside and bears its name, so that `tty` says what it
 * said; the session's own pseudo-terminals keep theirs.
 */
function consoleNumber(objects: readonly ObjectImage[]): number {
  const inside = new Set<number>();
  let wanted = 0;
  for (const { name, record } of objects) {
    if (name === 'pty') inside.add((record as unknown as Records['pty']).index);
    if (name !== 'terminal' || wanted !== 0) continue;
    const { role, path } = record as unknown as Records['terminal'];
    const number = role === 'outside' ? /^\/dev\/pts\/(\d{1,3})$/.exec(path ?? '')?.[1] : undefined;
    if (number !== undefined) wanted = Number(number);
  }
  if (wanted >= consoles) wanted = 0;
  while (inside.has(wanted)) wanted += 1;
  return wanted;
}
