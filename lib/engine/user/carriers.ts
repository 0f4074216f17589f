/**
 * What no path leads to and a session holds all the same: shared anonymous memory, memfd, and files that were
 * unlinked while they are open, mapped or run. Each is one SHM record, whoever refers to it and how often, and its
 * bytes follow as PAGES {shm}: so they are never whole in our memory.
 *
 * An object is known by device and inode. It is read through a descriptor of our own where we can get one: from an
 * open file of the session, /proc/PID/exe, or /proc/PID/map_files (which takes CAP_CHECKPOINT_RESTORE). Otherwise
 * through the mappings of it.
 */
import { type BigIntStats, closeSync, fstatSync, statfsSync } from 'node:fs';
import type { Records } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import { F, pageSize } from './abi.ts';
import { control } from './objects/local-calls.ts';
import type { SysvSegment } from './objects/sysv-shm.ts';
import { openMapping, openQuietly, type PageSource, readableLength } from './page-source.ts';
import { type Attributes, readAttributes } from './places/attributes.ts';
import { inodeName, type MappedArea } from './proc.ts';
import { segmentName } from './segment-name.ts';

interface Mapping {
  pid: number;
  start: bigint;
  offset: bigint;
  length: bigint;
  /** Known to reach the end of the file. */
  toEnd?: boolean;
}

interface Carrier {
  id: number;
  origin: Records['shm']['origin'];
  /** As /proc shows it. */
  link: string;
  /** Our own descriptor, with an offset of its own. */
  fd?: number;
  stat?: BigIntStats;
  name?: string;
  path?: string;
  sysv?: SysvSegment;
  mapped: Mapping[];
  /** Who to blame when nothing can be read. */
  owner: string;
}

export interface CarriedMemory {
  records: { name: 'shm'; meta: Records['shm'] }[];
  pages: PageSource[];
}

const memfdLink = /^\/memfd:(.*) \(deleted\)$/s;

/** Name of a memfd by the path that /proc shows; undefined for any other file. */
export function memfdName(link: string): string | undefined {
  return memfdLink.exec(link)?.[1];
}

/** Shared anonymous memory, as mmap(2) made it or as a restart stands in for it. */
export function isAnonymousShared(path: string): boolean {
  return path === '/dev/zero (deleted)' || path.startsWith('[anon_shmem') || memfdName(path) === segmentName;
}

export class Carriers {
  readonly #byKey = new Map<string, Carrier>();

  /**
   * The object behind an open file; `fd` is a descriptor of ours that shares the session's offset and is not moved.
   * `path` is the path it had in the pod, `owner` names the descriptor in errors.
   */
  ofFile(fd: number, link: string, path: string, owner: string): number {
    const stat = fstatSync(fd, { bigint: true });
    const key = keyOf(stat);
    const known = this.#byKey.get(key);
    if (known?.fd !== undefined) return known.id;
    const own = openAgain(fd);
    if (known) {
      if (own !== undefined) this.#adopt(known, own);
      return known.id;
    }
    return this.#add(key, link, path, owner, own, stat).id;
  }

  /**
   * The object behind a mapping. `opened`: what openMapping() gave for it; it is ours now. `toEnd`: see reachesEnd().
   */
  ofMapping(
    pid: number,
    area: MappedArea,
    { opened, toEnd }: { opened: number | undefined; toEnd: boolean },
    path: string,
    owner: string,
  ): number {
    const stat = opened === undefined ? undefined : fstatSync(opened, { bigint: true });
    const key = stat ? keyOf(stat) : (this.keyOfKnown(area, owner) ?? `${area.device}:${area.inode}`);
    let carrier = this.#byKey.get(key);
    if (!carrier) carrier = this.#add(key, area.path, path, owner, opened, stat);
    else if (opened !== undefined) this.#adopt(carrier, opened);
    const length = area.end - area.start;
    carrier.mapped.push({ pid, start: area.start, offset: area.offset, length, toEnd });
    return carrier.id;
  }

  /**
   * The key of a known object that a mapping is of, when that could not be opened. File systems that give their
   * files another device, or another inode, than their mappings (btrfs, overlayfs) leave the name to go by.
   */
  keyOfKnown(area: MappedArea, owner: string): string | undefined {
    const key = `${area.device}:${area.inode}`;
    if (this.#byKey.has(key)) return key;
    for (const [other, carrier] of this.#byKey) {
      if (carrier.link !== area.path || other.startsWith(`${area.device}:`)) continue;
      if (other.endsWith(`:${area.inode}`)) return other;
      throw new PodError(
        'cannot-checkpoint',
        `${owner}: it can't be told whether it is the open file of the same name`,
        'dump as root',
      );
    }
    return undefined;
  }

  /** Shared anonymous memory: nobody has it open, and what nobody maps nobody can see. */
  ofAnonymous(pid: number, area: MappedArea): number {
    const key = `${area.device}:${area.inode}`;
    const carrier = this.#byKey.get(key) ?? {
      id: this.#byKey.size,
      origin: 'anonymous',
      link: area.path,
      mapped: [],
      owner: '',
    };
    this.#byKey.set(key, carrier);
    carrier.mapped.push({ pid, start: area.start, offset: area.offset, length: area.end - area.start });
    return carrier.id;
  }

  /** A System V segment that is attached. */
  ofSysv(pid: number, area: MappedArea, segment: SysvSegment, owner: string): number {
    const key = `sysv ${segment.id}`;
    const carrier: Carrier = this.#byKey.get(key) ?? {
      id: this.#byKey.size,
      origin: 'sysv',
      link: area.path,
      sysv: segment,
      mapped: [],
      owner,
    };
    this.#byKey.set(key, carrier);
    const opened = carrier.fd === undefined ? openMapping(pid, area) : undefined;
    if (opened !== undefined) this.#adopt(carrier, opened);
    carrier.mapped.push({ pid, start: area.start, offset: area.offset, length: area.end - area.start });
    return carrier.id;
  }

  /** Shared anonymous memory and memfds that are mapped: by device and inode, with who has them. */
  mapped(describe: (pid: number) => string): Map<string, string> {
    const found = new Map<string, string>();
    for (const [key, { origin, mapped, link }] of this.#byKey) {
      const [first] = mapped;
      if (!first || (origin !== 'anonymous' && origin !== 'memfd')) continue;
      found.set(key, `${describe(first.pid)}, memory at ${first.start.toString(16)} (${link})`);
    }
    return found;
  }

  /** Records, and where their pages are; call close() when the pages were read. */
  finish(loss: (sentence: string) => void): CarriedMemory {
    const records: CarriedMemory['records'] = [];
    const pages: PageSource[] = [];
    for (const carrier of this.#byKey.values()) {
      if (carrier.sysv) refuseShared(carrier, carrier.sysv);
      const found = carrier.fd === undefined ? throughMappings(carrier, loss) : throughDescriptor(carrier);
      records.push({ name: 'shm', meta: recordOf(carrier, found.size) });
      pages.push(...found.pages);
    }
    return { records, pages };
  }

  close(): void {
    for (const carrier of this.#byKey.values()) {
      if (carrier.fd !== undefined) closeSync(carrier.fd);
      delete carrier.fd;
    }
  }

  #adopt(carrier: Carrier, fd: number): void {
    if (carrier.fd !== undefined) closeSync(fd);
    else Object.assign(carrier, { fd, stat: fstatSync(fd, { bigint: true }) });
  }

  #add(
    key: string,
    link: string,
    path: string,
    owner: string,
    fd: number | undefined,
    stat: BigIntStats | undefined,
  ): Carrier {
    const name = memfdName(link);
    const refuse = (why: string, hint: string): never => {
      if (fd !== undefined) closeSync(fd);
      throw new PodError('cannot-checkpoint', `${owner}: ${why}`, hint);
    };
    if (name?.includes('\ufffd')) refuse('the name of the memory file is not UTF-8', 'give it another name');
    if (fd !== undefined && isHuge(fd))
      refuse("memory from huge pages can't be saved yet", 'run the program without huge pages');
    const carrier: Carrier = {
      id: this.#byKey.size,
      origin: name === undefined ? 'unlinked' : 'memfd',
      link,
      ...(name === undefined ? { path } : { name }),
      ...(fd === undefined ? {} : { fd }),
      ...(stat ? { stat } : {}),
      mapped: [],
      owner,
    };
    this.#byKey.set(key, carrier);
    return carrier;
  }
}

/** Device and inode as /proc/PID/maps has them. */
export const keyOf = (stat: BigIntStats): string => inodeName(stat.dev, stat.ino);

/** A descriptor of our own, with an offset of its own; undefined when the file can't be opened for reading. */
function openAgain(fd: number): number | undefined {
  return openQuietly(`/proc/self/fd/${fd}`);
}

const hugetlbfs = 0x958458f6n;

function isHuge(fd: number): boolean {
  return statfsSync(`/proc/self/fd/${fd}`, { bigint: true }).type === hugetlbfs;
}

function recordOf(carrier: Carrier, size: bigint): Records['shm'] {
  const { id, origin, stat, fd, name, path, sysv } = carrier;
  return {
    id,
    size,
    origin,
    ...(name === undefined ? {} : { name }),
    ...(path === undefined ? {} : { path }),
    ...(origin === 'memfd' && fd !== undefined ? { seals: control(fd, F.getSeals) } : {}),
    ...(sysv ? { sysv: withoutCounts(sysv) } : {}),
    ...(stat && !sysv && origin !== 'anonymous'
      ? {
          mode: Number(stat.mode),
          uid: Number(stat.uid),
          gid: Number(stat.gid),
          atimeNs: stat.atimeNs,
          mtimeNs: stat.mtimeNs,
          ...carriedAttributes(fd, carrier.owner),
        }
      : {}),
  };
}

/** As many as fit into a frame beside the rest. */
const mostAttributes = 32_768;

function carriedAttributes(fd: number | undefined, owner: string): { attributes?: Attributes } {
  const attributes = fd === undefined ? undefined : readAttributes(fd, owner);
  if (!attributes) return {};
  const bytes = attributes.reduce((sum, { name, value }) => sum + name.length + value.length, 0);
  if (bytes > mostAttributes)
    throw new PodError(
      'cannot-checkpoint',
      `${owner}: it has ${bytes} bytes of extended attributes, which no path leads to any more`,
      'let the program close it first',
    );
  return { attributes };
}

const withoutCounts = ({ size: _size, attached: _attached, ...rest }: SysvSegment) => rest;

function throughDescriptor(carrier: Carrier): { size: bigint; pages: PageSource[] } {
  const size = carrier.sysv?.size ?? carrier.stat!.size;
  const page = BigInt(pageSize);
  const end = ((size + page - 1n) / page) * page;
  const source = { key: { shm: carrier.id }, fd: carrier.fd!, start: 0n, end, shift: 0n };
  return { size, pages: size === 0n ? [] : [{ ...source, wanted: 'all' }] };
}

/** What is mapped of it by anybody, each part once. Pages another process put there need not be in a page table. */
function throughMappings(
  carrier: Carrier,
  loss: (sentence: string) => void,
): { size: bigint; pages: PageSource[] } {
  if (carrier.mapped.length === 0) {
    throw new PodError(
      'cannot-checkpoint',
      `${carrier.owner}: its bytes can't be read: it has no name, and is not open for reading`,
      'dump as the owner of the file, or as root',
    );
  }
  const pages: PageSource[] = [];
  let covered = 0n;
  let whole = true;
  for (const each of carrier.mapped.sort((a, b) => Number(a.offset - b.offset))) {
    const from = each.offset > covered ? each.offset : covered;
    const to = each.offset + (carrier.origin === 'anonymous' ? each.length : readableLength(each.pid, each));
    if (to <= from) continue;
    whole &&= from === covered;
    const start = each.start + (from - each.offset);
    pages.push({
      key: { shm: carrier.id },
      pid: each.pid,
      start,
      end: start + (to - from),
      shift: from - start,
      wanted: 'all',
    });
    covered = to;
  }
  if (!carrier.sysv) {
    const last = carrier.mapped.find(({ offset, length }) => offset + length >= covered);
    const ended = last !== undefined && (last.toEnd || last.offset + last.length > covered);
    if (carrier.origin !== 'anonymous' && !(whole && ended))
      loss(
        `${carrier.owner}: it is mapped in part and has no name; without more rights the rest is not saved`,
      );
    return { size: covered, pages };
  }
  const { size } = carrier.sysv;
  if (!whole || covered < size) {
    throw new PodError(
      'cannot-checkpoint',
      `${carrier.owner}: only a part of this System V shared memory is attached, the rest can't be read`,
      'dump as root',
    );
  }
  return { size, pages };
}

/** What somebody outside has attached too would be torn apart. */
function refuseShared(carrier: Carrier, segment: SysvSegment): void {
  if (segment.attached <= BigInt(carrier.mapped.length)) return;
  throw new PodError(
    'cannot-checkpoint',
    `${carrier.owner}: a process outside the session has this System V shared memory attached too`,
    'take all programs that share it into one session (pod-run)',
  );
}
