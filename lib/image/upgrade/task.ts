import type { TreeEntry } from '../model.ts';
import type { Records } from '../record.ts';

/** A 2.4 task that is alive: its place in the tree, its PROCESS and its only THREAD. */
export interface Task {
  entry: TreeEntry;
  process: Records['process'];
  thread: Records['thread'];
}

/** What the rows of the table need to know of the image around a record. */
export interface Context {
  arch: string;
  /** Sentences for HELLO.losses; rows append. */
  losses: string[];
}
