/**
 * Objects without an engine around them: this process is the session, a sleeping child the builder. What was dumped
 * is made again in the child, and can be dumped from there once more.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { fstatSync, readdirSync, readFileSync, readlinkSync, readSync } from 'node:fs';
import { F, O, PTRACE } from '../../lib/engine/user/abi.ts';
import { SegmentBuilder } from '../../lib/engine/user/build-segments.ts';
import { Carriers } from '../../lib/engine/user/carriers.ts';
import { Injector, readThreadState } from '../../lib/engine/user/inject.ts';
import type {
  DumpContext,
  OpenFile,
  OutRecord,
  RestoreContext,
} from '../../lib/engine/user/objects/file-object.ts';
import { fileObjects } from '../../lib/engine/user/objects/index.ts';
import { borrow, closeLocal, control, sameFile } from '../../lib/engine/user/objects/local-calls.ts';
import { findPages, Pagemaps } from '../../lib/engine/user/page-source.ts';
import { readAreas } from '../../lib/engine/user/proc.ts';
import type { Remote } from '../../lib/engine/user/remote.ts';
import { checkRecord, type Records } from '../../lib/image/record.ts';
import { PodError } from '../../lib/stream/error.ts';
import { native } from '../../native/index.ts';
import { nap } from '../../native/nap.ts';

export interface Dumped {
  records: OutRecord[];
  losses: string[];
}

function openFile(id: number, pid: number, fd: number, local = borrow(pid, fd)): OpenFile {
  const infoLines = readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1')
    .split('\n')
    .filter((line) => line.includes(':'));
  return {
    id,
    pid,
    fd,
    holders: [{ pid, fd }],
    local,
    link: readlinkSync(`/proc/${pid}/fd/${fd}`),
    stat: fstatSync(local, { bigint: true }),
    flags: control(local, F.getfl) & ~O.largefile,
    info: new Map(
      infoLines.map((line) => {
        const colon = line.indexOf(':');
        return [
          line.slice(0, colon),
          line
            .slice(colon + 1)
            .trim()
            .split(/\s+/),
        ] as const;
      }),
    ),
    infoLines,
  };
}

/** Dump some descriptors of a process as if they were a whole session. Records are checked against their schemas. */
export function dumpDescriptors(pid: number, fds: readonly number[]): Dumped {
  const files: OpenFile[] = [];
  const byNumber = new Map<number, OpenFile>();
  for (const fd of fds) {
    const same = files.find((file) => sameFile(pid, file.fd, pid, fd));
    if (same) same.holders.push({ pid, fd });
    else files.push(openFile(files.length, pid, fd));
    byNumber.set(fd, same ?? files.at(-1)!);
  }
  const losses: string[] = [];
  const carriers = new Carriers();
  const memory = new Map<string, unknown>();
  let nextId: number | undefined;
  const context: DumpContext = {
    files,
    filesOf: (inode) => files.filter((file) => file.stat.ino === inode),
    fileAt: (holder, fd) => (holder === pid ? byNumber.get(fd) : undefined),
    newFileId() {
      nextId ??= files.length;
      return nextId++;
    },
    adopt(local) {
      const known = files.find((file) => sameFile(process.pid, file.local, process.pid, local));
      if (!known)
        files.push({ ...openFile(files.length, process.pid, local, local), holders: [], inFlight: true });
      else closeLocal(local);
      return known ?? files.at(-1)!;
    },
    innerPid: (hostPid) => (hostPid === pid ? pid : 0),
    innerTid: (hostTid) => (hostTid === pid ? pid : 0),
    once<Value>(key: string, make: () => Value): Value {
      if (!memory.has(key)) memory.set(key, make());
      return memory.get(key) as Value;
    },
    carry: (file, path) =>
      carriers.ofFile(file.local, file.link, path, `descriptor ${file.fd} (${file.link})`),
    within: () => {
      throw new Error('no calls in this process');
    },
    loss: (sentence) => losses.push(sentence),
    refuse(file, why, hint) {
      throw new PodError('cannot-checkpoint', `descriptor ${file.fd} (${file.link}): ${why}`, hint);
    },
    beforeEnd: () => undefined,
    putOff: Number.POSITIVE_INFINITY,
    keepsConnections: false,
    notNow(file, why, hint) {
      throw new PodError('cannot-checkpoint', `descriptor ${file.fd} (${file.link}): ${why}`, hint);
    },
  };
  try {
    for (let at = 0; at < files.length; at++) {
      fileObjects.find((object) => object.matches(files[at]!))?.discover?.(files[at]!, context);
    }
    const records: OutRecord[] = [];
    for (const object of fileObjects) {
      for (const file of files) {
        if (fileObjects.find((each) => each.matches(file)) !== object) continue;
        records.push(...object.dump(file, context));
      }
    }
    const carried = carriers.finish((sentence) => losses.push(sentence));
    records.unshift(...carried.records);
    for (const source of carried.pages) {
      const ranges = findPages(source, new Pagemaps());
      for (let index = 0; index < ranges.length; index += 2) {
        const [addr, end] = [ranges[index]!, ranges[index + 1]!];
        const data = new Uint8Array(Number(end - addr));
        readSync(source.fd!, data, 0, data.length, addr);
        records.push({ name: 'pages', meta: { ...source.key, addr }, data });
      }
    }
    for (const { name, meta } of records) checkRecord(name, meta, `record ${name}`);
    return { records, losses };
  } finally {
    for (const file of files) closeLocal(file.local);
    carriers.close();
  }
}

/** A child in which objects are made. */
export class TestBuilder {
  readonly warnings: string[] = [];
  /** Descriptors it had before anything was made. */
  openBefore = 0;
  readonly #child: ChildProcess;
  readonly #descriptors = new Map<number, number>();
  readonly #taken: number[] = [];
  #remote: Remote | undefined;

  /** `command`: what becomes the builder; it must do nothing but wait. */
  constructor(command: readonly string[] = ['sleep', '1000']) {
    this.#child = spawn(command[0]!, command.slice(1), { stdio: 'ignore' });
    // It is ready when it waits in clock_nanosleep(2): until then it opens and closes its libraries.
    while (!readFileSync(`/proc/${this.pid}/syscall`, 'latin1').startsWith('230 ')) nap(1);
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** The builder's descriptor of an object. */
  descriptor(id: number): number {
    const fd = this.#descriptors.get(id);
    if (fd === undefined) throw new PodError('damaged', `there is no open file ${id}`);
    return fd;
  }

  /** The builder's descriptors in order of their objects. */
  descriptors(): number[] {
    return [...this.#descriptors].sort(([a], [b]) => a - b).map(([, fd]) => fd);
  }

  /** Descriptors that are open in the builder. */
  open(): number[] {
    return readdirSync(`/proc/${this.pid}/fd`).map(Number);
  }

  /** Our own descriptor of an object in the builder, until its end. */
  take(id: number): number {
    const fd = borrow(this.pid, this.descriptor(id));
    this.#taken.push(fd);
    return fd;
  }

  /** Restore records, in the order of the engine; `before` sees the builder just before what comes last. */
  restore(records: readonly OutRecord[], options: { console?: string } = {}): void {
    const memory = new Map<string, unknown>();
    const metas = <Name extends keyof Records>(wanted: Name) =>
      records.flatMap(({ name, meta }) => (name === wanted ? [meta as Records[Name]] : []));
    this.#within((builder) => {
      const warn = (sentence: string) => void this.warnings.push(sentence);
      const segments = new SegmentBuilder({ tid: this.pid, remote: builder }, warn);
      segments.make({ spaces: new Map(), segments: new Map(metas('shm').map((meta) => [meta.id, meta])) });
      const context: RestoreContext = {
        builder,
        builderPid: this.pid,
        keep: (id, fd) => {
          this.#descriptors.set(id, Number(fd));
        },
        descriptor: (id) => this.descriptor(id),
        carrier: (id) => segments.descriptor(id),
        ended: () => {
          throw new Error('no processes in this test');
        },
        contents: (id) =>
          records
            .filter((record) => record.name === 'content' && (record.meta as Records['content']).file === id)
            .map(({ meta, data }) => ({ meta: meta as Records['content'], data: data! })),
        once<Value>(key: string, make: () => Value): Value {
          if (!memory.has(key)) memory.set(key, make());
          return memory.get(key) as Value;
        },
        beforeRun: () => undefined,
        resetsConnections: false,
        console: options.console,
        warn,
        refuse(what, hint) {
          throw new PodError('cannot-restart', what, hint);
        },
      };
      const owned = records.flatMap(({ name, meta }) => {
        const object = fileObjects.find((each) => each.records.includes(name));
        return object ? [{ object, name, meta }] : [];
      });
      for (const { object, name, meta } of owned) object.restore(name, meta, context);
      for (const { name, meta, data } of records) {
        if (name !== 'pages') continue;
        const { shm, addr } = meta as Records['pages'];
        segments.fill(shm!, addr, data!);
      }
      segments.settle();
      segments.closeWriters();
      const self = { remote: builder, pid: this.pid };
      for (const { object, name, meta } of owned) object.leadSession?.(name, meta, self, context);
      for (const { object, name, meta } of owned)
        object.treeMade?.(name, meta, (pid) => (pid === this.pid ? self : undefined), context);
      for (const { object, name, meta } of owned) {
        const id = (meta as { id: number }).id;
        const fd = this.#descriptors.get(id);
        const numbers = (wanted: number) => (wanted === id && fd !== undefined ? [fd] : []);
        object.restoreInTable?.(name, meta, { remote: builder, pid: this.pid, numbers }, context);
      }
      for (const { object, name, meta } of owned) object.arm?.(name, meta, context);
    });
  }

  #within(body: (remote: Remote) => void): void {
    this.openBefore = this.open().length;
    if (this.#remote) throw new Error('a builder builds once');
    const addon = native();
    const { pid } = this;
    addon.seize(pid, PTRACE.optionSysGood);
    addon.interrupt(pid);
    const stop = addon.waitStop(pid, 5000);
    if (stop?.state !== 'stopped') throw new Error('the builder does not stop');
    const lent = { tid: pid, state: readThreadState(pid) };
    const injector = new Injector(pid, readAreas(pid));
    try {
      this.#remote = injector.remote(lent);
      body(this.#remote);
    } finally {
      Injector.finish([{ injector, lent }]);
      addon.resume(pid, PTRACE.detach, 0);
    }
  }

  async end(): Promise<void> {
    const gone = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await gone;
    for (const fd of this.#taken) closeLocal(fd);
  }
}
