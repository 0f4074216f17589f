/** How an attachment's end is told to a user. */
import { writeSync } from 'node:fs';
import { PodError } from '../stream/error.ts';
import { type AttachEnd, exitCodeOf } from './attach.ts';

/** Exit status for the end; a line on stderr when the session goes on, an error when it was killed. */
export function reportEnd(stage: string, name: string, end: AttachEnd): number {
  switch (end.kind) {
    case 'exit':
      return exitCodeOf(end.status);
    case 'detached':
      writeSync(2, `\r\n${stage}: detached, the session goes on (pod-attach ${name})\n`);
      return 0;
    case 'killed':
      throw new PodError('other', `pod ${name} was killed`, undefined, { exitCode: 137 });
  }
}
