/** The guest's voice: one event a line, on a serial line of its own. */
import { writeFileSync } from 'node:fs';
import { eventLine } from '../initramfs.ts';
import type { GuestEvent } from '../job.ts';

export function tell(event: GuestEvent): void {
  writeFileSync(eventLine, `${JSON.stringify(event)}\n`);
}
