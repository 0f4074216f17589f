/** What the first frame of a stream says about it, in the clear. */
import { readRecord } from '../image/record.ts';
import type { Frame } from '../stream/frame.ts';
import { kinds } from '../stream/kind.ts';
import type { Manifest } from './manifest.ts';

export type FirstFrame = Pick<Manifest, 'imageId' | 'layers'> & { pod?: string };

/** Undefined for ERROR: a stream whose maker failed before it knew what it makes. */
export function readFirstFrame(frame: Frame): FirstFrame | undefined {
  if (frame.kind === kinds.hello) {
    const { imageId, pod } = readRecord('hello', frame);
    return { imageId, pod, layers: [] };
  }
  if (frame.kind !== kinds.layer) return undefined;
  const { imageId, pod, filter, version } = readRecord('layer', frame);
  return { imageId, layers: [{ filter, version }], ...(pod === undefined ? {} : { pod }) };
}
