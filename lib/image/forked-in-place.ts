import type { TreeEntry } from './model.ts';

/**
 * Pids of those that their parents in the tree can fork at any time: whose session is their own or their parent's, and
 * whose ancestors are the same. Not so orphans, which somebody else of their session forked, and what comes of them.
 */
export function forkedInPlace(
  tree: readonly Pick<TreeEntry, 'pid' | 'ppid' | 'sid' | 'state'>[],
): Set<number> {
  const sessions = new Map<number, number>();
  const top = tree.find((entry) => entry.ppid === 0 && entry.state !== 'zombie');
  for (const entry of tree) {
    const { pid, ppid, sid } = entry;
    const possible = ppid === 0 ? sid === pid || (sid === 0 && entry === top) : sessions.has(ppid);
    if (possible && (ppid === 0 || sid === pid || sid === sessions.get(ppid))) sessions.set(pid, sid);
  }
  return new Set(sessions.keys());
}
