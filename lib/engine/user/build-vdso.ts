/**
 * The kernel's own pages in an address space under construction: its vdso goes where the session knew it when it is
 * the very same, else it goes where nothing is and the session's own stays as memory that leads to it (vdso.ts).
 */
import { native } from '../../../native/index.ts';
import { PodError } from '../../stream/error.ts';
import { SYS } from './abi.ts';
import { findGap, overlaps, type Range } from './address-range.ts';
import type { SpaceImage } from './image-records.ts';
import type { NewTask } from './new-task.ts';
import type { MappedArea } from './proc.ts';
import { detour, detourLength, digestVdso, listFunctions } from './vdso.ts';

const MREMAP_MAYMOVE_FIXED = 3;

export class VdsoBuilder {
  readonly #task: NewTask;
  readonly #space: SpaceImage;
  #foreign = false;
  #detours: { offset: number; code: Uint8Array }[] = [];

  constructor(task: NewTask, space: SpaceImage) {
    this.#task = task;
    this.#space = space;
  }

  /** The session's vdso is not this kernel's. */
  get isForeign(): boolean {
    return this.#foreign;
  }

  /** To where the session has its own, or out of the way (of the call site too); where they are then. */
  place(now: readonly MappedArea[], site: Range): Range[] {
    const present = now
      .filter((area) => area.path === '[vdso]' || area.path.startsWith('[vvar'))
      .sort((a, b) => (a.start < b.start ? -1 : 1));
    if (present.length === 0) return [];
    const wanted = this.#space.record.vdso;
    const low = present[0]!.start;
    const length = present.at(-1)!.end - low;
    const vdso = present.find((area) => area.path === '[vdso]')!;
    cleanTail(this.#task.tid, vdso);
    if (!wanted) {
      const range = { start: low, end: low + length };
      if (!this.#space.areas.some((area) => overlaps(area, range))) return present;
      return this.#move(present, findGap([...now, ...this.#space.areas, site], length));
    }
    if (wanted.digest !== undefined && !this.#isSame(vdso, low)) {
      this.#foreign = true;
      return this.#placeBesideForeign(present, vdso, site);
    }
    const offset = vdso.start - low;
    const target = wanted.start - offset;
    if (target === low) return present;
    // Of a session that never called it (an upgraded one) only the start must be kept; it has room around.
    const needed = { start: target, end: target + length };
    const blocked = this.#space.areas.some(
      (area) => area.kind !== 'vdso' && area.kind !== 'vvar' && overlaps(area, needed),
    );
    if (blocked) {
      throw new PodError(
        'cannot-restart',
        `the vdso of this kernel does not fit at ${wanted.start.toString(16)}, where the session has it`,
        'upgrade the image with a newer pod-filter-upgrade-2.6',
      );
    }
    // The two places may overlap: by way of a third one, nothing is overwritten.
    const between = this.#move(present, findGap([...now, ...this.#space.areas, site], length));
    this.#clear({ start: target, end: target + length });
    return this.#move(between, target);
  }

  /** This kernel's vdso is the very one the session knows, and lies as far behind its data. */
  #isSame(vdso: MappedArea, low: bigint): boolean {
    const wanted = this.#space.record.vdso!;
    if (wanted.size !== vdso.end - vdso.start || wanted.start - wanted.vvarStart !== vdso.start - low)
      return false;
    return Buffer.compare(wanted.digest!, digestVdso(this.#read(vdso))) === 0;
  }

  #read({ start, end }: Range): Uint8Array {
    const bytes = new Uint8Array(Number(end - start));
    native().readMemory(this.#task.tid, start, bytes);
    return bytes;
  }

  /** Another kernel's vdso stays where it was, as memory; ours goes where nothing is. See vdso.ts. */
  #placeBesideForeign(present: readonly MappedArea[], vdso: MappedArea, site: Range): Range[] {
    const low = present[0]!.start;
    const length = present.at(-1)!.end - low;
    const functions = new Map(
      listFunctions(this.#read(vdso)).map(({ name, offset }) => [name, BigInt(offset)]),
    );
    const target = findGap([...present, ...this.#space.areas, site], length);
    const moved = this.#move(present, target);
    const start = target + (vdso.start - low);
    const wanted = this.#space.record.vdso!;
    this.#detours = (wanted.functions ?? []).map(({ name, offset }) => {
      const found = functions.get(name);
      return { offset, code: detour(name, found === undefined ? undefined : start + found) };
    });
    return moved;
  }

  /** Over what the pages brought: the entries of the old vdso's functions. */
  setDetours(): void {
    const { start, size } = this.#space.record.vdso ?? { start: 0n, size: 0n };
    for (const { offset, code } of this.#detours)
      if (BigInt(offset + detourLength) <= size)
        native().writeMemory(this.#task.tid, start + BigInt(offset), code);
  }

  /** Pages of a vdso that is here anyway: nothing to fill. */
  isKernels(address: bigint): boolean {
    const { vdso } = this.#space.record;
    return !this.#foreign && vdso !== undefined && address >= vdso.start && address < vdso.start + vdso.size;
  }

  /** Whether code at an address is of a vdso that this kernel does not have. */
  isForeignCode(address: bigint): boolean {
    const { vdso } = this.#space.record;
    return this.#foreign && vdso !== undefined && address >= vdso.start && address < vdso.start + vdso.size;
  }

  #clear(range: Range): void {
    this.#task.remote.call('munmap', SYS.munmap, range.start, range.end - range.start);
  }

  #move(areas: readonly Range[], target: bigint): Range[] {
    const { remote } = this.#task;
    const low = areas[0]!.start;
    return areas.map((area) => {
      const length = area.end - area.start;
      const start = target + (area.start - low);
      remote.call('mremap', SYS.mremap, area.start, length, length, MREMAP_MAYMOVE_FIXED, start);
      return { start, end: start + length };
    });
  }
}

/** The forked vdso still has the builder's call site in its tail. */
function cleanTail(tid: number, vdso: MappedArea): void {
  for (let offset = 32n; offset > 0n; offset -= 8n) native().poke(tid, vdso.end - offset, 0n);
}
