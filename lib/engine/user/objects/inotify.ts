/**
 * inotify(7). The kernel tells of a watch only file handle and inode; the path comes from open_by_handle_at(2), or,
 * for an ordinary user, from the names the session is known to use, or from a look around.
 */
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { F, O, SYS } from '../abi.ts';
import type { Word } from '../remote.ts';
import type { DumpContext, FileObject, OpenFile, RestoreContext } from './file-object.ts';
import { closeLocal, errnoName, readable } from './local-calls.ts';
import { armOwner, readOwner } from './owner.ts';
import { setStatusFlags } from './paths.ts';

/** _IOW('I', 0, s32), kernels with CONFIG_CHECKPOINT_RESTORE. */
const INOTIFY_IOC_SETNEXTWD = 0x40044900;
const open_by_handle_at = 304;
const inotify_rm_watch = 255;

interface Watch {
  wd: number;
  inode: bigint;
  /** Device as the kernel has it: 12 bits of major over 20 of minor. */
  device: number;
  mask: number;
  /** struct file_handle: length, type, bytes. */
  handle: Uint8Array | undefined;
}

/** `inotify wd:1a ino:3f7e8 sdev:fe00000 mask:100 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:e8f7…`. */
function parseWatch(line: string): Watch {
  const field = (name: string) => new RegExp(`\\b${name}:([0-9a-f]+)`).exec(line)?.[1];
  const hex = (name: string) => Number.parseInt(field(name) ?? '0', 16);
  const bytes = Buffer.from(field('f_handle') ?? '', 'hex');
  let handle: Uint8Array | undefined;
  if (bytes.length > 0) {
    handle = new Uint8Array(8 + bytes.length);
    const view = new DataView(handle.buffer);
    view.setUint32(0, bytes.length, true);
    view.setInt32(4, hex('fhandle-type') | 0, true);
    handle.set(bytes, 8);
  }
  return {
    wd: hex('wd'),
    inode: BigInt(`0x${field('ino') ?? '0'}`),
    device: hex('sdev'),
    mask: hex('mask'),
    handle,
  };
}

/** Whether `path` in the process's root is the watched inode. */
function leadsTo(pid: number, path: string, watch: Watch): boolean {
  try {
    const { ino, dev } = statSync(`/proc/${pid}/root${path}`, { bigint: true });
    return ino === watch.inode && deviceNumber(dev) === BigInt(watch.device);
  } catch {
    return false;
  }
}

/** As the kernel has it, from stat(2). */
function deviceNumber(dev: bigint): bigint {
  const major = (dev >> 8n) & 0xfffn;
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xfff00n);
  return (major << 20n) + minor;
}

/** Mount points of the process that show the device. */
function mountsOf(pid: number, device: number): string[] {
  const name = `${device >>> 20}:${device & 0xfffff}`;
  return readFileSync(`/proc/${pid}/mountinfo`, 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .filter((words) => words[2] === name)
    .map((words) =>
      words[4]!.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8))),
    );
}

/** The path of a file handle, as /proc shows it; undefined without CAP_DAC_READ_SEARCH. */
function pathByHandle(pid: number, mount: string, handle: Uint8Array): string | undefined {
  let folder: number | undefined;
  let found: number | undefined;
  try {
    folder = openSync(`/proc/${pid}/root${mount}`, 'r');
    found = Number(native().syscall(open_by_handle_at, folder, handle, O.path | O.cloexec));
    return readlinkSync(`/proc/self/fd/${found}`);
  } catch {
    return undefined;
  } finally {
    if (found !== undefined) closeLocal(found);
    if (folder !== undefined) closeSync(folder);
  }
}

/** Paths that the session itself shows: working directories, open files, and the folders they lie in. */
function knownPaths(context: DumpContext): string[] {
  return context.once('known paths', () => {
    const paths = new Set<string>();
    const add = (link: string) => {
      for (let path = link; path.startsWith('/') && !paths.has(path); path = dirname(path)) paths.add(path);
    };
    for (const pid of new Set(context.files.map((file) => file.pid))) {
      for (const name of ['cwd', 'exe']) {
        try {
          add(readlinkSync(`/proc/${pid}/${name}`));
        } catch {
          // Not ours to see; there are others.
        }
      }
    }
    for (const file of context.files) add(file.link);
    return [...paths];
  });
}

/** Most folders that are looked at for watched ones. */
const mostFolders = 20_000;

/**
 * Folders of a mount by inode, found by looking: the upper ones first, which are those that programs watch (/etc for
 * what changes there, the time zone, fonts).
 */
class FolderSearch {
  readonly #pid: number;
  readonly #device: bigint;
  readonly #queue: string[];
  readonly #found = new Map<bigint, string>();
  #looked = 0;

  constructor(pid: number, mount: string, device: number) {
    this.#pid = pid;
    this.#device = BigInt(device);
    this.#queue = [mount];
  }

  find(inode: bigint): string | undefined {
    while (!this.#found.has(inode) && this.#looked < Math.min(this.#queue.length, mostFolders)) {
      this.#lookInto(this.#queue[this.#looked]!);
      this.#looked += 1;
    }
    return this.#found.get(inode);
  }

  #lookInto(path: string): void {
    const place = `/proc/${this.#pid}/root${path}`;
    try {
      const { ino, dev } = statSync(place, { bigint: true });
      if (deviceNumber(dev) !== this.#device || this.#found.has(ino)) return;
      this.#found.set(ino, path);
      for (const entry of readdirSync(place, { withFileTypes: true }))
        if (entry.isDirectory()) this.#queue.push(join(path, entry.name));
    } catch {
      // Not ours to see.
    }
  }
}

function searchFolder(pid: number, watch: Watch, context: DumpContext): string | undefined {
  for (const mount of mountsOf(pid, watch.device)) {
    const search = context.once(
      `folders below ${mount} of ${pid}`,
      () => new FolderSearch(pid, mount, watch.device),
    );
    const path = search.find(watch.inode);
    if (path !== undefined && leadsTo(pid, path, watch)) return path;
  }
  return undefined;
}

function findPath(file: OpenFile, watch: Watch, context: DumpContext): string {
  const { pid } = file;
  const root = readlinkSync(`/proc/${pid}/root`);
  const below = (path: string) =>
    root !== '/' && path.startsWith(`${root}/`) ? path.slice(root.length) : path;
  if (watch.handle) {
    for (const mount of mountsOf(pid, watch.device)) {
      const path = pathByHandle(pid, mount, watch.handle);
      if (path !== undefined && leadsTo(pid, below(path), watch)) return below(path);
    }
  }
  const known = knownPaths(context).find((path) => leadsTo(pid, below(path), watch));
  if (known !== undefined) return below(known);
  const searched = searchFolder(pid, watch, context);
  if (searched !== undefined) return searched;
  return context.refuse(
    file,
    `it watches a file (inode ${watch.inode}) whose path is not known`,
    process.getuid?.() === 0
      ? 'the file was deleted or has no name in the session'
      : 'dump as root, who can look it up',
  );
}

export const inotify: FileObject = {
  records: ['inotify'],
  coverage:
    'watches with their numbers, when their paths can be found (root can look up any, a user those that the session shows and upper folders); events not yet read are lost',

  matches: (file) => file.link === 'anon_inode:inotify' || file.link === 'anon_inode:[inotify]',

  dump(file, context) {
    const watches = file.infoLines
      .filter((line) => line.startsWith('inotify '))
      .map((line) => {
        const watch = parseWatch(line);
        return { wd: watch.wd, path: findPath(file, watch, context), mask: watch.mask };
      })
      .sort((a, b) => a.wd - b.wd);
    if (readable(file.local) > 0)
      context.loss('file changes that inotify had reported and nobody had read yet');
    return [
      {
        name: 'inotify',
        meta: { id: file.id, flags: file.flags, watches, ...readOwner(file, context) },
      },
    ];
  },

  restore(_name, meta, context) {
    const record = meta as Records['inotify'];
    const fd = Number(context.builder.call('inotify_init1', SYS.inotify_init1, record.flags & O.nonblock));
    setStatusFlags(fd, record.flags, context);
    context.keep(record.id, fd);
  },

  arm(_name, meta, context) {
    const record = meta as Records['inotify'];
    // What the making itself does to files is no news for the session.
    const fd = context.descriptor(record.id);
    for (const watch of [...record.watches].sort((a, b) => a.wd - b.wd)) addWatch(fd, watch, context);
    armOwner(record.id, record.owner, context);
  },
};

type WatchRecord = Records['inotify']['watches'][number];

function addWatch(fd: number, watch: WatchRecord, context: RestoreContext): void {
  const { builder } = context;
  builder.reset();
  const path = builder.putString(watch.path);
  const add = [SYS.inotify_add_watch, fd, path, watch.mask];
  const [set, first] = builder.run([[SYS.ioctl, fd, INOTIFY_IOC_SETNEXTWD, watch.wd], add]);
  const got = set! < 0n ? countUp(fd, watch.wd, first!, add, context) : first!;
  if (got < 0n) {
    context.refuse(
      `the folder or file ${watch.path}, which the session watches, can't be watched here (${errnoName(Number(-got))})`,
      got === -28n
        ? 'raise fs.inotify.max_user_watches'
        : 'bring it to this computer, or map it with pod-filter relocate OLD=NEW',
    );
  }
  if (got !== BigInt(watch.wd)) {
    context.refuse(
      `the watch on ${watch.path} would be number ${got} and must be ${watch.wd}`,
      'this kernel lacks CONFIG_CHECKPOINT_RESTORE, or two watches of the image are of one file',
    );
  }
}

/** Without the ioctl numbers only go up by one, each time a watch is made. The last that was got. */
function countUp(
  fd: number,
  wanted: number,
  first: bigint,
  add: readonly Word[],
  { builder }: RestoreContext,
): bigint {
  const scrap = builder.reserve(4096);
  // O_ASYNC is armed already, under the number it has in the session: it must never change here.
  const flags = builder.call('F_GETFL', SYS.fcntl, fd, F.getfl, 0);
  let got = first;
  for (let attempt = 0; got >= 0n && got < wanted && attempt < 10_000; attempt++) {
    // The end of a watch is an event too.
    got = builder.run([
      [inotify_rm_watch, fd, got],
      [SYS.fcntl, fd, F.setfl, flags | BigInt(O.nonblock)],
      [SYS.read, fd, scrap, 4096],
      add,
    ])[3]!;
  }
  builder.call('F_SETFL', SYS.fcntl, fd, F.setfl, flags);
  return got;
}
