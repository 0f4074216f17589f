/**
 * Terminals whose other side is not in the session: the pod's console, or the terminal a plain process was started
 * from. At restart the session gets the console of the new pod in its place, set up as the old one was; which
 * session it controls and which group is in its foreground are set from inside, by the session's leader.
 */
import type { Records } from '../../../image/record.ts';
import { AT_FDCWD, F, O, SYS } from '../abi.ts';
import { inner, readStat, readStatus, statField } from '../proc.ts';
import { RemoteError } from '../remote.ts';
import type { DumpContext, FileObject, OpenFile, RestoreContext, RestoredTable } from './file-object.ts';
import { codeOf, errnoName, ioctlRead, readable } from './local-calls.ts';
import { armOwner, readOwner } from './owner.ts';
import { setStatusFlags } from './paths.ts';
import { type Held, replaceDescriptors, shareFile } from './share-file.ts';

const TCGETS2 = 0x802c542a;
const TCSETS2 = 0x402c542b;
const TIOCGWINSZ = 0x5413;
const TIOCSWINSZ = 0x5414;
const TIOCSCTTY = 0x540e;
const TIOCSPGRP = 0x5410;
const TIOCGDEV = 0x80045432;
const termiosLength = 44;

const ptmx = { major: 5, minor: 2 };
const devTty = { major: 5, minor: 0 };
/** 4 consoles and serial lines, 5 tty, console, ptmx, 136–143 pts, 204 and 229 serial and hypervisor consoles. */
const terminalMajors = new Set([3, 4, 5, 136, 137, 138, 139, 140, 141, 142, 143, 204, 229]);

function numbersOf(rdev: bigint): { major: number; minor: number } {
  return { major: Number((rdev >> 8n) & 0xfffn), minor: Number((rdev & 0xffn) | ((rdev >> 12n) & ~0xffn)) };
}

/** The device behind a descriptor, also behind /dev/tty, as /proc/PID/stat's tty_nr has it. */
function deviceOf(file: OpenFile): number {
  return new DataView(ioctlRead(file.local, TIOCGDEV, 4).buffer).getInt32(0, true);
}

/** Session and foreground group of a terminal, with the session's own pids; those of outside are left out. */
function readControl(device: number, context: DumpContext): { session?: number; foreground?: number } {
  const pids = new Set(context.files.flatMap((file) => file.holders.map((holder) => holder.pid)));
  const stats = [...pids].map((pid) => ({ pid, fields: readStat(pid).fields }));
  const attached = stats.filter(({ fields }) => Number(statField(fields, 7)) === device);
  const first = attached[0];
  if (!first) return {};
  const leader = Number(statField(first.fields, 6));
  if (!pids.has(leader)) return {};
  const session = context.innerPid(leader);
  if (session === 0) return {};
  const group = statField(first.fields, 8);
  // A group outlives its leader: any member tells its number.
  const member = stats.find(({ fields }) => statField(fields, 5) === group);
  const foreground = member ? inner(readStatus(member.pid), 'NSpgid') : 0;
  return { session, ...(foreground > 0 ? { foreground } : {}) };
}

function readSettings(
  file: OpenFile,
  context: DumpContext,
): { termios: Uint8Array; rows: number; columns: number } {
  try {
    const termios = ioctlRead(file.local, TCGETS2, termiosLength);
    const size = new DataView(ioctlRead(file.local, TIOCGWINSZ, 8).buffer);
    return { termios, rows: size.getUint16(0, true), columns: size.getUint16(2, true) };
  } catch (cause) {
    if (codeOf(cause) !== 'EIO') throw cause;
    return context.refuse(file, 'its terminal was closed', 'the program would be ended by its next read');
  }
}

/** Numbers given to the terminals of the session so far, by device. */
const numbered = (context: DumpContext) => context.once('terminals', () => new Map<number, number>());

export const terminal: FileObject = {
  records: ['terminal'],
  coverage:
    'terminals whose master is outside (console, ssh, terminal window): settings, size, controlling session and foreground group go to the console of the new pod; typed input not yet read is lost, several terminals become one, pseudo-terminal masters inside the session are refused',

  matches(file) {
    if (!file.stat.isCharacterDevice() || (file.flags & O.path) !== 0) return false;
    return terminalMajors.has(numbersOf(file.stat.rdev).major);
  },

  dump(file, context) {
    const { major, minor } = numbersOf(file.stat.rdev);
    if (major === ptmx.major && minor === ptmx.minor) {
      context.refuse(
        file,
        "the session holds the master of a pseudo-terminal (as script, tmux, screen, ssh and terminal windows do), which can't be saved yet",
        'run the inner program as a session of its own with pod-run',
      );
    }
    const { termios, rows, columns } = readSettings(file, context);
    const device = deviceOf(file);
    const numbers = numbered(context);
    const known = numbers.get(device);
    const tty = known ?? numbers.size;
    numbers.set(device, tty);
    if (known === undefined && readable(file.local) > 0) {
      context.loss(`what was typed at ${file.link} and not read yet`);
    }
    return [
      {
        name: 'terminal',
        meta: {
          id: file.id,
          flags: file.flags,
          tty,
          role: major === devTty.major && minor === devTty.minor ? 'controlling' : 'outside',
          termios,
          rows,
          columns,
          path: file.link,
          ...readControl(device, context),
          ...readOwner(file, context),
        },
      },
    ];
  },

  restore(_name, meta, context) {
    const record = meta as Records['terminal'];
    const fd = openConsole(record, context);
    setUp(record, fd, context);
    setStatusFlags(fd, record.flags, context);
    context.keep(record.id, fd);
  },

  restoreInTable(_name, meta, table, context) {
    const record = meta as Records['terminal'];
    const controlled = context.once('controlled terminals', () => new Set<number>());
    if (table.pid === record.session && !controlled.has(record.tty)) {
      takeControl(record, table, context);
      controlled.add(record.tty);
    }
    if (record.role === 'controlling') return reopen(record, table, context);
    return record.session === undefined || controlled.has(record.tty) ? 'done' : 'next-table';
  },

  arm(_name, meta, context) {
    const record = meta as Records['terminal'];
    armOwner(record.id, record.owner, context);
  },
};

function openConsole(record: Records['terminal'], context: RestoreContext): number {
  const { builder, console: path } = context;
  if (path === undefined) {
    return context.refuse(
      `the session used the terminal ${record.path ?? ''} and this restart has none to give`,
      'use pod-restart --attach, or -d for a console to attach to later',
    );
  }
  builder.reset();
  const flags = (record.flags & O.accessMode) | O.noctty | O.nonblock;
  try {
    return Number(builder.call('open', SYS.openat, AT_FDCWD, builder.putString(path), flags));
  } catch (cause) {
    if (!(cause instanceof RemoteError)) throw cause;
    return context.refuse(`the console ${path} of the new pod can't be opened (${errnoName(cause.errno)})`);
  }
}

/** Settings and size, once a terminal. */
function setUp(record: Records['terminal'], fd: number, context: RestoreContext): void {
  const { builder } = context;
  const ready = context.once('terminals set up', () => new Set<number>());
  if (ready.has(record.tty)) return;
  if (ready.size === 1) context.warn('the session used several terminals; they are one now');
  // The console keeps the settings of the terminal that came first.
  if (ready.size === 0) {
    builder.reset();
    if (record.termios?.length === termiosLength) {
      builder.call('TCSETS2', SYS.ioctl, fd, TCSETS2, builder.put(record.termios));
    }
    if (record.rows && record.columns) {
      const size = builder.put(new Uint8Array(new Uint16Array([record.rows, record.columns, 0, 0]).buffer));
      builder.call('TIOCSWINSZ', SYS.ioctl, fd, TIOCSWINSZ, size);
    }
  }
  ready.add(record.tty);
}

/** From the session's leader: make the terminal its controlling one and choose the foreground group. */
function takeControl(record: Records['terminal'], table: RestoredTable, context: RestoreContext): void {
  const { remote } = table;
  const [fd] = table.numbers(record.id);
  if (fd === undefined) return;
  remote.reset();
  const [taken] = remote.run([[SYS.ioctl, fd, TIOCSCTTY, 0]]);
  if (taken! < 0n) {
    context.warn(
      `the console could not become the terminal of session ${record.session} (${errnoName(Number(-taken!))}): Ctrl-C and job control will not reach it`,
    );
    return;
  }
  if (record.foreground === undefined) return;
  const group = remote.put(new Uint8Array(new Int32Array([record.foreground]).buffer));
  const [set] = remote.run([[SYS.ioctl, fd, TIOCSPGRP, group]]);
  if (set! < 0n) {
    context.warn(
      `process group ${record.foreground} could not become the foreground of the terminal (${errnoName(Number(-set!))})`,
    );
  }
}

interface Reopened {
  /** Who has /dev/tty open. */
  source: Held | undefined;
  /** Tables that came before it. */
  waiting: RestoredTable[];
}

/**
 * /dev/tty is a device of its own, and only a process of the terminal's session can open it: the first that can
 * does, and all others that shared the open file get it from there, the builder included.
 */
function reopen(
  record: Records['terminal'],
  table: RestoredTable,
  context: RestoreContext,
): 'done' | 'next-table' {
  const state = context.once(`/dev/tty ${record.id}`, (): Reopened => ({ source: undefined, waiting: [] }));
  if (state.source) {
    shareFile(state.source, table.remote, table.numbers(record.id));
    return 'next-table';
  }
  const { remote } = table;
  remote.reset();
  const flags = (record.flags & O.accessMode) | O.noctty | O.nonblock;
  const [fd] = remote.run([[SYS.openat, AT_FDCWD, remote.putString('/dev/tty'), flags]]);
  if (fd! < 0n) {
    state.waiting.push(table);
    return 'next-table';
  }
  remote.run([[SYS.fcntl, fd!, F.setfl, record.flags & (O.append | O.nonblock | O.async)]]);
  const numbers = table.numbers(record.id);
  replaceDescriptors(remote, fd!, numbers);
  state.source = { pid: table.pid, fd: numbers[0]! };
  shareFile(state.source, context.builder, [context.descriptor(record.id)]);
  for (const other of state.waiting.splice(0))
    shareFile(state.source, other.remote, other.numbers(record.id));
  return 'next-table';
}
