/**
 * relocate OLD=NEW…: the files of an image under other paths, for a computer (or a drive) that has them elsewhere.
 * Whole path components only; the longest OLD wins; what no rule is for leaves byte for byte as it came.
 */
import { flushable, none } from 'stream-chain/defs.js';
import { defineFilter, type Item, type MapResult, many } from '../lib/filter/define.ts';
import { divideToFit } from '../lib/filter/fit.ts';
import { warn } from '../lib/filter/warn.ts';
import { quote } from '../lib/image/model.ts';
import {
  relocateAreas,
  relocateExecutable,
  relocateFs,
  relocateMemory,
  relocatePath,
  relocatePlace,
  relocatePod,
  relocateRegular,
  relocateSocket,
  relocateWatches,
} from '../lib/image/relocate/records.ts';
import { cannotRelocate, PathRules } from '../lib/image/relocate/rules.ts';
import { maxMeta } from '../lib/stream/frame.ts';
import { encodeMeta } from '../lib/stream/meta.ts';

/** The record of an item after the rules; the very same object when nothing changed. */
function relocate(item: Item, rules: PathRules): object {
  switch (item.name) {
    case 'pod':
      return relocatePod(item.record('pod'), rules);
    case 'mm':
      return relocateExecutable(item.record('mm'), rules);
    case 'areas':
      return relocateAreas(item.record('areas'), rules);
    case 'fs':
      return relocateFs(item.record('fs'), rules);
    case 'inotify':
      return relocateWatches(item.record('inotify'), rules);
    case 'unix-socket':
      return relocateSocket(item.record('unix-socket'), rules);
    case 'regular':
      return relocateRegular(item.record('regular'), rules);
    case 'place':
      return relocatePlace(item.record('place'), rules);
    case 'shm':
      return relocateMemory(item.record('shm'), rules);
    case 'directory':
    case 'device':
    case 'pipe':
    case 'terminal':
      return relocatePath<{ id: number; path?: string }>(item.record(item.name), item.name, rules);
    default:
      return item.meta;
  }
}

/** Longer paths may need more frames: areas can be divided, other records cannot. */
function fit(item: Item): Item[] {
  if (item.name === 'areas') return divideToFit(item, 'areas');
  if (encodeMeta(item.meta).length > maxMeta)
    throw cannotRelocate(`${item.name} ${String(item.meta.id)}`, 'its record gets too long');
  return [item];
}

export const filter = defineFilter({
  class: 'map',
  name: 'relocate',
  version: '1',
  summary: 'find the files of an image under other paths',
  options: {
    rules: {
      type: 'string',
      operand: true,
      many: true,
      value: 'OLD=NEW',
      summary: 'what is OLD, or under it, is NEW, or under it',
    },
  },
  owns: [
    'pod',
    'place',
    'mm',
    'areas',
    'fs',
    'shm',
    'regular',
    'directory',
    'device',
    'pipe',
    'terminal',
    'inotify',
    'unix-socket',
  ],
  params: (options) => ({ rules: [...options.rules] }),
  map(options) {
    const rules = new PathRules(options.rules);
    return flushable((item: Item | typeof none): MapResult => {
      if ((item as unknown) === none) {
        for (const rule of rules.rules) {
          if (rule.count === 0) warn('relocate', `nothing in the image is under ${quote(rule.from)}`);
        }
        return none;
      }
      const own = item as Item;
      const moved = relocate(own, rules);
      return moved === own.meta ? own : many(fit(own.with({ meta: moved })));
    }) as (item: Item) => MapResult;
  },
});
