/** What a session mounted and unmounted, as places; what can't be mounted again is refused by name. */
import { fstatSync, readdirSync, statSync } from 'node:fs';
import { posix } from 'node:path';
import type { Records } from '../../../image/record.ts';
import type { Mount } from '../../../runtime/mount-list.ts';
import { PodError } from '../../../stream/error.ts';
import type { MountChanges } from './changed-mounts.ts';
import type { ViewStep } from './mount-view.ts';
import { beneath } from './open-beneath.ts';

type MountRecord = NonNullable<Records['place']['mount']>;

export interface FoundPlace {
  path: string;
  mount?: MountRecord;
  /** Folder whose files travel, as a path here. */
  tree?: string;
}

function refuse(why: string, hint?: string): never {
  throw new PodError('cannot-checkpoint', why, hint);
}

/** A mount comes after the one that it lies on; else as they are listed, which is mostly the order they were made in. */
export function inOrder(mounts: readonly Mount[]): Mount[] {
  const waiting = new Map(mounts.map((mount) => [mount.id, mount]));
  const ordered: Mount[] = [];
  const take = (mount: Mount): void => {
    if (!waiting.delete(mount.id)) return;
    const parent = waiting.get(mount.parent);
    if (parent) take(parent);
    ordered.push(mount);
  };
  for (const mount of mounts) take(mount);
  return ordered;
}

/** Steps of a view that gives a descriptor for each mount, the last made first. */
export function viewSteps(made: readonly Mount[]): ViewStep[] {
  return made.toReversed().map(({ where }) => ({ do: 'take', path: where }));
}

/** What of a file system's options mount(2) takes again. */
const tmpfsOptions = /^(size|nr_inodes|mode|uid|gid|huge)=/;
const procOptions = /^(hidepid|gid|subset)=/;
const devptsOptions = /^(gid|uid|mode|ptmxmode|max)=/;

const some = (options: string, wanted: RegExp) =>
  options
    .split(',')
    .filter((option) => wanted.test(option))
    .join(',');

export interface MountSight {
  /** Any process of the pod. */
  pid: number;
  /** All mounts of the pod. */
  all: readonly Mount[];
  /** Devices of file systems that are not the session's. */
  given: ReadonlySet<string>;
}

/** `held`: a descriptor of ours for each of `made`, which are in order. */
export function describeMounts(
  made: readonly Mount[],
  held: ReadonlyMap<number, number>,
  sight: MountSight,
): FoundPlace[] {
  const own = new Set<string>();
  const peers = new Map<number, number>();
  for (const { peers: group } of sight.all)
    if (group !== undefined) peers.set(group, (peers.get(group) ?? 0) + 1);
  return made.map((mount, index) => {
    const { where, propagation, device, type, root } = mount;
    if (where === '/') refuse('the session mounted something over its root, or changed its root');
    if (propagation === 'slave' || (mount.peers !== undefined && peers.get(mount.peers)! > 1))
      refuse(
        `the mount on ${where} passes on, or follows, what is mounted in another one of the session`,
        `mount --make-private ${where}`,
      );
    const common = {
      flags: mount.flags as MountRecord['flags'],
      ...(propagation === 'private' ? {} : { propagation }),
    };
    const readOnly = mount.options.split(',').includes('ro') ? { readOnly: true } : {};
    const fd = held.get(mount.id)!;
    const isNew = !sight.given.has(device) && !own.has(device) && root === '/';
    own.add(device);
    const found = isNew ? newFileSystem(mount, fd) : undefined;
    if (!found)
      return { path: where, mount: { ...common, ...bindOf(mount, made.slice(0, index), held, sight) } };
    const carried = type === 'tmpfs' || type === 'ramfs';
    return {
      path: where,
      mount: { ...common, ...readOnly, ...found },
      ...(carried ? { tree: `/proc/self/fd/${fd}/.` } : {}),
    };
  });
}

/** A file system that a restart can make anew; undefined when it must be one that is there. */
function newFileSystem(
  { type, source, options, where }: Mount,
  fd: number,
): Pick<MountRecord, 'type' | 'source' | 'options'> | undefined {
  const named = source === '' ? {} : { source };
  switch (type) {
    case 'tmpfs':
    case 'ramfs':
      return { type, ...named, options: some(options, tmpfsOptions) };
    case 'proc':
      return { type, ...named, options: some(options, procOptions) };
    case 'sysfs':
    case 'mqueue':
      return { type, ...named };
    case 'devpts':
      if (readdirSync(`/proc/self/fd/${fd}/.`).some((name) => name !== 'ptmx'))
        refuse(`the session has terminals in a devpts of its own on ${where}`, 'use those of /dev/pts');
      return { type, ...named, options: some(options, devptsOptions) };
    case 'overlay':
      return { type, ...named, options: overlayOptions(options, where) };
    default:
      return undefined;
  }
}

function overlayOptions(options: string, where: string): string {
  const kept = options.split(',').filter((option) => option !== 'rw' && option !== 'ro');
  const folders = kept.flatMap((option) => {
    const [, name, value] = /^(lowerdir\+?|datadir\+|upperdir|workdir)=(.*)$/.exec(option) ?? [];
    return name === undefined ? [] : name === 'lowerdir' ? value!.split(/::?/) : [value!];
  });
  if (folders.length === 0 || options.includes('\\') || folders.some((folder) => !folder.startsWith('/')))
    refuse(
      `the overlay on ${where} names its folders in a way that can't be told again`,
      'mount it with absolute paths, without blanks, commas and colons in them',
    );
  return kept.join(',');
}

/**
 * A path of the session that leads to the very part of a file system that is mounted, at the time when this is mounted
 * again: `earlier` mounts of the session are there by then, the later ones hide nothing yet.
 */
function bindOf(
  mount: Mount,
  earlier: readonly Mount[],
  held: ReadonlyMap<number, number>,
  { pid, all }: MountSight,
): Pick<MountRecord, 'type' | 'source'> {
  const { root, device, where, type, source } = mount;
  const wanted = fstatSync(held.get(mount.id)!, { bigint: true });
  for (const other of all) {
    if (other.id === mount.id || other.device !== device) continue;
    const rest = posix.relative(other.root, root);
    if (rest.startsWith('..')) continue;
    const path = posix.join(other.where, rest);
    const own = held.get(other.id);
    const place = earlier.findIndex(({ id }) => id === other.id);
    if (own !== undefined && place < 0) continue;
    if (earlier.slice(place + 1).some((cover) => beneath(path, cover.where))) continue;
    try {
      const here = own === undefined ? `/proc/${pid}/root${path}` : `/proc/self/fd/${own}/${rest}`;
      const found = statSync(here, { bigint: true });
      if (found.dev === wanted.dev && found.ino === wanted.ino) return { type: 'bind', source: path };
    } catch {
      // It is not there, or not ours to see; another may be.
    }
  }
  return refuse(
    `the session mounted ${type}${source ? ` (${source})` : ''} on ${where}, which can't be mounted again elsewhere`,
    'unmount it before the dump, or mount it on the host, where the pod sees it too',
  );
}

/** Changes of what the pod has by itself. */
export function describeChanges({ changed, gone }: Pick<MountChanges, 'changed' | 'gone'>): FoundPlace[] {
  const taken = gone.toReversed().map((path): FoundPlace => {
    if (path === '/proc' || path === '/dev/pts')
      refuse(`the session unmounted ${path}, without which it can't be made again`, 'mount it again');
    return { path, mount: { type: 'unmount', flags: [] } };
  });
  return [
    ...taken,
    ...changed.map(({ where, flags, propagation }): FoundPlace => {
      return { path: where, mount: { type: 'change', flags: flags as MountRecord['flags'], propagation } };
    }),
  ];
}
