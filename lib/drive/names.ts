/** Names in a pod's folder. Digits and one dot: short names on FAT, whose entry is a single directory slot. */

export const headName = 'HEAD';
export const lockName = 'lock';
export const maxGeneration = 99_999_999;

export function manifestName(generation: number): string {
  return `${String(generation).padStart(8, '0')}.json`;
}

export function segmentName(generation: number, index: number): string {
  return `${String(generation).padStart(8, '0')}.${String(index).padStart(3, '0')}`;
}

/** What a name in the folder stands for; undefined for names that are not ours. */
export function parseName(name: string): { generation: number; segment: number | undefined } | undefined {
  const match = /^(\d{8})\.(json|\d{3,6})$/.exec(name);
  if (!match || match[1] === '00000000') return undefined;
  return {
    generation: Number(match[1]),
    segment: match[2] === 'json' ? undefined : Number(match[2]),
  };
}
