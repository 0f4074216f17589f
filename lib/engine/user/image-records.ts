/** The records of an image but its pages, gathered on the way in: small, bounded, by kind. */
import { type Records, readRecord } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import type { Frame } from '../../stream/frame.ts';
import { kindName } from '../../stream/kind.ts';

export type Area = Records['areas']['areas'][number];
export type TreeEntry = Records['tree']['processes'][number];

export interface ThreadImage {
  record: Records['thread'];
  extended: Uint8Array;
}

export interface ProcessImage {
  record: Records['process'];
  /** The leader first. */
  threads: ThreadImage[];
}

export interface SpaceImage {
  record: Records['mm'];
  areas: Area[];
}

/** All frames of a place together. */
export type PlaceImage = Records['place'] & { files: NonNullable<Records['place']['files']> };

export interface ObjectImage {
  name: keyof Records;
  record: { id: number };
}

/** Everything but memory: what a session of some hundred processes needs is a few MiB. */
const mostBytes = 512 << 20;
/**
 * Values in all records together. A value may be one byte in the stream and some dozen bytes here, so bytes alone would
 * let a small stream take all memory. An area has about ten: two hundred thousand of them fit.
 */
const mostValues = 2 << 20;

const notObjects = new Set<string>([
  'hello',
  'layer',
  'data',
  'end',
  'error',
  'pod',
  'tree',
  'place',
  'shm',
  'mm',
  'areas',
  'pages',
  'content',
  'fd-table',
  'file-locks',
  'fs',
  'handlers',
  'seccomp',
  'sysv-semaphores',
  'sysv-queue',
  'process',
  'thread',
]);

export class ImageRecords {
  hello: Records['hello'] | undefined;
  pod: Records['pod'] | undefined;
  readonly tree: TreeEntry[] = [];
  readonly places = new Map<number, PlaceImage>();
  readonly segments = new Map<number, Records['shm']>();
  readonly spaces = new Map<number, SpaceImage>();
  /** Open-file objects in the order of the stream, which is that of dependency. */
  readonly objects: ObjectImage[] = [];
  readonly contents = new Map<number, { meta: Records['content']; data: Uint8Array }[]>();
  readonly tables = new Map<number, Records['fd-table']['entries']>();
  readonly locks: Records['file-locks'][] = [];
  readonly fs = new Map<number, Records['fs']>();
  readonly handlers = new Map<number, Records['handlers']>();
  readonly semaphores: { record: Records['sysv-semaphores']; data: Uint8Array }[] = [];
  /** Pieces of queues, those of one behind each other. */
  readonly queues: { record: Records['sysv-queue']; data: Uint8Array }[] = [];
  readonly filters = new Map<number, Records['seccomp']>();
  readonly processes = new Map<number, ProcessImage>();
  #bytes = 0;
  #values = 0;

  /** Take a frame that is not PAGES; unknown non-critical ones are passed over. */
  add(frame: Frame): void {
    const name = kindName(frame.kind);
    if (name === undefined) return;
    this.#bytes += frame.raw.length;
    if (this.#bytes > mostBytes)
      throw new PodError(
        'limit',
        `the image has more than ${mostBytes >> 20} MiB of records`,
        'the stream is damaged or hostile',
      );
    this.#values += countValues(frame.meta);
    if (this.#values > mostValues)
      throw new PodError(
        'limit',
        `the records of the image have more than ${mostValues} values`,
        'the stream is damaged or hostile',
      );
    switch (name) {
      case 'hello':
        this.hello = readRecord(name, frame);
        return;
      case 'pod':
        this.pod = readRecord(name, frame);
        return;
      case 'tree':
        this.tree.push(...readRecord(name, frame).processes);
        return;
      case 'place': {
        const { files = [], ...record } = readRecord(name, frame);
        const known = this.places.get(record.id);
        if (known) for (const file of files) known.files.push(file);
        else this.places.set(record.id, { ...record, files });
        return;
      }
      case 'shm': {
        const record = readRecord(name, frame);
        this.segments.set(record.id, record);
        return;
      }
      case 'mm': {
        const record = readRecord(name, frame);
        this.spaces.set(record.id, { record, areas: [] });
        return;
      }
      case 'areas': {
        const record = readRecord(name, frame);
        needed(this.spaces, record.mm, 'address space').areas.push(...record.areas);
        return;
      }
      case 'content': {
        const meta = readRecord(name, frame);
        const list = this.contents.get(meta.file) ?? [];
        this.contents.set(meta.file, list);
        list.push({ meta, data: frame.data.slice() });
        return;
      }
      case 'fd-table': {
        const record = readRecord(name, frame);
        const entries = this.tables.get(record.id) ?? [];
        this.tables.set(record.id, entries);
        entries.push(...record.entries);
        return;
      }
      case 'file-locks':
        this.locks.push(readRecord(name, frame));
        return;
      case 'fs': {
        const record = readRecord(name, frame);
        this.fs.set(record.id, record);
        return;
      }
      case 'handlers': {
        const record = readRecord(name, frame);
        this.handlers.set(record.id, record);
        return;
      }
      case 'sysv-semaphores':
        this.semaphores.push({ record: readRecord(name, frame), data: frame.data.slice() });
        return;
      case 'sysv-queue':
        this.queues.push({ record: readRecord(name, frame), data: frame.data.slice() });
        return;
      case 'seccomp': {
        const record = readRecord(name, frame);
        this.filters.set(record.id, record);
        return;
      }
      case 'process': {
        const record = readRecord(name, frame);
        this.processes.set(record.pid, { record, threads: [] });
        return;
      }
      case 'thread': {
        const record = readRecord(name, frame);
        needed(this.processes, record.pid, 'process').threads.push({ record, extended: frame.data.slice() });
        return;
      }
      default:
        if (notObjects.has(name) || name === 'data' || name === 'pages')
          throw new PodError('damaged', `a ${name} frame is out of place`);
        this.objects.push({
          name,
          record: readRecord(name as keyof Records, frame) as unknown as { id: number },
        });
    }
  }
}

function countValues(value: unknown): number {
  if (value === null || typeof value !== 'object' || ArrayBuffer.isView(value)) return 1;
  let count = 1;
  for (const each of Object.values(value)) count += countValues(each);
  return count;
}

/** What an id names; `damaged` when nothing does. */
export function needed<Value>(map: ReadonlyMap<number, Value>, id: number, what: string): Value {
  const value = map.get(id);
  if (value === undefined)
    throw new PodError('damaged', `the image names ${what} ${id}, which it does not contain`);
  return value;
}
