/**
 * Files and folders of /proc/PID, which are there again when the process is. At restart they are opened when all
 * tasks exist, in the builder, and handed to whoever had them.
 */
import { SYS } from '../abi.ts';
import type { DumpContext, OpenFile, RestoreContext, RestoredTable } from './file-object.ts';
import { findInPod, openFound, seekTo } from './paths.ts';
import { shareFile } from './share-file.ts';

interface NamedFile {
  id: number;
  path: string;
  flags: number;
  position: bigint;
}

/** pid of the builder in its pod. */
const builderPid = 1;

/** The pid in a path of /proc/PID, undefined for any other path. */
export function processIn(path: string): number | undefined {
  const pid = /^\/proc\/(\d+)(\/|$)/.exec(path)?.[1];
  return pid === undefined ? undefined : Number(pid);
}

/** Refuse what shows a process that stays behind. */
export function refuseForeignProcess(file: OpenFile, path: string, context: DumpContext): void {
  const pid = processIn(path);
  if (pid === undefined) return;
  if (file.inFlight) {
    context.notNow(
      file,
      'what shows a process is on its way through a socket',
      'try again in a moment, when the receiver has taken it',
    );
  }
  const inside = new Set(
    context.files.flatMap((each) => each.holders.map((holder) => context.innerPid(holder.pid))),
  );
  if (inside.has(pid)) return;
  // Most often one that has just ended, and the file is about to be closed.
  context.notNow(file, 'it shows a process that is not of the session', 'let the program close it first');
}

/** Something to hold its place in the builder until the process exists. */
export function holdPlace(record: NamedFile, context: RestoreContext): void {
  context.keep(record.id, findInPod('/', context).fd);
}

/** Open it, the first time; give it to this table. */
export function openInTable(record: NamedFile, table: RestoredTable, context: RestoreContext): 'next-table' {
  const fd = context.descriptor(record.id);
  context.once(`opened ${record.id}`, () => {
    if (processIn(record.path) === builderPid) {
      context.refuse(`${record.path} shows the pod's own first process`, 'the image does not fit together');
    }
    const { builder } = context;
    const made = openFound(findInPod(record.path, context).fd, record.path, record.flags, context);
    seekTo(made, record.position, record.path, context);
    builder.call('dup3', SYS.dup3, made, fd, 0);
    builder.call('close', SYS.close, made);
    return true;
  });
  shareFile({ pid: builderPid, fd }, table.remote, table.numbers(record.id));
  return 'next-table';
}
