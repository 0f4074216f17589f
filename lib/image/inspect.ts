/**
 * What is in a stream, for a person or a script: collected in one pass, whatever the stream is. Memory is bounded
 * by `bounds` (model.ts) and one frame; page contents are counted, not kept. All text is a stranger's: whoever
 * prints it makes it printable.
 */
import { PodError } from '../stream/error.ts';
import type { Frame } from '../stream/frame.ts';
import { kindName, kinds } from '../stream/kind.ts';
import { describePlace } from './describe-place.ts';
import { bounds, openFileKinds, type TreeEntry } from './model.ts';
import { type Records, readRecord } from './record.ts';

export interface AreaFacts {
  start: bigint;
  end: bigint;
  /** As in /proc/PID/maps: `rw-p`. */
  access: string;
  /** Path, `[heap]`, `[stack]`, `[vdso]`, `shm 3`, `` for anonymous. */
  what: string;
  /** Bytes of its pages that are in the stream. */
  saved: number;
}

export interface AddressSpaceFacts {
  id: number;
  exe: string;
  areas: AreaFacts[];
  /** Bytes of all areas. */
  size: bigint;
  saved: number;
}

export interface ProcessFacts extends TreeEntry {
  threads: number;
  /** Absent for a zombie. */
  mm?: number;
  files?: number;
}

export interface KindFacts {
  kind: string;
  frames: number;
  /** Header, meta, data and checksums. */
  bytes: number;
}

/** An open file: its record without what only restart needs. */
export interface OpenFileFacts {
  id: number;
  kind: string;
  what: string;
  /** Bytes that came with it: what was in a pipe, an unlinked file. */
  content: number;
}

export interface ImageFacts {
  hello: Records['hello'];
  pod?: Records['pod'];
  processes: ProcessFacts[];
  addressSpaces: AddressSpaceFacts[];
  places: { path: string; what: string; files: number; saved: number }[];
  sharedMemory: { id: number; origin: string; name: string; size: bigint; saved: number }[];
  openFiles: OpenFileFacts[];
  descriptors: { table: number; fd: number; file: number }[];
  kinds: KindFacts[];
}

/** Feed it every frame of an image; `facts` may be read at any time, also after a failure. */
export class ImageInspector {
  #hello: Records['hello'] | undefined;
  #pod: Records['pod'] | undefined;
  readonly #processes = new Map<number, ProcessFacts>();
  readonly #spaces = new Map<number, AddressSpaceFacts>();
  readonly #places = new Map<number, { record: Records['place']; files: number; saved: number }>();
  /** Place of a file. */
  readonly #placeOf = new Map<number, number>();
  readonly #shared = new Map<number, ImageFacts['sharedMemory'][number]>();
  readonly #files = new Map<number, OpenFileFacts>();
  readonly #descriptors: ImageFacts['descriptors'] = [];
  readonly #sizes = new SizesByKind();
  #areas = 0;

  frame(frame: Frame): void {
    this.#sizes.add(frame);
    const name = kindName(frame.kind);
    switch (name) {
      case 'hello':
        this.#hello = readRecord('hello', frame);
        break;
      case 'pod':
        this.#pod = readRecord('pod', frame);
        break;
      case 'tree':
        for (const entry of readRecord('tree', frame).processes) {
          bound(this.#processes.size, bounds.processes, 'processes');
          this.#processes.set(entry.pid, { ...entry, threads: 0 });
        }
        break;
      case 'mm':
        this.#addSpace(readRecord('mm', frame));
        break;
      case 'areas':
        this.#addAreas(readRecord('areas', frame));
        break;
      case 'place':
        this.#addPlace(readRecord('place', frame));
        break;
      case 'shm': {
        const { id, origin, size, name, path, sysv } = readRecord('shm', frame);
        const label = name ?? path ?? (sysv ? `${sysv.id} key ${sysv.key}` : '');
        bound(this.#shared.size, bounds.sharedMemory, 'shared memory objects');
        this.#shared.set(id, { id, origin, name: label, size, saved: 0 });
        break;
      }
      case 'pages':
        this.#addPages(readRecord('pages', frame), frame.data.length);
        break;
      case 'process': {
        const { pid, mm, files } = readRecord('process', frame);
        const process = this.#processes.get(pid);
        if (process) Object.assign(process, { mm, files });
        break;
      }
      case 'thread': {
        const process = this.#processes.get(readRecord('thread', frame).pid);
        if (process) process.threads += 1;
        break;
      }
      case 'content': {
        const file = this.#files.get(readRecord('content', frame).file);
        if (file) file.content += frame.data.length;
        break;
      }
      case 'fd-table': {
        const { id, entries } = readRecord('fd-table', frame);
        for (const { fd, file } of entries) {
          bound(this.#descriptors.length, 4 * bounds.openFiles, 'descriptors');
          this.#descriptors.push({ table: id, fd, file });
        }
        break;
      }
      default:
        if (openFileKinds.includes(name as (typeof openFileKinds)[number])) {
          this.#addFile(name as (typeof openFileKinds)[number], frame);
        }
    }
  }

  /** What was found; undefined as long as there was no HELLO. */
  get facts(): ImageFacts | undefined {
    if (!this.#hello) return undefined;
    return {
      hello: this.#hello,
      ...(this.#pod ? { pod: this.#pod } : {}),
      processes: [...this.#processes.values()],
      addressSpaces: [...this.#spaces.values()],
      places: [...this.#places.values()].map(({ record, files, saved }) => {
        return { path: record.path, what: describePlace(record, files), files, saved };
      }),
      sharedMemory: [...this.#shared.values()],
      openFiles: [...this.#files.values()],
      descriptors: this.#descriptors,
      kinds: this.#sizes.facts,
    };
  }

  #addPlace(record: Records['place']): void {
    const { id, files = [] } = record;
    bound(this.#places.size, bounds.places, 'places');
    const place = this.#places.get(id) ?? { record, files: 0, saved: 0 };
    this.#places.set(id, place);
    for (const { file } of files) {
      bound(place.files, bounds.placedFiles, 'files');
      place.files += 1;
      if (file !== undefined) this.#placeOf.set(file, id);
    }
  }

  #addSpace(mm: Records['mm']): void {
    bound(this.#spaces.size, bounds.addressSpaces, 'address spaces');
    this.#spaces.set(mm.id, {
      id: mm.id,
      exe: mm.exeShm === undefined ? mm.exe.path : `${mm.exe.path} (deleted)`,
      areas: [],
      size: 0n,
      saved: 0,
    });
  }

  #addAreas({ mm, areas }: Records['areas']): void {
    const space = this.#spaces.get(mm);
    if (!space) return;
    for (const area of areas) {
      bound(this.#areas, bounds.areas, 'memory areas');
      this.#areas += 1;
      const { start, end, prot } = area;
      const access = `${prot & 1 ? 'r' : '-'}${prot & 2 ? 'w' : '-'}${prot & 4 ? 'x' : '-'}${area.shared ? 's' : 'p'}`;
      space.areas.push({ start, end, access, what: describeArea(area), saved: 0 });
      space.size += end - start;
    }
  }

  #addPages({ mm, shm, file, addr }: Records['pages'], length: number): void {
    if (file !== undefined) {
      const place = this.#places.get(this.#placeOf.get(file) ?? -1);
      if (place) place.saved += length;
      return;
    }
    if (shm !== undefined) {
      const object = this.#shared.get(shm);
      if (object) object.saved += length;
      return;
    }
    const space = mm === undefined ? undefined : this.#spaces.get(mm);
    if (!space) return;
    space.saved += length;
    const area = areaAt(space.areas, addr);
    if (area) area.saved += length;
  }

  #addFile(kind: (typeof openFileKinds)[number], frame: Frame): void {
    bound(this.#files.size, bounds.openFiles, 'open files');
    const record = readRecord(kind, frame);
    this.#files.set(record.id, { id: record.id, kind, what: describeFile(kind, record), content: 0 });
  }
}

/** Counts frames and bytes by kind; also serves streams whose inside is closed. */
export class SizesByKind {
  readonly #kinds = new Map<number, KindFacts>();

  add(frame: Frame): void {
    let facts = this.#kinds.get(frame.kind);
    if (!facts) {
      facts = { kind: kindName(frame.kind) ?? `unknown ${frame.kind}`, frames: 0, bytes: 0 };
      this.#kinds.set(frame.kind, facts);
    }
    facts.frames += 1;
    facts.bytes += frame.raw.length;
  }

  /** Largest first. */
  get facts(): KindFacts[] {
    return [...this.#kinds.values()].sort((a, b) => b.bytes - a.bytes);
  }
}

/** Facts of the outermost frame of a stream. */
export interface OuterFacts {
  /** The layer's frame, when the stream is a layer. */
  layer?: Records['layer'];
  hello?: Records['hello'];
  kinds: KindFacts[];
  bytes: number;
}

/** Looks at a stream from outside: what a layer leaves in the clear. */
export class OuterInspector {
  readonly #sizes = new SizesByKind();
  #layer: Records['layer'] | undefined;
  #hello: Records['hello'] | undefined;
  #bytes = 0;

  frame(frame: Frame): void {
    this.#sizes.add(frame);
    if (frame.kind === kinds.layer) this.#layer = readRecord('layer', frame);
    if (frame.kind === kinds.hello) this.#hello = readRecord('hello', frame);
  }

  /** Bytes of the stream as they come in. */
  count(bytes: number): void {
    this.#bytes += bytes;
  }

  get facts(): OuterFacts {
    return {
      ...(this.#layer ? { layer: this.#layer } : {}),
      ...(this.#hello ? { hello: this.#hello } : {}),
      kinds: this.#sizes.facts,
      bytes: this.#bytes,
    };
  }
}

function bound(count: number, most: number, what: string): void {
  if (count < most) return;
  throw new PodError('limit', `the image has more than ${most} ${what}`, 'the image is damaged or hostile');
}

function areaAt(areas: AreaFacts[], address: bigint): AreaFacts | undefined {
  let low = 0;
  let high = areas.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (areas[middle]!.end <= address) low = middle + 1;
    else high = middle;
  }
  const area = areas[low];
  return area && area.start <= address ? area : undefined;
}

function describeArea(area: Records['areas']['areas'][number]): string {
  if (area.file) return area.deletedFile === undefined ? area.file.path : `${area.file.path} (deleted)`;
  if (area.kind === 'vdso' || area.kind === 'vvar') return `[${area.kind}]`;
  if (area.shm !== undefined) return `shm ${area.shm}`;
  if (area.stack) return '[stack]';
  if (area.heap) return '[heap]';
  return area.name === undefined ? '' : `[anon:${area.name}]`;
}

function describeFile<Kind extends (typeof openFileKinds)[number]>(kind: Kind, given: Records[Kind]): string {
  const record = given as unknown as Record<string, unknown>;
  const path = typeof record.path === 'string' ? record.path : '';
  switch (kind) {
    case 'regular':
      if (record.memfd !== undefined)
        return `memfd of shm ${String(record.memfd)} at ${String(record.position)}`;
      if (record.unlinked !== undefined)
        return `${path} (deleted) of shm ${String(record.unlinked)} at ${String(record.position)}`;
      return `${path}${record.deleted ? ' (deleted)' : ''} at ${String(record.position)}`;
    case 'pipe':
      return path ? `fifo ${path}` : `${String(record.capacity)} bytes`;
    case 'pipe-end':
      return `of pipe ${String(record.pipe)}, ${((record.flags as number) & 3) === 1 ? 'write' : 'read'}`;
    case 'unix-socket': {
      const peer = record.peer === undefined ? '' : ` with ${String(record.peer)}`;
      return `${String(record.type)} ${String(record.state)}${peer}`;
    }
    case 'inet-socket':
      return `${String(record.type)} ${String(record.family)} ${String(record.state)}`;
    case 'netlink-socket':
      return `${String(record.protocol)}${record.port === undefined ? '' : ` port ${String(record.port)}`}`;
    case 'eventfd':
      return `count ${String(record.count)}`;
    case 'pidfd':
      return record.pid === 0
        ? 'of a process that is gone'
        : `of ${record.thread ? 'thread' : 'process'} ${String(record.pid)}`;
    case 'epoll':
      return `${(record.entries as unknown[]).length} entries`;
    case 'inotify':
      return `${(record.watches as unknown[]).length} watches`;
    case 'pty':
      return `master of /dev/pts/${String(record.index)}`;
    case 'terminal':
      return `${String(record.role)} ${path}`.trim();
    default:
      return path;
  }
}
