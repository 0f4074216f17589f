import { maxMeta } from '../stream/frame.ts';
import { encodeMeta } from '../stream/meta.ts';
import type { Item } from './item.ts';

/**
 * An item whose meta may have outgrown a frame, as several that each fit: the list under `key` is divided, the rest
 * is repeated. For records that may come in several frames in a row (TREE, AREAS, FD-TABLE). An item that cannot
 * be divided further is returned as it is; writing it is exit 9.
 */
export function divideToFit(item: Item, key: string): Item[] {
  const list = item.meta[key];
  if (!Array.isArray(list) || list.length < 2 || encodeMeta(item.meta).length <= maxMeta) return [item];
  const half = list.length >> 1;
  return [list.slice(0, half), list.slice(half)].flatMap((part) =>
    divideToFit(item.with({ meta: { ...item.meta, [key]: part } }), key),
  );
}
