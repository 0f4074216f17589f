/**
 * Mounts of a namespace: proc_pid_mountinfo(5). The pod's are written into the registry when it is made, so that a
 * dump knows what the session has mounted, changed and unmounted since.
 */
import { readFileSync } from 'node:fs';
import { PodError } from '../stream/error.ts';

export const propagations = ['private', 'shared', 'slave', 'unbindable'] as const;

export interface Mount {
  id: number;
  parent: number;
  /** `major:minor` of the file system. */
  device: string;
  /** The part of it that is seen. */
  root: string;
  where: string;
  /** Of the mount, those of mountFlags. */
  flags: string[];
  propagation: (typeof propagations)[number];
  /** Number of the peer group, of a shared mount. */
  peers?: number;
  type: string;
  source: string;
  /** Options of the file system, as they stand there. */
  options: string;
}

/** Options of a mount that mount(2) has flags for. */
export const mountFlags = [
  'ro',
  'nosuid',
  'nodev',
  'noexec',
  'noatime',
  'nodiratime',
  'relatime',
  'nosymfollow',
] as const;

export function readMounts(pid: number | 'self'): Mount[] {
  return readFileSync(`/proc/${pid}/mountinfo`, 'utf8')
    .split('\n')
    .flatMap((line) => (line === '' ? [] : [parseMount(line)]));
}

function parseMount(line: string): Mount {
  const words = line.split(' ');
  const [id, parent, device, root, where, options] = words as [
    string,
    string,
    string,
    string,
    string,
    string,
  ];
  const dash = words.indexOf('-', 6);
  const tags = words.slice(6, dash);
  const shared = tags.find((tag) => tag.startsWith('shared:'));
  const given = options.split(',');
  return {
    id: Number(id),
    parent: Number(parent),
    device,
    root: plain(root),
    where: plain(where),
    flags: mountFlags.filter((flag) => given.includes(flag)),
    propagation: shared
      ? 'shared'
      : tags.some((tag) => tag.startsWith('master:'))
        ? 'slave'
        : tags.includes('unbindable')
          ? 'unbindable'
          : 'private',
    ...(shared ? { peers: Number(shared.slice('shared:'.length)) } : {}),
    type: words[dash + 1] ?? '',
    source: plain(words[dash + 2] ?? ''),
    options: words[dash + 3] ?? '',
  };
}

/** Blanks and backslashes are in octal. */
function plain(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, code) => String.fromCharCode(Number.parseInt(code, 8)));
}

/** What a mount is, and its state: file system, part, place; flags, propagation. A line of the registry. */
export function mountKey(mount: Mount): string {
  const words = [mount.device, mount.root, mount.where, mount.flags.join(',') || '-', mount.propagation];
  return JSON.stringify(words);
}

export function listMounts(pid: number | 'self'): string[] {
  return readMounts(pid).map(mountKey);
}

/** The parts of a line of the registry. */
export function splitKey(key: string): { device: string; root: string; where: string; state: string } {
  const [device, root, where, flags, propagation] = parseKey(key);
  return { device, root, where, state: `${flags} ${propagation}` };
}

function parseKey(key: string): [string, string, string, string, string] {
  try {
    return JSON.parse(key);
  } catch (cause) {
    throw new PodError(
      'cannot-checkpoint',
      'the pod was made by another version of podstream, and what that wrote down of its mounts cannot be read',
      'dump it with the version that made it',
      { cause },
    );
  }
}
