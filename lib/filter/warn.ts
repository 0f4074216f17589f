import { writeSync } from 'node:fs';

/** One line on stderr about what a filter did, or did not do; the stream goes on. */
export function warn(filter: string, message: string): void {
  try {
    writeSync(2, `pod-filter-${filter}: warning: ${message}\n`);
  } catch {
    // Nobody reads stderr.
  }
}
