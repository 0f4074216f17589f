/** /dev/pod: its requests, as kmod/pod_ioctl.h has them. What each means and how it fails: docs/kmod.md. */
import { closeSync, openSync, readSync } from 'node:fs';
import { native } from '../../../native/index.ts';
import type { DumpTarget } from '../engine.ts';

const path = '/dev/pod';
const SYS = { ioctl: 16, splice: 275, kcmp: 312 };

export const request = {
  dump: 0xe25850d0,
  thaw: 0x50d1,
  check: 0x50d2,
  kill: 0x50d3,
  setTimes: 0x404850d4,
  compare: 0xc02050f0,
};

/** struct pod_dump. */
export const layout = {
  size: 0,
  kind: 4,
  pid: 8,
  flags: 12,
  milliCpus: 20,
  memoryLimit: 24,
  pidsLimit: 32,
  name: 40,
  producer: 296,
  imageId: 552,
  features: 584,
  memory: 8776,
  processes: 8784,
  threads: 8788,
  length: 8792,
};

/** struct pod_times: eight times behind these two. */
export const timesLayout = { size: 0, tid: 4, user: 8, childrenSystem: 64, length: 72 };

/** struct pod_compare, 32-bit words: size, answer, pid, fd, set_pid, and the slot: set, watched, index. */
const comparisonWords = 8;
const answers = { none: 0, same: 1, other: 2 };
const KCMP_EPOLL_TFD = 7;
const textLength = 255;
const featuresLength = 8191;

const kind = { tree: 2, namespace: 3 };
const flag = { confined: 1, netHost: 2, limited: 4 };

export interface Request {
  target: DumpTarget;
  producer: string;
  imageId: string;
  cpuFeatures: readonly string[];
}

/** One dump, or what a restart asks for. Whatever becomes of this program: the session goes on when the descriptor is closed. */
export class Device {
  readonly #fd = openSync(path, 'r');
  #open = true;

  /** Stop the session. Throws the errno's error; what read() then gives is the reason, a stream of ERROR alone. */
  dump({ target, producer, imageId, cpuFeatures }: Request): {
    memory: number;
    processes: number;
    threads: number;
  } {
    const bytes = new Uint8Array(layout.length);
    const view = new DataView(bytes.buffer);
    const text = (at: number, value: string, most: number) =>
      bytes.set(Buffer.from(value).subarray(0, most), at);
    const { init, limits, net } = target;
    view.setUint32(layout.size, layout.length, true);
    view.setUint32(layout.kind, init === undefined ? kind.tree : kind.namespace, true);
    view.setInt32(layout.pid, init ?? target.roots[0]!, true);
    view.setUint32(
      layout.flags,
      (target.confined ? flag.confined : 0) |
        (net === 'host' ? flag.netHost : 0) |
        (limits ? flag.limited : 0),
      true,
    );
    view.setUint32(layout.milliCpus, limits?.milliCpus ?? 0, true);
    view.setBigUint64(layout.memoryLimit, limits?.memory ?? 0n, true);
    view.setUint32(layout.pidsLimit, limits?.pids ?? 0, true);
    text(layout.name, target.name, textLength);
    text(layout.producer, producer, textLength);
    text(layout.imageId, imageId, imageId.length);
    text(layout.features, cpuFeatures.join(' '), featuresLength);
    native().syscall(SYS.ioctl, this.#fd, request.dump, bytes);
    return {
      memory: Number(view.getBigUint64(layout.memory, true)),
      processes: view.getUint32(layout.processes, true),
      threads: view.getUint32(layout.threads, true),
    };
  }

  /**
   * Tell the module which open files the entries of epoll sets mean: nobody but kcmp(2) knows, which no module can
   * call. Throws as dump() does.
   */
  compareWatched(): void {
    const question = new Uint32Array(comparisonWords);
    question[0] = question.byteLength;
    question[1] = answers.none;
    for (;;) {
      try {
        native().syscall(SYS.ioctl, this.#fd, request.compare, new Uint8Array(question.buffer));
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code === 'ENODATA') return;
        throw cause;
      }
      const [pid, fd, setPid] = question.subarray(2, 5) as unknown as [number, number, number];
      const slot = new Uint8Array(question.slice(5).buffer);
      const order = Number(native().syscall(SYS.kcmp, pid, setPid, KCMP_EPOLL_TFD, fd, slot));
      question[1] = order === 0 ? answers.same : answers.other;
    }
  }

  /** Bytes of the stream; 0 at its end. */
  read(target: Uint8Array): number {
    return readSync(this.#fd, target, 0, target.length, null);
  }

  /** Up to `length` bytes into a pipe, past us; 0 at the end. */
  splice(pipe: number, length: number): number {
    return Number(native().syscall(SYS.splice, this.#fd, 0, pipe, 0, length, 0));
  }

  /** Throws unless the stream was read to its END. */
  check(): void {
    native().syscall(SYS.ioctl, this.#fd, request.check, 0);
  }

  kill(): void {
    native().syscall(SYS.ioctl, this.#fd, request.kill, 0);
  }

  /** `times` in the order of the structure. */
  setTimes(tid: number, times: readonly bigint[]): void {
    const bytes = new Uint8Array(timesLayout.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(timesLayout.size, timesLayout.length, true);
    view.setInt32(timesLayout.tid, tid, true);
    times.forEach((time, index) => {
      view.setBigUint64(timesLayout.user + 8 * index, time, true);
    });
    native().syscall(SYS.ioctl, this.#fd, request.setTimes, bytes);
  }

  /** The session, when it is still there, goes on. Safe to call twice. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#fd);
  }
}
