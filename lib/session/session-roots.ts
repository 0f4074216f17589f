import { readFileSync } from 'node:fs';
import { PodError } from '../stream/error.ts';

/** Host pids of pod-init's children: the topmost processes of the session, orphans among them. */
export function sessionRoots(init: number): number[] {
  let text: string;
  try {
    text = readFileSync(`/proc/${init}/task/${init}/children`, 'latin1').trim();
  } catch (cause) {
    throw new PodError('other', 'the pod ended', undefined, { cause });
  }
  const roots = text === '' ? [] : text.split(' ').map(Number);
  if (roots.length === 0) throw new PodError('other', 'the pod has no process');
  return roots;
}
