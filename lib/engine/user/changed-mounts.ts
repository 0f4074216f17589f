/** What a session mounted and unmounted in its pod: a restart makes the pod's own mounts, and no others. */
import { listMounts, mountPoint } from '../../runtime/mount-list.ts';
import { PodError } from '../../stream/error.ts';

/** Mounts that the pod itself makes lie in these; every other one comes from the host. */
const ownFolders = /^\/(proc|dev)(\/|$)/;

/**
 * `inside` are the session's mounts now, `before` those of its pod when it was made, `host` those of whoever looks.
 * The host's own changes are followed by every pod (slave propagation) and are none of the session.
 */
export function changedMounts(
  inside: readonly string[],
  before: readonly string[],
  host: readonly string[],
): { made: string[]; gone: string[] } {
  const now = new Set(inside);
  const then = new Set(before);
  const outside = new Set(host);
  return {
    made: inside.filter((key) => !then.has(key) && !outside.has(key)),
    gone: before.filter((key) => !now.has(key) && (outside.has(key) || ownFolders.test(mountPoint(key)))),
  };
}

/** The host's mounts as a pod with this root sees them. */
function hostMounts(root: string | undefined): string[] {
  const all = listMounts('self');
  if (root === undefined) return all;
  return all.flatMap((key) => {
    const [device, part, where, mode] = key.split(' ');
    return where!.startsWith(`${root}/`) ? [`${device} ${part} ${where!.slice(root.length)} ${mode}`] : [];
  });
}

/** Throw for the first change. `pid` is any process of the session, `before` and `root` are the pod's. */
export function refuseChangedMounts(pid: number, before: readonly string[], root: string | undefined): void {
  const { made, gone } = changedMounts(listMounts(pid), before, hostMounts(root));
  if (made.length > 0)
    throw new PodError(
      'cannot-checkpoint',
      `the session mounted something on ${mountPoint(made[0]!)} (or changed that mount), which is not handled yet`,
      'unmount it before the dump, or mount it on the host, where the pod sees it too',
    );
  if (gone.length > 0)
    throw new PodError(
      'cannot-checkpoint',
      `the session unmounted ${mountPoint(gone[0]!)}, which is not handled yet`,
      'mount it again before the dump',
    );
}
