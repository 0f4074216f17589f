/**
 * Row "i386 TLS". 2.4 programs point %gs at an LDT entry made by modify_ldt(2); 2.6 programs at one of three GDT
 * entries made by set_thread_area(2), and the LDT is still allowed. So the LDT and the selectors into it stay as
 * they are, and the three GDT entries are there, empty.
 *
 * The flat user segments have moved: 0x23 and 0x2b in 2.4, 0x73 and 0x7b in 2.6, whose GDT keeps its TLS entries
 * about where 2.4 had user code and data. Registers are turned; see docs/upgrade-2.6.md on signal frames.
 */
import type { Records } from '../record.ts';
import { notOf24 } from './cannot.ts';

/** Places in struct user_regs_struct, u64 each. */
const segments = { cs: 17, ss: 20, ds: 23, es: 24, fs: 25, gs: 26 };
const movedSelectors = new Map([
  [0x23n, 0x73n],
  [0x2bn, 0x7bn],
]);

const firstTlsEntry = 6;
const tlsEntries = 3;
/** struct user_desc bits of an empty entry: read_exec_only, seg_not_present. */
const emptyEntry = 0x28;

type SegmentParts = Pick<Records['thread'], 'registers'> & { gdt?: Uint8Array[] };

/** What changes in a THREAD: nothing but on i386. */
export function upgradeSegments(thread: Records['thread'], arch: string): SegmentParts {
  if (thread.gdt !== undefined) throw notOf24(`thread ${thread.tid}`, 'thread areas in the GDT');
  if (arch !== 'i386') return { registers: thread.registers };
  const registers = new Uint8Array(thread.registers);
  const view = new DataView(registers.buffer, registers.byteOffset, registers.byteLength);
  for (const index of Object.values(segments)) {
    const selector = view.getBigUint64(index * 8, true);
    view.setBigUint64(index * 8, movedSelectors.get(selector) ?? selector, true);
  }
  return { registers, gdt: Array.from({ length: tlsEntries }, (_each, index) => emptyDescriptor(index)) };
}

/** struct user_desc: entry_number, base_addr, limit, bits; u32 each. */
function emptyDescriptor(index: number): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, firstTlsEntry + index, true);
  view.setUint32(12, emptyEntry, true);
  return bytes;
}
