/**
 * Row "threads", F_SETOWN: a file that signals a task by pid signals that thread in 2.6 too (F_OWNER_TID), where
 * the pid alone would mean the whole process.
 */
import type { Records } from '../record.ts';

type Owned = Pick<Records['pipe-end'], 'owner'>;

const ownerTid = 0;
const ownerPid = 1;

/** The record with its owner turned, the same object when there is nothing to turn. `isThread`: merged, not a leader. */
export function upgradeOwner<Owner extends Owned>(record: Owner, isThread: (pid: number) => boolean): Owner {
  const { owner } = record;
  if (!owner || owner.type !== ownerPid || !isThread(owner.pid)) return record;
  return { ...record, owner: { ...owner, type: ownerTid } };
}
