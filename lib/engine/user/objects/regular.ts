/**
 * Regular files, open under the name they still have; those without a name (unlinked, memfd), of which the bytes
 * travel too; and any file of which only the place is open (O_PATH).
 */
import type { Records } from '../../../image/record.ts';
import { AT_FDCWD, O, SYS } from '../abi.ts';
import { memfdName } from '../carriers.ts';
import type { DumpContext, FileObject, OpenFile, RestoreContext } from './file-object.ts';
import { armOwner, readOwner } from './owner.ts';
import { describeType, findInPod, openFound, openHandle, pathInPod, placeInPod, seekTo } from './paths.ts';
import { holdPlace, openInTable, processIn, refuseForeignProcess } from './process-paths.ts';

const typeMask = 0o170000;
const isPlace = (flags: number) => (flags & O.path) !== 0;

/** Where it is, or which object carries it. */
function locate(
  file: OpenFile,
  context: DumpContext,
): Pick<Records['regular'], 'path' | 'memfd' | 'unlinked'> {
  if (/^[a-z_]+:\[\d+\]$/.test(file.link))
    context.refuse(
      file,
      'it holds a namespace or another object without a file',
      'let the program close it before the dump',
    );
  const { path, unlinked } = file.stat.isFile()
    ? placeInPod(file, context)
    : { path: pathInPod(file, context), unlinked: false };
  if (!unlinked) {
    refuseForeignProcess(file, path, context);
    return { path };
  }
  // To read its bytes it is opened once more, which would break the lease.
  if (file.infoLines.some((line) => /^lock:.*\bLEASE\b/.test(line)))
    context.refuse(
      file,
      'it has no name any more, and is leased',
      'let the program give the lease back first',
    );
  const id = context.carry(file, path);
  return memfdName(file.link) === undefined ? { path, unlinked: id } : { path, memfd: id };
}

export const regular: FileObject = {
  records: ['regular'],
  coverage:
    'path, access mode, flags, position; the bytes stay in the file system, and type and size are checked at restart. A file that was deleted or replaced while it is open, and a memfd, travel with their bytes, holes, owner, mode, times and seals, and stay one file for all that have it open or mapped. Huge pages and what /proc shows of processes outside are refused',

  matches: (file) => file.stat.isFile() || isPlace(file.flags),

  dump(file, context) {
    const { stat } = file;
    return [
      {
        name: 'regular',
        meta: {
          id: file.id,
          ...locate(file, context),
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
    const carrier = record.unlinked ?? record.memfd;
    if (carrier !== undefined) return openCarried(record, carrier, context);
    if (record.deleted === true) {
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

/** One more open file of an object that is there already. */
function openCarried(record: Records['regular'], carrier: number, context: RestoreContext): void {
  const { id, path, flags, position } = record;
  const from = context.carrier(carrier);
  if (isPlace(flags)) {
    const { builder } = context;
    const address = builder.putString(`/proc/self/fd/${from}`);
    context.keep(id, builder.call('open', SYS.openat, AT_FDCWD, address, O.path));
    return;
  }
  const fd = openHandle(from, path, flags, context);
  seekTo(fd, position, path, context);
  context.keep(id, fd);
}

/** A file that lacks bytes which the session had already passed is not the same file. */
function checkSize(record: Records['regular'], found: bigint, context: RestoreContext): void {
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
