import type { Records } from './record.ts';

/** A place for people: `tmpfs on /mnt, 12 files`. */
export function describePlace({ path, mount }: Records['place'], files: number): string {
  const count = files > 0 ? `, ${files} ${files === 1 ? 'file' : 'files'}` : '';
  if (!mount) return `${path}${count}`;
  const { type, source, flags } = mount;
  const how = flags.length > 0 ? ` (${flags.join(', ')})` : '';
  if (type === 'unmount') return `${path} unmounted`;
  if (type === 'change') return `${path} mounted otherwise${how}`;
  return `${type === 'bind' ? source : type} on ${path}${how}${count}`;
}
