/** Open directories. */
import type { Records } from '../../../image/record.ts';
import { O } from '../abi.ts';
import type { FileObject } from './file-object.ts';
import { readOwner } from './owner.ts';
import { describeType, findInPod, openFound, pathInPod, seekTo } from './paths.ts';
import { holdPlace, openInTable, processIn, refuseForeignProcess } from './process-paths.ts';

export const directory: FileObject = {
  records: ['directory'],
  coverage:
    'path, flags, place in the listing (exact when the directory lies on the same file system). Refused: deleted directories, and such as send signals at changes (F_NOTIFY)',

  matches: (file) => file.stat.isDirectory(),

  dump(file, context) {
    const path = pathInPod(file, context);
    refuseForeignProcess(file, path, context);
    // What is asked for nobody tells; but who asks becomes the owner, which a directory is not given else.
    if (readOwner(file, context).owner?.pid)
      context.refuse(
        file,
        'it sends signals when the directory changes (F_NOTIFY), and nobody tells at which changes',
        'let the program use inotify instead',
      );
    const position = BigInt(file.info.get('pos')?.[0] ?? 0);
    return [{ name: 'directory', meta: { id: file.id, path, flags: file.flags, position } }];
  },

  restore(_name, meta, context) {
    const record = meta as Records['directory'];
    if (processIn(record.path) !== undefined) return holdPlace(record, context);
    const found = findInPod(record.path, context);
    if (!found.stat.isDirectory()) {
      context.refuse(
        `${record.path} was a folder and is ${describeType(found.stat.mode)} here`,
        'bring the folder to this computer, or map it with pod-filter relocate OLD=NEW',
      );
    }
    // A directory opens for reading only, whatever an image says.
    const fd = openFound(found.fd, record.path, record.flags & ~(O.accessMode | O.append), context);
    seekTo(fd, record.position, record.path, context);
    context.keep(record.id, fd);
  },

  restoreInTable(_name, meta, table, context) {
    const record = meta as Records['directory'];
    return processIn(record.path) === undefined ? 'done' : openInTable(record, table, context);
  },
};
