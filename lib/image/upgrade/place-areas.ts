import type { Area } from '../model.ts';

/**
 * Put areas that touch each other among those of one address space, which come in several lists (one a frame).
 * Returns the lists that leave in each one's place; the last one's end with what belongs behind all.
 */
export function placeAreas(
  lists: readonly (readonly Area[])[],
  added: readonly Area[],
): (readonly Area[])[][] {
  const start = added[0]!.start;
  let placed = false;
  const result = lists.map((list): (readonly Area[])[] => {
    const at = placed ? -1 : list.findIndex((area) => area.start >= start);
    if (at < 0) return [list];
    placed = true;
    return [list.slice(0, at), added, list.slice(at)].filter((part) => part.length > 0);
  });
  if (!placed) (result.at(-1) ?? (result[0] = [])).push(added);
  return result;
}
