/**
 * Terminals that programs read and write: slaves of pseudo-terminals whose master is in the session (pty.ts), and
 * those whose other side is not: the pod's console, or the terminal a plain process was started from. In place of
 * the latter the session gets the console of the new pod at restart, set up as the old one was. Which session a
 * terminal controls and which group is in its foreground are set from inside, by the session's leader.
 */
import type { Records } from '../../../image/record.ts';
import { AT_FDCWD, F, O, SYS } from '../abi.ts';
import { inner, readStat, readStatus, statField } from '../proc.ts';
import { RemoteError } from '../remote.ts';
import type {
  BareTask,
  DumpContext,
  FileObject,
  OpenFile,
  RestoreContext,
  RestoredTable,
} from './file-object.ts';
import { errnoName, ioctlRead, pollNow, readable } from './local-calls.ts';
import { armOwner, readOwner } from './owner.ts';
import { setStatusFlags } from './paths.ts';
import { devicesInside, slavePath } from './pty.ts';
import { type Held, replaceDescriptors, shareFile } from './share-file.ts';
import { applySettings, deviceBehind, deviceNumbers, readSettings, ttyNumber } from './tty-device.ts';

const TIOCSCTTY = 0x540e;
const TIOCSPGRP = 0x5410;
/** Times that a dump is put off for the sake of typed input. */
const patience = 8;
const POLLIN = 1;
const TIOCGEXCL = 0x80045440;
const TIOCEXCL = 0x540c;

const devTty = { major: 5, minor: 0 };
/** 4 consoles and serial lines, 5 tty, console, ptmx, 136–143 pts, 204 and 229 serial and hypervisor consoles. */
const terminalMajors = new Set([3, 4, 5, 136, 137, 138, 139, 140, 141, 142, 143, 204, 229]);

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

function roleOf(
  { major, minor }: { major: number; minor: number },
  device: number,
  context: DumpContext,
): Records['terminal']['role'] {
  if (major === devTty.major && minor === devTty.minor) return 'controlling';
  return devicesInside(context).has(device) ? 'inside' : 'outside';
}

/** Of a line that is not finished nothing is known: only whole lines can be read. */
function hasInput(file: OpenFile): boolean {
  // poll(2) first: it waits for what is on its way.
  return (pollNow(file.local, POLLIN) & POLLIN) !== 0 && readable(file.local) > 0;
}

function excludesOthers(file: OpenFile): boolean {
  return new DataView(ioctlRead(file.local, TIOCGEXCL, 4).buffer).getInt32(0, true) !== 0;
}

export const terminal: FileObject = {
  records: ['terminal'],
  coverage:
    'terminals whose master is outside (console, ssh, terminal window): settings, size, controlling session and foreground group go to the console of the new pod, which keeps the number of /dev/pts/N; typed input not yet read is lost and named, several terminals become one',

  matches(file) {
    if (!file.stat.isCharacterDevice() || (file.flags & O.path) !== 0) return false;
    return terminalMajors.has(deviceNumbers(file.stat.rdev).major);
  },

  dump(file, context) {
    const { major, minor } = deviceNumbers(file.stat.rdev);
    const settings = readSettings(file, context);
    const device = deviceBehind(file.local);
    const tty = ttyNumber(device, context);
    const looked = context.once('terminals looked at for input', () => new Set<number>());
    if (!looked.has(tty) && hasInput(file)) {
      // Who reads it is most often just about to.
      if (context.putOff < patience) context.notNow(file, 'what was typed is not read yet', 'try again');
      context.loss(`what was typed at ${file.link} and not read yet`);
    }
    looked.add(tty);
    return [
      {
        name: 'terminal',
        meta: {
          id: file.id,
          flags: file.flags,
          tty,
          role: roleOf({ major, minor }, device, context),
          ...settings,
          ...(excludesOthers(file) ? { exclusive: true } : {}),
          path: file.link,
          ...readControl(device, context),
          ...readOwner(file, context),
        },
      },
    ];
  },

  restore(_name, meta, context) {
    const record = meta as Records['terminal'];
    const inside = slavePath(record.tty, context);
    const fd = openTerminal(inside ?? consolePath(record, context), record, context);
    if (inside === undefined) setUpConsole(record, fd, context);
    setStatusFlags(fd, record.flags, context);
    context.keep(record.id, fd);
  },

  leadSession(_name, meta, leader, context) {
    const record = meta as Records['terminal'];
    const controlled = controlledTerminals(context);
    if (leader.pid !== record.session || controlled.has(record.tty)) return;
    controlled.add(record.tty);
    takeControl(record, leader, context);
  },

  treeMade(_name, meta, find, context) {
    const record = meta as Records['terminal'];
    const done = context.once('terminals with their foreground group', () => new Set<number>());
    const leader = record.session === undefined ? undefined : find(record.session);
    if (!leader || done.has(record.tty)) return;
    done.add(record.tty);
    setForeground(record, leader, context);
  },

  restoreInTable(_name, meta, table, context) {
    const record = meta as Records['terminal'];
    return record.role === 'controlling' ? reopen(record, table, context) : 'done';
  },

  arm(_name, meta, context) {
    const record = meta as Records['terminal'];
    if (record.exclusive)
      context.builder.call('TIOCEXCL', SYS.ioctl, context.descriptor(record.id), TIOCEXCL, 0);
    armOwner(record.id, record.owner, context);
  },
};

function consolePath(record: Records['terminal'], context: RestoreContext): string {
  return (
    context.console ??
    context.refuse(
      `the session used the terminal ${record.path ?? ''} and this restart has none to give`,
      'use pod-restart --attach, or -d for a console to attach to later',
    )
  );
}

function openTerminal(path: string, record: Records['terminal'], context: RestoreContext): number {
  const { builder } = context;
  builder.reset();
  const flags = (record.flags & O.accessMode) | O.noctty | O.nonblock;
  try {
    return Number(builder.call('open', SYS.openat, AT_FDCWD, builder.putString(path), flags));
  } catch (cause) {
    if (!(cause instanceof RemoteError)) throw cause;
    return context.refuse(`the terminal ${path} of the new pod can't be opened (${errnoName(cause.errno)})`);
  }
}

/** Settings and size, once; the console keeps those of the terminal that came first. */
function setUpConsole(record: Records['terminal'], fd: number, context: RestoreContext): void {
  const ready = context.once('terminals set up', () => new Set<number>());
  if (ready.has(record.tty)) return;
  if (ready.size === 0) applySettings(fd, record, context);
  if (ready.size === 1) context.warn('the session used several terminals; they are one now');
  ready.add(record.tty);
}

/** Terminals (by number in the image) that control a session already. */
const controlledTerminals = (context: RestoreContext) =>
  context.once('controlled terminals', () => new Set<number>());

/** Only who is forked afterwards has it as the controlling terminal too. */
function takeControl(record: Records['terminal'], leader: BareTask, context: RestoreContext): void {
  const { remote } = leader;
  remote.reset();
  const [taken] = remote.run([[SYS.ioctl, context.descriptor(record.id), TIOCSCTTY, 0]]);
  if (taken! >= 0n) return;
  context.warn(
    `the terminal ${record.path ?? ''} could not become that of session ${record.session} (${errnoName(Number(-taken!))}): Ctrl-C and job control will not reach it`,
  );
}

/** From the session's leader, which is in the foreground as yet: others would be stopped for it (SIGTTOU). */
function setForeground(record: Records['terminal'], leader: BareTask, context: RestoreContext): void {
  if (record.foreground === undefined) return;
  const { remote } = leader;
  remote.reset();
  const group = remote.put(new Uint8Array(new Int32Array([record.foreground]).buffer));
  const [set] = remote.run([[SYS.ioctl, context.descriptor(record.id), TIOCSPGRP, group]]);
  if (set! >= 0n) return;
  context.warn(
    `process group ${record.foreground} could not become the foreground of the terminal ${record.path ?? ''} (${errnoName(Number(-set!))})`,
  );
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
  // A process of another session would open another terminal by that name.
  const [session] = remote.run([[SYS.getsid, 0]]);
  if (record.session !== undefined && session !== BigInt(record.session)) {
    state.waiting.push(table);
    return 'next-table';
  }
  const flags = (record.flags & O.accessMode) | O.noctty | O.nonblock;
  const [fd] = remote.run([[SYS.openat, AT_FDCWD, remote.putString('/dev/tty'), flags]]);
  if (fd! < 0n) {
    state.waiting.push(table);
    return 'next-table';
  }
  remote.run([[SYS.fcntl, fd!, F.setfl, record.flags & (O.append | O.nonblock)]]);
  const numbers = table.numbers(record.id);
  replaceDescriptors(remote, fd!, numbers);
  state.source = { pid: table.pid, fd: numbers[0]! };
  shareFile(state.source, context.builder, [context.descriptor(record.id)]);
  for (const other of state.waiting.splice(0))
    shareFile(state.source, other.remote, other.numbers(record.id));
  return 'next-table';
}
