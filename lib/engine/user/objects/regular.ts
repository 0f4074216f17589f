/** Regular files, open under the name they still have; and any file of which only the place is open (O_PATH). */
import type { Records } from '../../../image/record.ts';
import { O } from '../abi.ts';
import type { DumpContext, FileObject, OpenFile } from './file-object.ts';
import { armOwner, readOwner } from './owner.ts';
import { describeType, findInPod, openFound, pathInPod, seekTo } from './paths.ts';
import { holdPlace, openInTable, processIn, refuseForeignProcess } from './process-paths.ts';

const typeMask = 0o170000;
const isPlace = (flags: number) => (flags & O.path) !== 0;

function refuseMemory(file: OpenFile, context: DumpContext): void {
  if (file.link.startsWith('/memfd:')) {
    context.refuse(file, "memory files (memfd) can't be saved yet", 'a later podstream will');
  }
}

export const regular: FileObject = {
  records: ['regular'],
  coverage:
    'path, access mode, flags, position; the bytes stay in the file system, and type and size are checked at restart. Deleted or replaced files, memfd and what /proc shows of processes outside are refused',

  matches: (file) => file.stat.isFile() || isPlace(file.flags),

  dump(file, context) {
    refuseMemory(file, context);
    const path = pathInPod(file, context);
    refuseForeignProcess(file, path, context);
    const { stat } = file;
    return [
      {
        name: 'regular',
        meta: {
          id: file.id,
          path,
          flags: file.flags,
          position: BigInt(file.info.get('pos')?.[0] ?? 0),
          size: stat.size,
          mode: Number(stat.mode),
          mtimeNs: stat.mtimeNs,
          ...(isPlace(file.flags) ? {} : readOwner(file, context)),
        },
      },
    ];
  },

  restore(_name, meta, context) {
    const record = meta as Records['regular'];
    const { path } = record;
    if (record.deleted === true || record.memfd !== undefined) {
      context.refuse(
        `${path} was deleted while it was open, which this podstream can't bring back`,
        'update podstream',
      );
    }
    if (processIn(path) !== undefined) return holdPlace(record, context);
    const place = isPlace(record.flags);
    const found = findInPod(path, context, place ? record.flags & (O.nofollow | O.directory) : 0);
    const type = Number(found.stat.mode) & typeMask;
    const expected = place && record.mode !== undefined ? record.mode & typeMask : 0o100000;
    if (type !== expected) {
      context.refuse(
        `${path} was ${describeType(expected)} and is ${describeType(type)} here`,
        'bring the file to this computer, or map it with pod-filter relocate OLD=NEW',
      );
    }
    if (!place) checkSize(record, found.stat.size, context);
    const fd = openFound(found.fd, path, record.flags, context);
    if (!place) seekTo(fd, record.position, path, context);
    context.keep(record.id, fd);
  },

  restoreInTable(_name, meta, table, context) {
    const record = meta as Records['regular'];
    return processIn(record.path) === undefined ? 'done' : openInTable(record, table, context);
  },

  arm(_name, meta, context) {
    const record = meta as Records['regular'];
    armOwner(record.id, record.owner, context);
  },
};

/** A file that lacks bytes which the session had already passed is not the same file. */
function checkSize(
  record: Records['regular'],
  found: bigint,
  context: Parameters<FileObject['restore']>[2],
): void {
  const { path, position, size } = record;
  if (size === undefined || found === size) return;
  const needed = position < size ? position : size;
  if (found < needed) {
    context.refuse(
      `${path} had ${size} bytes, of which ${position} were passed, and has ${found} here`,
      'bring the file as it was at dump, or map it with pod-filter relocate OLD=NEW',
    );
  }
  context.warn(`${path} had ${size} bytes at dump and has ${found} now`);
}
