/**
 * The ELF inside a bzImage, found by the fields of the boot protocol's setup header
 * (Documentation/arch/x86/boot.rst). QEMU starts an ELF with a PVH note directly, so that the guest need not
 * decompress it, which takes longer there than the whole boot.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { decompress } from './decompress.ts';

const sectorSize = 512;
const setupSectorsAt = 0x1f1;
const magicAt = 0x202;
const payloadOffsetAt = 0x248;
const payloadLengthAt = 0x24c;

export function extractVmlinux(bzImage: string, target: string): void {
  const image = readFileSync(bzImage);
  if (image.toString('latin1', magicAt, magicAt + 4) !== 'HdrS') throw new Error(`${bzImage} is no bzImage`);
  // Zero stands for four, from the days of the first loaders.
  const setup = ((image[setupSectorsAt] || 4) + 1) * sectorSize;
  const start = setup + image.readUInt32LE(payloadOffsetAt);
  const payload = image.subarray(start, start + image.readUInt32LE(payloadLengthAt));
  const elf = decompress(payload, true);
  if (elf.toString('latin1', 0, 4) !== '\x7fELF') throw new Error(`${bzImage} does not hold an ELF`);
  writeFileSync(target, elf);
}
