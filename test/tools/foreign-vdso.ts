/**
 * An image as if it came from another kernel: its vdso is not the one of this machine, and but for its symbols it
 * holds nothing that could run here. What a restart of it does, it does at the entries alone.
 */
import { type Records, readRecord } from '../../lib/image/record.ts';
import { kinds } from '../../lib/stream/kind.ts';
import type { Sink } from '../../lib/stream/sink.ts';
import { StreamParser } from '../../lib/stream/stream-parser.ts';
import { StreamWriter } from '../../lib/stream/stream-writer.ts';

const trap = 0xcc; // int3

export function makeVdsoForeign(image: Uint8Array): Uint8Array {
  const chunks: Buffer[] = [];
  const output: Sink = {
    write: (chunk) => void chunks.push(Buffer.from(chunk)),
    end: () => undefined,
    abort: () => undefined,
  };
  const writer = new StreamWriter(output);
  const spaces = new Map<number, NonNullable<Records['mm']['vdso']>>();
  const parser = new StreamParser({
    frame(frame) {
      if (frame.kind === kinds.end) return writer.end();
      if (frame.kind === kinds.mm) {
        const mm = readRecord('mm', frame);
        const { vdso } = mm;
        if (!vdso?.digest) throw new Error('the image has no vdso');
        spaces.set(mm.id, vdso);
        return writer.record(kinds.mm, {
          ...mm,
          vdso: { ...vdso, digest: vdso.digest.map((byte) => byte ^ 1) },
        });
      }
      if (frame.kind === kinds.pages) {
        const record = readRecord('pages', frame);
        const vdso = record.mm === undefined ? undefined : spaces.get(record.mm);
        if (vdso && record.addr >= vdso.start && record.addr < vdso.start + vdso.size)
          return writer.record(kinds.pages, frame.meta, spoil(frame.data, record.addr - vdso.start, vdso));
      }
      writer.forward(frame);
    },
    end: () => undefined,
    abort: (cause) => {
      throw cause;
    },
  });
  parser.write(image);
  parser.end();
  return Buffer.concat(chunks);
}

/** Traps in place of the code, which lies behind the first function. */
function spoil(
  data: Uint8Array,
  at: bigint,
  { functions }: { functions?: { offset: number }[] },
): Uint8Array {
  const code = Math.min(...(functions ?? []).map(({ offset }) => offset));
  const bytes = data.slice();
  bytes.fill(trap, Math.max(0, code - Number(at)));
  return bytes;
}
