/** Shared memory, address spaces, areas and pages. */
import { type Area, addressCeiling, bounds } from '../model.ts';
import type { Records } from '../record.ts';
import { beyond, checkPath, damaged } from './fault.ts';
import { Intervals } from './intervals.ts';

interface AddressSpace {
  /** Where pages may go: private memory. */
  writable: Intervals;
  /** End of the last area. */
  end: bigint;
  vdso: Records['mm']['vdso'];
  base: number | undefined;
  /** Number among the address spaces. */
  order: number;
}

const hex = (address: bigint): string => `0x${address.toString(16)}`;

export class MemoryCheck {
  readonly #hello: Records['hello'];
  readonly #page: bigint;
  readonly #ceiling: bigint;
  readonly #shm = new Map<number, Pick<Records['shm'], 'size' | 'origin'>>();
  /** Ids and keys of System V segments. */
  readonly #sysv = { ids: new Set<number>(), keys: new Set<number>() };
  readonly #spaces = new Map<number, AddressSpace>();
  /** Unlinked mapped files: objects that must turn up later, by id. */
  readonly #carriers = new Set<number>();
  #areas = 0;
  /** Ids of address spaces that others inherit from. */
  readonly #bases = new Set<number>();
  /** Order of the last of them that had pages; behind all of them once another had. */
  #filled = -1;
  /** The session has a root of its own. */
  #rooted = false;

  constructor(hello: Records['hello']) {
    this.#hello = hello;
    const size = hello.pageSize;
    if (size < 4096 || size > 65536 || (size & (size - 1)) !== 0)
      throw damaged(`HELLO claims pages of ${size} bytes`);
    this.#page = BigInt(size);
    this.#ceiling = addressCeiling(hello.arch);
  }

  pod(record: Records['pod']): void {
    this.#rooted = record.rooted;
  }

  /** How a shared memory object was made; undefined when there is none of this id. */
  originOf(id: number): Records['shm']['origin'] | undefined {
    return this.#shm.get(id)?.origin;
  }

  hasAddressSpace(id: number): boolean {
    return this.#spaces.has(id);
  }

  /** Address space that another one inherits from. */
  baseOf(id: number): number | undefined {
    return this.#spaces.get(id)?.base;
  }

  /** Open-file ids that areas name and that only come later. */
  get carriers(): ReadonlySet<number> {
    return this.#carriers;
  }

  shm(record: Records['shm']): void {
    const { id, size, origin, path } = record;
    if (this.#shm.has(id)) throw damaged(`shared memory ${id} is defined twice`);
    if (this.#shm.size >= bounds.sharedMemory)
      throw beyond(`${this.#shm.size + 1} shared memory objects`, bounds.sharedMemory);
    if (size > bounds.objectSize) throw beyond(`shared memory of ${size} bytes`, bounds.objectSize);
    if (path !== undefined) checkPath(path, `shared memory ${id}`);
    if ((path === undefined) === (origin === 'unlinked' || origin === 'named'))
      throw damaged(`shared memory ${id} is ${origin} and has ${path === undefined ? 'no' : 'a'} path`);
    // No file is made because an image says so, but in what ends with the pod.
    if (origin === 'named' && !(this.#rooted && /^\/dev\/shm\/[^/]+$/.test(path!)))
      throw damaged(`shared memory ${id} is not in a /dev/shm that is the pod's own`);
    const { sysv } = record;
    if ((sysv === undefined) === (origin === 'sysv'))
      throw damaged(`shared memory ${id} is ${origin} and has ${sysv ? 'a' : 'no'} System V id`);
    if (sysv) {
      const { ids, keys } = this.#sysv;
      if (ids.has(sysv.id)) throw damaged(`System V shared memory ${sysv.id} is defined twice`);
      if (sysv.key !== 0 && keys.has(sysv.key))
        throw damaged(`System V shared memory ${sysv.id} has the key ${sysv.key} of another`);
      ids.add(sysv.id);
      keys.add(sysv.key);
    }
    this.#shm.set(id, { size, origin });
  }

  mm(record: Records['mm']): void {
    const { id, vdso, base } = record;
    const name = `address space ${id}`;
    if (this.#spaces.has(id)) throw damaged(`${name} is defined twice`);
    if (this.#spaces.size >= bounds.addressSpaces)
      throw beyond(`${this.#spaces.size + 1} address spaces`, bounds.addressSpaces);
    checkPath(record.exe.path, `the executable of ${name}`);
    const { exeShm } = record;
    if (exeShm !== undefined) {
      const origin = this.originOf(exeShm);
      if (origin === undefined)
        throw damaged(`${name} runs shared memory ${exeShm}, which is not defined before it`);
      if (origin !== 'memfd' && origin !== 'unlinked')
        throw damaged(`${name} runs shared memory ${exeShm}, which is no file`);
    }
    for (const key of ['Code', 'Data'] as const)
      this.#range(record[`start${key}`], record[`end${key}`], `${name}: its ${key.toLowerCase()}`, false);
    this.#range(record.startBrk, record.brk, `${name}: its heap`, false);
    this.#range(record.argStart, record.argEnd, `${name}: its arguments`, false);
    this.#range(record.envStart, record.envEnd, `${name}: its environment`, false);
    if (record.startStack >= this.#ceiling) throw damaged(`${name}: its stack is outside user memory`);
    if (record.auxv.length % (this.#hello.arch === 'i386' ? 8 : 16) !== 0)
      throw damaged(`${name}: its auxiliary vector has ${record.auxv.length} bytes`);
    if (vdso) {
      if (this.#hello.semantics === '2.4') throw damaged(`${name} has a vdso, which 2.4 lacked`);
      this.#range(vdso.start, vdso.start + vdso.size, `${name}: its vdso`, true);
      // Some kernels have none.
      if (vdso.vvarSize > 0n)
        this.#range(vdso.vvarStart, vdso.vvarStart + vdso.vvarSize, `${name}: its vvar`, true);
    }
    if (base !== undefined) {
      if (!this.#spaces.has(base))
        throw damaged(`${name} inherits from address space ${base}, which is not defined before it`);
      this.#bases.add(base);
    }
    this.#spaces.set(id, { writable: new Intervals(), end: 0n, vdso, base, order: this.#spaces.size });
  }

  areas(record: Records['areas']): void {
    const space = this.#spaces.get(record.mm);
    if (!space) throw damaged(`areas name address space ${record.mm}, which is not defined before them`);
    this.#areas += record.areas.length;
    if (this.#areas > bounds.areas) throw beyond(`${this.#areas} areas`, bounds.areas);
    for (const area of record.areas) this.#area(record.mm, space, area);
  }

  pages(record: Records['pages'], length: number): void {
    const { addr } = record;
    const owner = record.mm === undefined ? `shared memory ${record.shm}` : `address space ${record.mm}`;
    if ((record.mm === undefined) === (record.shm === undefined))
      throw damaged(`pages at ${hex(addr)} belong to both or none of an address space and shared memory`);
    if (addr % this.#page !== 0n || length === 0 || BigInt(length) % this.#page !== 0n)
      throw damaged(`pages at ${hex(addr)} of ${owner} are not whole pages`);
    if (record.shm !== undefined) {
      const size = this.#shm.get(record.shm)?.size;
      if (size === undefined) throw damaged(`pages name ${owner}, which is not defined before them`);
      if (addr + BigInt(length) > this.#roundUp(size))
        throw damaged(`pages at ${hex(addr)} are beyond ${owner}`);
      return;
    }
    const space = this.#spaces.get(record.mm!);
    if (!space) throw damaged(`pages name ${owner}, which is not defined before them`);
    const order = this.#bases.has(record.mm!) ? space.order : this.#spaces.size;
    if (order < this.#filled) throw damaged(`pages of ${owner}, which others inherit, come too late`);
    this.#filled = order;
    const end = addr + BigInt(length);
    if (end > this.#ceiling || !space.writable.covers(Number(addr), Number(end)))
      throw damaged(`pages at ${hex(addr)} of ${owner} are outside its private areas`);
  }

  #area(mm: number, space: AddressSpace, area: Area): void {
    const name = `area ${hex(area.start)} of address space ${mm}`;
    this.#range(area.start, area.end, name, true);
    if (area.start < space.end) throw damaged(`${name} is out of order or overlaps the one before`);
    space.end = area.end;
    const length = area.end - area.start;
    if (area.kind === 'file' || area.kind === 'shm') {
      const { offset } = area;
      if (offset === undefined) throw damaged(`${name} has no offset`);
      if (offset % this.#page !== 0n || offset + length > 1n << 63n)
        throw damaged(`${name} maps the impossible offset ${hex(offset)}`);
    }
    if (area.kind === 'file') this.#file(name, area);
    if (area.flock !== undefined && (area.kind !== 'file' || area.deletedFile !== undefined))
      throw damaged(`${name} is locked and maps no file`);
    if (area.kind === 'shm') this.#shmArea(name, area);
    if (area.kind === 'vdso' || area.kind === 'vvar') this.#kernelArea(name, space, area);
    if (area.inherited && (area.shared || space.base === undefined))
      throw damaged(`${name} is inherited, but ${area.shared ? 'shared' : 'its address space has no base'}`);
    for (const guard of area.guards ?? []) {
      this.#range(guard.start, guard.end, `a guard of ${name}`, true);
      if (guard.start < area.start || guard.end > area.end) throw damaged(`${name} has a guard outside`);
    }
    // Pages of shared areas would go to what backs them (a file of the user's): never from a stream.
    if (!area.shared && area.kind !== 'vvar') space.writable.add(Number(area.start), Number(area.end));
  }

  #file(name: string, area: Area): void {
    if (area.file) checkPath(area.file.path, name);
    if (area.deletedFile !== undefined) this.#carriers.add(area.deletedFile);
    else if (!area.file) throw damaged(`${name} maps a file but names none`);
  }

  #shmArea(name: string, area: Area): void {
    if (area.shm === undefined) throw damaged(`${name} maps shared memory but names none`);
    if (!this.#shm.has(area.shm))
      throw damaged(`${name} names shared memory ${area.shm}, which is not defined before it`);
    if (this.originOf(area.shm) !== 'sysv') return;
    const { size } = this.#shm.get(area.shm)!;
    if (!area.shared || area.offset! + area.end - area.start > this.#roundUp(size))
      throw damaged(`${name} is no part of the System V shared memory it names`);
  }

  #kernelArea(name: string, space: AddressSpace, area: Area): void {
    const { vdso } = space;
    if (!vdso) throw damaged(`${name} is the kernel's ${area.kind}, but its address space has no vdso`);
    const [start, size] = area.kind === 'vdso' ? [vdso.start, vdso.size] : [vdso.vvarStart, vdso.vvarSize];
    if (area.start < start || area.end > start + size)
      throw damaged(`${name} is not where its address space has its ${area.kind}`);
  }

  #range(start: bigint, end: bigint, name: string, whole: boolean): void {
    if (start > end || (whole && start === end)) throw damaged(`${name} ends before it starts`);
    if (end > this.#ceiling) throw damaged(`${name} is outside user memory`);
    if (whole && (start % this.#page !== 0n || end % this.#page !== 0n))
      throw damaged(`${name} is not page aligned`);
  }

  #roundUp(size: bigint): bigint {
    return ((size + this.#page - 1n) / this.#page) * this.#page;
  }
}
