/**
 * Row "vdso". 2.4 maps none and has no AT_SYSINFO_EHDR; every 2.6 process has one. The upgraded address space
 * gets a place for it, with room around, because the kernel that restarts the image brings its own, of its own
 * size. The kernel's copy of the auxiliary vector names it. The copy on the program's stack stays as it is:
 * getauxval(3) of a libc that started without a vdso goes on saying that there is none.
 */
import { type Area, addressCeiling } from '../model.ts';
import type { Records } from '../record.ts';
import { cannotUpgrade, notOf24 } from './cannot.ts';

const page = 0x1000n;
/** As in Linux 6.13 on x86_64: 6 pages of data (vvar and vvar_vclock), then 2 of code. */
const vvarSize = 6n * page;
const vdsoSize = 2n * page;
/** Left free on both sides: other kernels have up to 16 pages of data and 4 of code. */
const room = 16n * page;
const span = room + vvarSize + vdsoSize + room;
/** Kept free below the main stack when there is no place above it: more than any stack limit that is not for ever. */
const stackRoom = 1n << 30n;
const lowest = 0x10000n;

const atNull = 0n;
const atSysinfo = 32n;
const atSysinfoEhdr = 33n;

export interface WithVdso {
  mm: Records['mm'];
  /** Two areas that touch, to be put where they belong among the others. */
  added: [vvar: Area, vdso: Area];
}

/** Give an address space a vdso where its areas (all of them, ascending) leave room. */
export function addVdso(mm: Records['mm'], areas: readonly Area[], arch: string): WithVdso {
  if (mm.vdso) throw notOf24(`address space ${mm.id}`, 'a vdso');
  const start = findRoom(mm, areas, arch) + room;
  const vdso = { start: start + vvarSize, size: vdsoSize, vvarStart: start, vvarSize };
  return {
    mm: { ...mm, vdso, auxv: addToAuxv(mm, vdso.start, arch === 'i386' ? 4 : 8) },
    added: [
      { start, end: vdso.start, prot: 1, kind: 'vvar', shared: false },
      { start: vdso.start, end: vdso.start + vdsoSize, prot: 5, kind: 'vdso', shared: false },
    ],
  };
}

/** First address of `span` free bytes: above the stack as the kernel likes it, else the highest gap below it. */
function findRoom(mm: Records['mm'], areas: readonly Area[], arch: string): bigint {
  // i386 programs have the lower 3 of 4 GiB; the last page of x86_64 user memory is never mapped.
  const ceiling = arch === 'i386' ? 0xc0000000n : addressCeiling(arch) - page;
  const gaps: { start: bigint; end: bigint; above: boolean }[] = [];
  let free = lowest;
  let above = false;
  for (const area of areas) {
    if (area.start > free) gaps.push({ start: free, end: area.start, above });
    if (area.end > free) free = area.end;
    above ||= area.stack === true || (area.start <= mm.startStack && mm.startStack < area.end);
  }
  if (ceiling > free) gaps.push({ start: free, end: ceiling, above });
  const high = gaps.find((gap) => gap.above && gap.end - gap.start >= span);
  if (high) return high.start;
  // Below, the gap right under the stack is the stack's to grow into.
  const stack = areas.find((area) => area.start <= mm.startStack && mm.startStack < area.end)?.start;
  const low = gaps
    .map((gap) => (gap.end === stack ? { ...gap, end: gap.end - stackRoom } : gap))
    .filter((gap) => gap.end - gap.start >= span)
    .at(-1);
  if (!low) {
    throw cannotUpgrade(
      `address space ${mm.id}`,
      `it has no ${span / 1024n} KiB of free addresses for a vdso`,
    );
  }
  return low.end - span;
}

/** The vector with AT_SYSINFO_EHDR in front; words of 8 bytes, 4 on i386. */
function addToAuxv(mm: Records['mm'], address: bigint, word: 4 | 8): Uint8Array {
  const view = new DataView(mm.auxv.buffer, mm.auxv.byteOffset, mm.auxv.byteLength);
  const read = (at: number): bigint =>
    word === 8 ? view.getBigUint64(at, true) : BigInt(view.getUint32(at, true));
  let end = 0;
  for (; end + 2 * word <= view.byteLength; end += 2 * word) {
    const type = read(end);
    if (type === atNull) break;
    if (type === atSysinfo || type === atSysinfoEhdr) throw notOf24(`address space ${mm.id}`, 'AT_SYSINFO');
  }
  const auxv = new Uint8Array(end + 4 * word);
  auxv.set(mm.auxv.subarray(0, end), 2 * word);
  const out = new DataView(auxv.buffer);
  const write = (at: number, value: bigint): void =>
    word === 8 ? out.setBigUint64(at, value, true) : out.setUint32(at, Number(value), true);
  write(0, atSysinfoEhdr);
  write(word, address);
  return auxv;
}
