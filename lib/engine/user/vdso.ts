/**
 * The vdso: code that the kernel maps into every process, to which libc and others keep pointers (vdso(7)).
 *
 * Each kernel has its own. A session that comes to a kernel with the very same one gets it at its old address. On
 * any other kernel its old code stays where it was, as plain memory, so that every pointer into it still leads to
 * something, and the entry of each function is overwritten: it jumps to the function of that name in this kernel's
 * vdso, which lies elsewhere, or makes the system call. Whoever looks for functions by name finds them in the old
 * symbol table at the old places. When such a session moves on, this kernel's vdso is its vdso, and the older one
 * memory like any other: the jumps lead on from one to the next.
 *
 * No thread may stand inside the old code meanwhile, since that reads the old kernel's data; see freeze.ts.
 */
import { createHash } from 'node:crypto';

/** A function of a vdso. */
export interface VdsoFunction {
  name: string;
  /** Bytes behind the start of the vdso. */
  offset: number;
}

const PT_DYNAMIC = 2;
const DT_STRTAB = 5n;
const DT_SYMTAB = 6n;
const STT_FUNC = 2;
const symbolSize = 24;
/** A vdso has about fifteen symbols. */
const mostFunctions = 64;

/** What tells one vdso from another. */
export function digestVdso(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(bytes).digest());
}

/** The functions of a kernel's vdso, read from its dynamic symbols: elf(5). */
export function listFunctions(bytes: Uint8Array): VdsoFunction[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const word = (at: number) => Number(view.getBigUint64(at, true));
  const headers = word(32);
  const size = view.getUint16(54, true);
  const count = view.getUint16(56, true);
  let strings: number | undefined;
  let symbols: number | undefined;
  for (let index = 0; index < count; index++) {
    const header = headers + index * size;
    if (view.getUint32(header, true) !== PT_DYNAMIC) continue;
    for (let at = word(header + 16); view.getBigUint64(at, true) !== 0n; at += 16) {
      const tag = view.getBigUint64(at, true);
      if (tag === DT_STRTAB) strings = word(at + 8);
      if (tag === DT_SYMTAB) symbols = word(at + 8);
    }
  }
  if (strings === undefined || symbols === undefined) return [];
  const functions: VdsoFunction[] = [];
  // The linker puts the names right behind the symbols.
  for (let at = symbols; at + symbolSize <= strings && functions.length < mostFunctions; at += symbolSize) {
    const offset = word(at + 8);
    if ((view.getUint8(at + 4) & 15) !== STT_FUNC || offset === 0) continue;
    const name = strings + view.getUint32(at, true);
    functions.push({
      name: Buffer.from(bytes.subarray(name, bytes.indexOf(0, name))).toString('latin1'),
      offset,
    });
  }
  return functions;
}

/** System calls that do what a function does. */
const calls: Readonly<Record<string, number>> = {
  clock_gettime: 228,
  clock_getres: 229,
  gettimeofday: 96,
  time: 201,
  getcpu: 309,
  getrandom: 318,
};

/**
 * Functions whose state in the caller's memory has the form that one kernel gave it: never carried over to
 * another's.
 */
const stateful = new Set(['getrandom']);

const plainName = (name: string) => name.replace(/^__vdso_/, '');

/** What goes over the entry of a function of the old vdso: at most 12 bytes, where functions are 16 apart. */
export function detour(name: string, target: bigint | undefined): Uint8Array {
  const plain = plainName(name);
  if (target !== undefined && !stateful.has(plain)) {
    // mov $target, %rax; jmp *%rax
    const code = Uint8Array.of(0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0);
    new DataView(code.buffer).setBigUint64(2, target, true);
    return code;
  }
  const number = calls[plain];
  // mov $number, %eax; syscall; ret — or mov $-ENOSYS, %rax; ret
  if (number === undefined) return Uint8Array.of(0x48, 0xc7, 0xc0, 0xda, 0xff, 0xff, 0xff, 0xc3);
  const code = Uint8Array.of(0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3);
  new DataView(code.buffer).setUint32(1, number, true);
  return code;
}

export const detourLength = 12;
