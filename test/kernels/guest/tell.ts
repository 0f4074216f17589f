/** The guest's voice: one event a line, on a serial line of its own. */
import { writeFileSync } from 'node:fs';
import { eventLine } from '../initramfs.ts';

export function tell(event: object): void {
  writeFileSync(eventLine, `${JSON.stringify(event)}\n`);
}
