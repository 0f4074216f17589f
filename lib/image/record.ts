/** Records: frames whose meta follows a schema. Everything read from a stream goes through here before use. */

import type { Records } from '../../schemas/generated/types.ts';
import { validators } from '../../schemas/generated/validators.js';
import { PodError } from '../stream/error.ts';
import type { Frame } from '../stream/frame.ts';
import { type KindName, kindName } from '../stream/kind.ts';

export type { Records };

/** The frame's meta, checked against the schema of `name`. Exit 6 when it does not fit. */
export function readRecord<Name extends keyof Records>(name: Name, frame: Frame): Records[Name] {
  const { meta } = frame;
  checkRecord(name, meta, `frame ${frame.seq}`);
  return meta as unknown as Records[Name];
}

/** Throw `damaged`, naming `where`, when `meta` does not follow the schema of `name`. */
export function checkRecord(name: keyof Records, meta: unknown, where: string): void {
  const validate = validators[name];
  if (validate(meta)) return;
  const first = validate.errors?.[0];
  const what = first
    ? `${first.instancePath || 'the record'} ${first.message ?? ''}`.trim()
    : 'it does not fit its schema';
  throw new PodError('damaged', `${where} is not a valid ${name} record: ${what}`);
}

/** Name of the record in a frame, undefined for DATA, PAGES-like raw kinds and unknown kinds alike. */
export function recordName(frame: Frame): KindName | undefined {
  return kindName(frame.kind);
}
