/**
 * Pipes and FIFOs: pipe(7). The pipe is one object with its content, each open end another.
 *
 * Content is looked at without being taken: tee(2) copies it into a pipe of ours. A packet pipe (O_DIRECT) keeps
 * its boundaries by being read packet for packet from that copy.
 */
import { closeSync, readSync } from 'node:fs';
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { maxData } from '../../../stream/frame.ts';
import { AT_FDCWD, F, O, SYS } from '../abi.ts';
import type { DumpContext, FileObject, OpenFile, OutRecord, RestoreContext } from './file-object.ts';
import { borrow, closeLocal, control, pipeCapacity, readable } from './local-calls.ts';
import { armOwner, readOwner } from './owner.ts';
import { pathInPod, setLocalFlags } from './paths.ts';

/** A pipe as a pair of our own descriptors: read end, write end. */
function makePipe(flags: number): [number, number] {
  const pair = new Int32Array(2);
  native().syscall(SYS.pipe2, new Uint8Array(pair.buffer), flags);
  return [pair[0]!, pair[1]!];
}

/** What is in the pipe, in pieces of at most a frame; a packet pipe gives a piece a packet. */
function peekContent(file: OpenFile, capacity: number, packets: boolean): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  if (readable(file.local) === 0) return pieces;
  const [copyRead, copyWrite] = makePipe(O.nonblock | (packets ? O.direct : 0));
  // tee(2) works on any end of the pipe that is open for reading; ours may be the write end.
  const source = (file.flags & O.accessMode) === O.wronly ? reopenForReading(file.local) : file.local;
  try {
    control(copyWrite, F.setPipeSize, capacity);
    native().syscall(SYS.tee, source, copyWrite, capacity, 2 /* SPLICE_F_NONBLOCK */);
    const buffer = new Uint8Array(packets ? 4096 : maxData);
    for (;;) {
      let length: number;
      try {
        length = readSync(copyRead, buffer);
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code === 'EAGAIN') break;
        throw cause;
      }
      if (length === 0) break;
      pieces.push(buffer.slice(0, length));
    }
  } finally {
    closeSync(copyRead);
    closeSync(copyWrite);
    if (source !== file.local) closeSync(source);
  }
  return pieces;
}

/** All ends of the pipe that the session has open. */
function endsOf(file: OpenFile, context: DumpContext): OpenFile[] {
  return context
    .filesOf(file.stat.ino)
    .filter((each) => each.stat.isFIFO() && each.stat.dev === file.stat.dev);
}

/** Packet mode is a flag of the ends that write. */
function hasPackets(file: OpenFile, context: DumpContext): boolean {
  return endsOf(file, context).some((each) => (each.flags & O.direct) !== 0);
}

function reopenForReading(local: number): number {
  const path = Buffer.from(`/proc/self/fd/${local}\0`);
  return Number(native().syscall(SYS.openat, AT_FDCWD, path, O.nonblock | O.cloexec));
}

/** Name of a FIFO in the pod; undefined for a pipe, and for a FIFO whose name is gone, which is nothing else then. */
function fifoPath(file: OpenFile, context: DumpContext): string | undefined {
  if (file.link.startsWith('pipe:[') || (file.stat.nlink === 0n && file.link.endsWith(' (deleted)')))
    return undefined;
  return pathInPod(file, context);
}

interface BuiltPipe {
  read: number;
  write: number;
  path: string | undefined;
  taken: Set<number>;
}

const built = (context: RestoreContext) => context.once('pipes', () => new Map<number, BuiltPipe>());

function restorePipe(record: Records['pipe'], context: RestoreContext): void {
  const { builder } = context;
  builder.reset();
  let read: number;
  let write: number;
  if (record.path === undefined) {
    const pair = builder.reserve(8);
    builder.call('pipe2', SYS.pipe2, pair, O.nonblock);
    const ends = new Int32Array(builder.read(pair, 8).buffer);
    read = ends[0]!;
    write = ends[1]!;
  } else {
    const path = builder.putString(record.path);
    try {
      // Both ways at once: neither end then waits for the other.
      read = Number(builder.call('open', SYS.openat, AT_FDCWD, path, O.rdwr | O.nonblock));
      write = read;
    } catch {
      context.refuse(
        `the FIFO ${record.path} can't be opened`,
        'create it with mkfifo, or use pod-filter relocate',
      );
    }
  }
  const contents = context.contents(record.id);
  const bytes = contents.reduce((sum, each) => sum + each.data.length, 0);
  if (bytes > record.capacity) context.refuse(`a pipe of ${record.capacity} bytes can't hold ${bytes}`);
  if (record.path !== undefined) refuseUsedFifo(read, record.path, context);
  if (Number(builder.call('F_GETPIPE_SZ', SYS.fcntl, write, F.getPipeSize, 0)) !== record.capacity) {
    const [result] = builder.run([[SYS.fcntl, write, F.setPipeSize, record.capacity]]);
    if (result! < 0n) context.warn(`a pipe could not be given its capacity of ${record.capacity} bytes`);
  }
  for (const { meta, data } of contents) {
    if (meta.message) builder.call('F_SETFL', SYS.fcntl, write, F.setfl, O.nonblock | O.direct);
    for (let at = 0; at < data.length; ) {
      builder.reset();
      const piece = data.subarray(at, at + Math.min(64 << 10, data.length - at));
      const written = builder.call('write', SYS.write, write, builder.put(piece), piece.length);
      at += Number(written);
    }
  }
  built(context).set(record.id, { read, write, path: record.path, taken: new Set() });
}

/** What others have put into a FIFO would mix with what the session had in it. */
function refuseUsedFifo(fd: number, path: string, context: RestoreContext): void {
  const { builder } = context;
  builder.reset();
  const address = builder.reserve(4);
  builder.call('FIONREAD', SYS.ioctl, fd, 0x541b, address);
  if (new DataView(builder.read(address, 4).buffer).getInt32(0, true) === 0) return;
  context.refuse(
    `the FIFO ${path} is in use: it already has something in it`,
    'end the program that uses it (the session this image was made of, perhaps)',
  );
}

/**
 * Ends get descriptions of their own: the first reader and the first writer of a pipe take what pipe2 made,
 * further ones are opened through /proc, which makes a new description of the same pipe.
 */
function restoreEnd(record: Records['pipe-end'], context: RestoreContext): void {
  const { builder } = context;
  const pipe = built(context).get(record.pipe);
  if (!pipe) context.refuse(`pipe end ${record.id} names a pipe that does not exist`);
  const mode = record.flags & O.accessMode;
  const ready = mode === O.wronly ? pipe.write : mode === O.rdwr ? -1 : pipe.read;
  let fd = ready;
  if (pipe.path !== undefined || ready < 0 || pipe.taken.has(mode)) {
    builder.reset();
    const from = pipe.path ?? `/proc/self/fd/${pipe.read}`;
    fd = Number(
      builder.call('open a pipe end', SYS.openat, AT_FDCWD, builder.putString(from), mode | O.nonblock),
    );
  }
  pipe.taken.add(mode);
  const local = borrow(context.builderPid, fd);
  try {
    setLocalFlags(local, record.flags & ~O.noatime);
  } finally {
    closeLocal(local);
  }
  context.keep(record.id, fd);
}

export const pipe: FileObject = {
  records: ['pipe', 'pipe-end'],
  coverage:
    'pipes and FIFOs with content, capacity, packet mode, any number of ends; content with a splice in flight is read as bytes',

  matches: (file) => file.stat.isFIFO(),

  dump(file, context) {
    const records: OutRecord[] = [];
    const known = context.once('pipes', () => new Map<string, number>());
    const key = `${file.stat.dev}:${file.stat.ino}`;
    let id = known.get(key);
    if (id === undefined) {
      const path = fifoPath(file, context);
      if (path === undefined) refuseOutsideEnd(file, context);
      id = context.newFileId();
      known.set(key, id);
      const capacity = pipeCapacity(file.local);
      records.push({ name: 'pipe', meta: { id, capacity, ...(path === undefined ? {} : { path }) } });
      const packets = hasPackets(file, context);
      for (const data of peekContent(file, capacity, packets)) {
        records.push({ name: 'content', meta: { file: id, ...(packets ? { message: true } : {}) }, data });
      }
    }
    records.push({
      name: 'pipe-end',
      meta: { id: file.id, pipe: id, flags: file.flags, ...readOwner(file, context) },
    });
    return records;
  },

  restore(name, record, context) {
    if (name === 'pipe') restorePipe(record as Records['pipe'], context);
    else restoreEnd(record as Records['pipe-end'], context);
  },

  arm(name, record, context) {
    if (name !== 'pipe-end') return;
    const end = record as Records['pipe-end'];
    armOwner(end.id, end.owner, context);
  },
};

/** A pipe whose other end is held by a process outside can't go along: its partner stays behind. */
function refuseOutsideEnd(file: OpenFile, context: DumpContext): void {
  const ends = endsOf(file, context);
  const reads = ends.some((each) => (each.flags & O.accessMode) !== O.wronly);
  const writes = ends.some((each) => (each.flags & O.accessMode) !== 0);
  if (reads && writes) return;
  if (!hasOutsideEnd(file.local, !reads)) return;
  context.refuse(
    file,
    'the other end of the pipe is held by a process outside the session',
    'start the session with pod-run, or redirect to a file',
  );
}

/** Whether somebody outside holds the missing end: poll(2) says HUP or ERR when nobody does. */
function hasOutsideEnd(local: number, missingReader: boolean): boolean {
  const poll = new Uint8Array(8);
  const view = new DataView(poll.buffer);
  view.setInt32(0, local, true);
  view.setInt16(4, 0, true);
  native().syscall(SYS.poll, poll, 1, 0);
  const hup = 0x10;
  const err = 0x08;
  return (view.getInt16(6, true) & (missingReader ? err : hup)) === 0;
}
