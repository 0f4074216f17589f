import { PodError } from '../../stream/error.ts';

/** Exit status of upgrade-2.6 for an object that has no equal in 2.6. A filter's own code, see docs/upgrade-2.6.md. */
export const cannotUpgradeCode = 32;

/** What 2.4 allowed and 2.6 has no equal for; `object` names it (`process 12`, `area 0x1000 of address space 3`). */
export function cannotUpgrade(object: string, why: string, hint?: string): PodError {
  return new PodError('other', `cannot upgrade ${object}: ${why}`, hint, { exitCode: cannotUpgradeCode });
}

/** A record that no 2.4 kernel can have had. */
export function notOf24(object: string, what: string): PodError {
  return new PodError(
    'damaged',
    `the image claims 2.4 semantics, but ${object} has ${what}, which 2.4 lacked`,
    'the stream was damaged or its maker is broken',
  );
}
