/** Whatever Debian compresses kernels and modules with, by the programs of those names. */
import { execFileSync } from 'node:child_process';

interface Format {
  magic: readonly number[];
  command: readonly [string, ...string[]];
  /** Inside a kernel the length of the result follows in four bytes; gzip has it as its own last field. */
  lengthFollows: boolean;
}

const formats: readonly Format[] = [
  { magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0], command: ['xz', '-dc'], lengthFollows: true },
  { magic: [0x28, 0xb5, 0x2f, 0xfd], command: ['zstd', '-dcq', '--long=31'], lengthFollows: true },
  { magic: [0x02, 0x21, 0x4c, 0x18], command: ['lz4', '-dcq'], lengthFollows: true },
  { magic: [0x1f, 0x8b], command: ['gzip', '-dc'], lengthFollows: false },
];

/** The plain bytes; what has no known magic is plain already. `inKernel`: as a kernel's build appends it. */
export function decompress(bytes: Buffer, inKernel = false): Buffer {
  const format = formats.find(({ magic }) => magic.every((byte, index) => bytes[index] === byte));
  if (!format) return bytes;
  const [program, ...args] = format.command;
  const input = inKernel && format.lengthFollows ? bytes.subarray(0, -4) : bytes;
  return execFileSync(program, args, { input, maxBuffer: 1 << 28, stdio: ['pipe', 'pipe', 'inherit'] });
}
