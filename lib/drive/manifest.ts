/**
 * NNNNNNNN.json: `{"crc32": …, "manifest": {…}}`. The checksum is over the manifest as compact JSON in its own
 * order, so a torn or rotten manifest is told from a whole one without any help from the file system.
 */
import type { Manifest } from '../../schemas/generated/types.ts';
import { validators } from '../../schemas/generated/validators.js';
import { crc32 } from '../stream/crc.ts';
import { PodError } from '../stream/error.ts';

export type { Manifest };
export const manifestFormat = 1;
/** A million segments fit; more is not ours. */
export const maxManifestBytes = 64 << 20;

function checksum(manifest: unknown): number {
  return crc32(Buffer.from(JSON.stringify(manifest)));
}

export function formatManifest(manifest: Manifest): Buffer {
  return Buffer.from(`${JSON.stringify({ crc32: checksum(manifest), manifest }, undefined, 1)}\n`);
}

/** The manifest in a file's bytes; throws `damaged` or `version`, naming `name`. */
export function parseManifest(bytes: Buffer, name: string): Manifest {
  let document: { crc32?: unknown; manifest?: Manifest };
  try {
    document = JSON.parse(bytes.toString('utf8')) as typeof document;
  } catch (cause) {
    throw new PodError('damaged', `${name} is damaged: it is not JSON`, undefined, { cause });
  }
  const manifest = document?.manifest;
  if (typeof manifest !== 'object' || manifest === null || checksum(manifest) !== document.crc32)
    throw new PodError('damaged', `${name} is damaged: its checksum is wrong`);
  const format: unknown = manifest.format;
  if (typeof format === 'number' && format > manifestFormat) {
    throw new PodError(
      'version',
      `${name} has format version ${format}, this podstream reads up to ${manifestFormat}`,
      'update podstream',
    );
  }
  if (!validators.manifest(manifest)) {
    const first = validators.manifest.errors?.[0];
    throw new PodError('damaged', `${name} is damaged: ${first?.instancePath ?? ''} ${first?.message ?? ''}`);
  }
  const sum = manifest.segments.reduce((total, segment) => total + segment.bytes, 0);
  if (sum !== manifest.bytes)
    throw new PodError('damaged', `${name} is damaged: the segments do not add up to its size`);
  return manifest;
}
