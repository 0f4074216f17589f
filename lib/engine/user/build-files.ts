/**
 * Descriptors: every open file description is made once, in the builder, and inherited; each process then puts
 * them at its own numbers and drops the rest.
 */
import type { Records } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import { O, SYS } from './abi.ts';
import type { SegmentBuilder } from './build-segments.ts';
import type { ImageRecords, ObjectImage } from './image-records.ts';
import type { NewTask } from './new-task.ts';
import { refuseHeld, restoreLocks } from './objects/file-locks.ts';
import type { BareTask, FileObject, RestoreContext, RestoredTable } from './objects/file-object.ts';
import { fileObjects } from './objects/index.ts';
import { armAsync } from './objects/owner.ts';
import { fetchFile } from './objects/share-file.ts';
import { type Asking, attempt, type Remote, type Word } from './remote.ts';

export interface FileBuilderOptions {
  builder: NewTask;
  segments: SegmentBuilder;
  console: string | undefined;
  warn: (sentence: string) => void;
  resetsConnections: boolean;
}

/** What can send signals at input by itself. */
const asyncObjects = new Set<string>([
  'pipe-end',
  'unix-socket',
  'inet-socket',
  'netlink-socket',
  'terminal',
  'inotify',
]);

/** __WALL: also children that end without SIGCHLD. */
const waitAll = 0x40000000;

type Entry = Records['fd-table']['entries'][number];

/** A descriptor table with a task that has it: the first thread of process `pid`, or one with a table of its own. */
export interface Table {
  task: NewTask;
  pid: number;
  id: number;
  entries: readonly Entry[];
}

/** pid of the builder in its pod. */
const builderPid = 1;

export class FileBuilder {
  readonly #image: ImageRecords;
  readonly #options: FileBuilderOptions;
  readonly #descriptors = new Map<number, number>();
  readonly #context: RestoreContext;
  readonly #remote: Remote;
  readonly #beforeRun: (() => void)[] = [];

  constructor(image: ImageRecords, options: FileBuilderOptions) {
    this.#image = image;
    this.#options = options;
    this.#remote = options.builder.remote;
    const memory = new Map<string, unknown>();
    this.#context = {
      builder: this.#remote,
      builderPid: options.builder.tid,
      keep: (id, fd) => {
        this.#descriptors.set(id, Number(fd));
      },
      descriptor: (id) => this.#descriptor(id),
      carrier: (id) => options.segments.descriptor(id),
      ended: (status, body) => this.#withEnded(status, body),
      contents: (id) => image.contents.get(id) ?? [],
      once<Value>(key: string, make: () => Value): Value {
        if (!memory.has(key)) memory.set(key, make());
        return memory.get(key) as Value;
      },
      beforeRun: (body) => {
        this.#beforeRun.push(body);
      },
      resetsConnections: options.resetsConnections,
      console: options.console,
      warn: options.warn,
      refuse(what, hint) {
        throw new PodError('cannot-restart', what, hint);
      },
    };
  }

  /** Make every object in the builder. */
  make(): void {
    for (const record of this.#image.locks) {
      const path = this.#pathOf(record.file);
      if (path !== undefined) refuseHeld(record, path, this.#context);
    }
    for (const object of this.#image.objects) {
      this.#remote.reset();
      ownerOf(object).restore(object.name, object.record, this.#context);
    }
  }

  /** What a session gets by way of its leader. */
  leadSession(leader: NewTask): void {
    for (const object of this.#image.objects)
      ownerOf(object).leadSession?.(object.name, object.record, bare(leader), this.#context);
  }

  /** What needs the whole tree. */
  treeMade(tasks: ReadonlyMap<number, NewTask>): void {
    const find = (pid: number) => {
      const task = tasks.get(pid);
      return task && bare(task);
    };
    for (const object of this.#image.objects)
      ownerOf(object).treeMade?.(object.name, object.record, find, this.#context);
  }

  /**
   * Put the descriptors of a table at their numbers in a task that inherited the builder's, and close all others.
   * In two steps by way of numbers above all in use, because the two sets of numbers may overlap.
   */
  arrange(task: NewTask, entries: readonly Entry[]): Asking<void> {
    return this.#arrange(task, entries, (sources) => sources.map(({ fd, high }) => [SYS.dup3, fd, high, 0]));
  }

  /** The same for a thread with a table of its own, which is a copy of an arranged one: nothing was inherited. */
  arrangeApart(task: NewTask, entries: readonly Entry[]): void {
    const asking = this.#arrange(task, entries, (sources) => {
      for (const { fd, high } of sources) {
        const fetched = fetchFile({ pid: builderPid, fd }, task.remote);
        if (fetched === BigInt(high)) continue;
        task.remote.call('dup3', SYS.dup3, fetched, high, 0);
        task.remote.call('close', SYS.close, fetched);
      }
      return [];
    });
    task.remote.ask(asking);
  }

  /** `raise` puts what the builder has as `fd` at the number `high`, at once or by calls that come first. */
  *#arrange(
    task: NewTask,
    entries: readonly Entry[],
    raise: (sources: readonly { fd: number; high: number }[]) => Word[][],
  ): Asking<void> {
    const files = [...new Set(entries.map((entry) => entry.file))];
    const base =
      Math.max(
        2,
        ...this.#descriptors.values(),
        ...this.#options.segments.descriptors,
        ...entries.map((entry) => entry.fd),
      ) + 1;
    const high = new Map(files.map((file, index) => [file, base + index]));
    const calls = raise(files.map((file) => ({ fd: this.#descriptor(file), high: high.get(file)! })));
    calls.push([SYS.close_range, 0, base - 1, 0]);
    for (const entry of entries)
      calls.push([SYS.dup3, high.get(entry.file)!, entry.fd, entry.closeOnExec ? O.cloexec : 0]);
    calls.push([SYS.close_range, base, 0xffffffff, 0]);
    yield* attempt(calls, (_index, errno) => {
      throw new PodError(
        'cannot-restart',
        `the descriptors of process ${task.inner} can't be put in place (errno ${errno})`,
        errno === 24n || errno === 9n ? 'raise ulimit -n' : undefined,
      );
    });
  }

  /** What must be done from inside a process that holds the object. */
  finishTables(tables: readonly Table[]): void {
    for (const object of this.#image.objects) {
      const owner = ownerOf(object);
      if (!owner.restoreInTable) continue;
      for (const { task, entries } of tables) {
        const numbers = (id: number) => entries.filter((entry) => entry.file === id).map((entry) => entry.fd);
        if (numbers(object.record.id).length === 0) continue;
        const table: RestoredTable = { remote: task.remote, pid: task.inner, numbers };
        if (owner.restoreInTable(object.name, object.record, table, this.#context) === 'done') break;
      }
    }
  }

  /** File locks and O_ASYNC, from inside: nothing may be opened or closed in the tasks afterwards. */
  lock(tables: readonly Table[]): void {
    const holders = tables.map(({ task, pid, id, entries }) => ({
      get remote() {
        return task.remote;
      },
      pid,
      table: id,
      numbers: (file: number) => entries.filter((entry) => entry.file === file).map((entry) => entry.fd),
    }));
    for (const record of this.#image.locks) {
      const name = this.#pathOf(record.file) ?? `open file ${record.file}`;
      restoreLocks(record, name, holders, this.#context);
    }
    for (const { name, record } of this.#image.objects) {
      if (asyncObjects.has(name)) armAsync(record as Records['pipe-end'], holders, this.#context);
    }
  }

  /** Last of all: timers. */
  arm(): void {
    for (const object of this.#image.objects) {
      this.#remote.reset();
      ownerOf(object).arm?.(object.name, object.record, this.#context);
    }
  }

  /** Nothing can fail any more. */
  release(): void {
    for (const body of this.#beforeRun) body();
  }

  #withEnded<Result>(status: number, body: (pid: number) => Result): Result {
    const { builder } = this.#options;
    // The pod has no process but its first so far.
    const helper = builder.clone(this.#remote, 2, 0, 0, 'a helper process');
    const result = body(helper.inner);
    helper.end(status);
    this.#remote.run([[SYS.wait4, helper.inner, 0, waitAll, 0]]);
    return result;
  }

  /** Where an open file lies that is found by its path. */
  #pathOf(id: number): string | undefined {
    const object = this.#image.objects.find(({ record }) => record.id === id);
    if (object?.name !== 'regular' && object?.name !== 'directory') return undefined;
    const { path, deleted, memfd, unlinked } = object.record as Records['regular'];
    return deleted || memfd !== undefined || unlinked !== undefined ? undefined : path;
  }

  #descriptor(id: number): number {
    const fd = this.#descriptors.get(id);
    if (fd === undefined)
      throw new PodError('damaged', `the image names open file ${id}, which it does not contain`);
    return fd;
  }
}

const bare = (task: NewTask): BareTask => ({ remote: task.remote, pid: task.inner });

function ownerOf(object: ObjectImage): FileObject {
  const owner = fileObjects.find((each) => each.records.includes(object.name));
  if (!owner)
    throw new PodError(
      'cannot-restart',
      `this engine does not make ${object.name} objects`,
      'update podstream',
    );
  return owner;
}
