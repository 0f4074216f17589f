/** What a session mounted, changed and unmounted in its pod: a restart makes the pod's own mounts, and these. */
import { type Mount, mountKey, readMounts, splitKey } from '../../../runtime/mount-list.ts';

/** Mounts that the pod itself makes lie in these; every other one comes from the host. */
const ownFolders = /^\/(proc|dev)(\/|$)/;

export interface MountChanges {
  /** Mounts of the session, as mountinfo lists them. */
  made: Mount[];
  /** Mounts that it changed (flags, propagation), as they are now. */
  changed: Mount[];
  /** Where it unmounted what the pod or the host had given it. */
  gone: string[];
}

type Line = ReturnType<typeof splitKey>;

/** The same mount may be there several times: each time is one of its own. */
function counted<Value extends Pick<Line, 'device' | 'root' | 'where'>>(lines: readonly Value[]) {
  const times = new Map<string, number>();
  return new Map(
    lines.map((line) => {
      const name = JSON.stringify([line.device, line.root, line.where]);
      const count = (times.get(name) ?? 0) + 1;
      times.set(name, count);
      return [`${name} ${count}`, line] as const;
    }),
  );
}

/**
 * `inside` are the session's mounts now, `before` those of its pod when it was made (lines of the registry), `host`
 * those of whoever looks, as the pod would see them. The host's own changes are followed by every pod (slave
 * propagation) and are none of the session.
 */
export function changedMounts(
  inside: readonly Mount[],
  before: readonly string[],
  host: readonly Mount[],
): MountChanges {
  const now = counted(inside);
  const then = counted(before.map(splitKey));
  const outside = counted(host);
  const changes: MountChanges = { made: [], changed: [], gone: [] };
  for (const [name, mount] of now) {
    const was = then.get(name);
    const there = outside.get(name);
    if (was) {
      if (was.state !== splitKey(mountKey(mount)).state) changes.changed.push(mount);
    } else if (!there) changes.made.push(mount);
    else if (mount.flags.join() !== there.flags.join()) changes.changed.push(mount);
  }
  for (const [name, { where }] of then)
    if (!now.has(name) && (outside.has(name) || ownFolders.test(where))) changes.gone.push(where);
  return changes;
}

/** The host's mounts as a pod with this root sees them. */
export function hostMounts(root: string | undefined): Mount[] {
  const all = readMounts('self');
  if (root === undefined) return all;
  return all
    .filter(({ where }) => where.startsWith(`${root}/`))
    .map((mount) => ({ ...mount, where: mount.where.slice(root.length) }));
}
