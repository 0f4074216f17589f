/**
 * upgrade-2.6: an image of Linux 2.4 semantics as one of 2.6 semantics. What each record becomes is in
 * lib/image/upgrade, one row of the table a file; the reasons are in docs/upgrade-2.6.md.
 *
 * Read ahead are the tree and the memory maps, because a vdso needs a gap between the areas, and, in images whose
 * tasks are merged, all small records, because the tree comes first and only processes tell what they share.
 * Pages are never kept.
 */
import { flushable, none } from 'stream-chain/defs.js';
import { defineFilter, Item, type MapResult, many } from '../lib/filter/define.ts';
import { divideToFit } from '../lib/filter/fit.ts';
import { warn } from '../lib/filter/warn.ts';
import type { Area, TreeEntry } from '../lib/image/model.ts';
import { sectionOf } from '../lib/image/model.ts';
import type { Records } from '../lib/image/record.ts';
import { notOf24 } from '../lib/image/upgrade/cannot.ts';
import { upgradeDevice } from '../lib/image/upgrade/device-numbers.ts';
import { upgradeOwner } from '../lib/image/upgrade/file-owner.ts';
import { upgradeProtection } from '../lib/image/upgrade/memory-layout.ts';
import { mergeTasks } from '../lib/image/upgrade/merge-tasks.ts';
import { findNewObject } from '../lib/image/upgrade/new-objects.ts';
import { placeAreas } from '../lib/image/upgrade/place-areas.ts';
import { type Plan, planUpgrade } from '../lib/image/upgrade/plan.ts';
import type { Context } from '../lib/image/upgrade/task.ts';
import { addVdso } from '../lib/image/upgrade/vdso.ts';
import { PodError } from '../lib/stream/error.ts';

const defaultKeep = 64;
const treeChunk = 256;
const mostLosses = 64;
/** What schemas/hello.json allows. */
const schemaLosses = 1024;

/** A task whose records came, waiting for the rest of its process. */
interface HeldTask {
  entry: TreeEntry;
  process: Item;
  thread: Item;
}

class Upgrade {
  readonly #mergeThreads: boolean;
  /** The whole of the small records is needed before the tree can be written. */
  #lookAhead: boolean;
  #old = false;
  #context: Context = { arch: '', losses: [] };
  #plan: Plan | undefined;
  #entries = new Map<number, TreeEntry>();
  #process: Item | undefined;
  readonly #held = new Map<number, HeldTask>();

  constructor(mergeThreads: boolean) {
    this.#mergeThreads = mergeThreads;
    this.#lookAhead = mergeThreads;
  }

  ready(item: Item): boolean {
    const { name } = item;
    if (name === 'hello') {
      const hello = item.record('hello');
      this.#old = hello.semantics === '2.4';
      this.#context = { arch: hello.arch, losses: [] };
      return !this.#old;
    }
    if (!this.#old) return true;
    if (name === 'tree') {
      this.#lookAhead ||= item
        .record('tree')
        .processes.some(({ pid, threadGroup }) => (threadGroup ?? pid) !== pid);
    }
    const section = sectionOf(name);
    if (section === undefined || section === 'pod' || section === 'tree' || section === 'memory')
      return false;
    return section === 'pages' || !this.#lookAhead;
  }

  take(items: readonly Item[]): Item[] {
    const entries = recordsOf(items, 'tree').flatMap((record) => record.processes);
    this.#entries = new Map(entries.map((entry) => [entry.pid, entry]));
    const byId = <Name extends 'process' | 'thread' | 'handlers'>(
      name: Name,
      key: (record: Records[Name]) => number,
    ): Map<number, Records[Name]> => new Map(recordsOf(items, name).map((record) => [key(record), record]));
    const image = {
      arch: this.#context.arch,
      entries,
      processes: byId('process', (record) => record.pid),
      threads: byId('thread', (record) => record.tid),
      handlers: byId('handlers', (record) => record.id),
    };
    this.#plan = planUpgrade(image, this.#mergeThreads, this.#context);
    if (this.#mergeThreads && this.#plan.linuxThreads === 0)
      warn('upgrade-2.6', '--merge-threads found no LinuxThreads group');
    const places = this.#placeVdsos(items);
    const firstTree = items.findIndex((item) => item.name === 'tree');
    const out: Item[] = [];
    for (const [index, item] of items.entries()) {
      if (item.name === 'tree') out.push(...this.#tree(item, index === firstTree));
      else out.push(...(places.get(item) ?? this.turn(item)));
    }
    // HELLO says what the rest lost, so it is made last.
    const hello = out.findIndex((item) => item.name === 'hello');
    if (hello >= 0) out[hello] = this.#hello(out[hello]!);
    return out;
  }

  /** What leaves instead of one record behind the tree and the memory maps. */
  turn(item: Item): Item[] {
    if (!this.#old) return [item];
    switch (item.name) {
      case 'tree':
      case 'mm':
      case 'areas':
        throw new PodError(
          'damaged',
          `frame ${item.seq}: ${item.name} comes after the objects of the image`,
          'the stream was damaged or its maker is broken',
        );
      case 'device':
        return [item.with({ meta: upgradeDevice(item.record('device')) })];
      case 'regular':
        return [this.#owner(item, item.record('regular'))];
      case 'pipe-end':
        return [this.#owner(item, item.record('pipe-end'))];
      case 'eventfd':
      case 'epoll':
      case 'timerfd':
      case 'signalfd':
      case 'inotify':
      case 'pidfd':
      case 'shm': {
        const found = findNewObject(item.name, item.record(item.name));
        if (found) throw notOf24(found.object, found.what);
        return [item];
      }
      case 'process':
        return this.#takeProcess(item);
      case 'thread':
        return this.#takeThread(item);
      default:
        return [item];
    }
  }

  end(): void {
    const left = this.#process ?? [...this.#held.values()][0]?.process;
    if (left) throw incomplete(left.record('process').pid);
  }

  #hello(item: Item): Item {
    const hello = item.record('hello');
    const merged = this.#plan!.tasksOf.size > 0;
    const { losses } = this.#context;
    const kept =
      losses.length > mostLosses
        ? [...losses.slice(0, mostLosses), `${losses.length - mostLosses} more of this kind`]
        : losses;
    return item.with({
      meta: {
        ...hello,
        semantics: '2.6',
        requires: merged ? [...new Set([...hello.requires, 'thread-groups'])] : hello.requires,
        ...(kept.length > 0 ? { losses: [...(hello.losses ?? []), ...kept].slice(0, schemaLosses) } : {}),
      },
    });
  }

  /** Where nothing is merged each TREE stays a frame of its own; else the first one's place takes the new tree. */
  #tree(item: Item, first: boolean): Item[] {
    const { groups, tree } = this.#plan!;
    const record = item.record('tree');
    if (groups.length === 0) {
      const changed = record.processes.some((entry) => entry.threadGroup !== undefined);
      const processes = record.processes.map(({ threadGroup: _alone, ...entry }) => entry);
      return [changed ? item.with({ meta: { ...record, processes } }) : item];
    }
    if (!first) return [];
    const out: Item[] = [];
    for (let at = 0; at < tree.length; at += treeChunk)
      out.push(
        ...divideToFit(
          item.with({ meta: { ...record, processes: tree.slice(at, at + treeChunk) } }),
          'processes',
        ),
      );
    return out;
  }

  /** What each MM and AREAS becomes. */
  #placeVdsos(items: readonly Item[]): Map<Item, Item[]> {
    const { arch } = this.#context;
    const places = new Map<Item, Item[]>();
    const areaItems = new Map<number, Item[]>();
    for (const item of items) {
      if (item.name !== 'areas') continue;
      const { mm } = item.record('areas');
      areaItems.set(mm, [...(areaItems.get(mm) ?? []), item]);
    }
    for (const item of items) {
      if (item.name !== 'mm') continue;
      const record = item.record('mm');
      const own = areaItems.get(record.id) ?? [];
      const lists = own.map((each) =>
        each.record('areas').areas.map((area) => upgradeProtection(area, arch)),
      );
      const { mm, added } = addVdso(record, lists.flat(), arch);
      const changed = item.with({ meta: mm });
      const placed = placeAreas(lists, added);
      if (own.length === 0) {
        places.set(item, [
          changed,
          ...placed.flat().map((areas) => Item.make('areas', { mm: mm.id, areas })),
        ]);
        continue;
      }
      places.set(item, [changed]);
      for (const [index, each] of own.entries()) {
        const parts = placed[index]!;
        places.set(
          each,
          parts.length === 1 && sameAreas(parts[0]!, each.record('areas').areas)
            ? [each]
            : parts.map((areas) => each.with({ meta: { ...each.meta, areas } })),
        );
      }
    }
    return places;
  }

  #owner<Owner extends Records['regular'] | Records['pipe-end']>(item: Item, record: Owner): Item {
    const turned = upgradeOwner(record, (pid) => (this.#plan!.tasksOf.get(pid)?.[0] ?? pid) !== pid);
    return turned === record ? item : item.with({ meta: turned });
  }

  #takeProcess(item: Item): Item[] {
    if (this.#process) throw incomplete(this.#process.record('process').pid);
    this.#process = item.copy();
    return [];
  }

  #takeThread(item: Item): Item[] {
    const process = this.#process;
    const { tid } = item.record('thread');
    if (process?.record('process').pid !== tid)
      throw notOf24(`process ${item.record('thread').pid}`, `the thread ${tid}`);
    this.#process = undefined;
    const entry = this.#entries.get(tid);
    if (!entry || entry.state === 'zombie' || this.#held.has(tid)) {
      throw new PodError(
        'damaged',
        `process ${tid} is not alive in the tree, or comes twice`,
        'the stream was damaged or its maker is broken',
      );
    }
    const tasks = this.#plan!.tasksOf.get(tid) ?? [tid];
    this.#held.set(tid, { entry, process, thread: tasks.length > 1 ? item.copy() : item });
    return tasks.every((pid) => this.#held.has(pid)) ? this.#finish(tasks) : [];
  }

  #finish(tasks: readonly number[]): Item[] {
    const held = tasks.map((pid) => this.#held.get(pid)!);
    for (const pid of tasks) this.#held.delete(pid);
    const { process, threads } = mergeTasks(
      held.map(({ entry, process, thread }) => ({
        entry,
        process: process.record('process'),
        thread: thread.record('thread'),
      })),
      this.#context,
    );
    return [
      held[0]!.process.with({ meta: process }),
      ...held.map(({ thread }, index) => thread.with({ meta: threads[index]! })),
    ];
  }
}

function recordsOf<Name extends keyof Records>(items: readonly Item[], name: Name): Records[Name][] {
  return items.filter((item) => item.name === name).map((item) => item.record(name));
}

const sameAreas = (a: readonly Area[], b: readonly Area[]): boolean =>
  a.length === b.length && a.every((area, index) => area === b[index]);

function incomplete(pid: number): PodError {
  return new PodError(
    'damaged',
    `process ${pid} is not followed by its thread, or not all threads of its group came`,
    'the stream was damaged or its maker is broken',
  );
}

export const filter = defineFilter({
  class: 'map',
  name: 'upgrade-2.6',
  version: '1',
  summary: 'turn an image of Linux 2.4 semantics into one of 2.6 semantics',
  options: {
    mergeThreads: {
      type: 'flag',
      summary: 'fold groups of LinuxThreads that do not signal by pid into processes with threads',
    },
    keep: {
      type: 'integer',
      value: 'MIB',
      summary: `most memory for records that are read ahead (default ${defaultKeep})`,
      minimum: 1,
      maximum: 1024,
    },
  },
  owns: [
    'tree',
    'mm',
    'areas',
    'device',
    'regular',
    'pipe-end',
    'eventfd',
    'epoll',
    'timerfd',
    'signalfd',
    'inotify',
    'pidfd',
    'shm',
    'process',
    'thread',
  ],
  params: (options) => (options.mergeThreads ? { mergeThreads: true } : undefined),
  map(options) {
    const upgrade = new Upgrade(options.mergeThreads);
    return {
      gather: {
        limit: (options.keep ?? defaultKeep) << 20,
        hint: 'allow more with --keep MIB, or leave out --merge-threads',
        ready: (item) => upgrade.ready(item),
        take: (items) => upgrade.take(items),
      },
      functions: [
        flushable((item: Item | typeof none): MapResult => {
          if ((item as unknown) === none) {
            upgrade.end();
            return none;
          }
          return many(upgrade.turn(item as Item));
        }) as (item: Item) => MapResult,
      ],
    };
  },
});
