/**
 * Pseudo-terminals whose master is in the session: tmux, screen, script, a shell inside an editor. pty(7).
 *
 * A pair is found by its number in one devpts instance, and made again under the same number, so that the slave's
 * name (ttyname(3), SSH_TTY, GPG_TTY) stays what it was. A pod's devpts gives out the lowest free number, so the
 * numbers below are taken for a moment, and given back.
 *
 * What a program wrote to its terminal and nobody has read yet can not be looked at without taking it. The reader
 * (a terminal emulator) is a moment away from taking it itself, so the dump is put off until it has.
 */
import { statSync } from 'node:fs';
import type { Records } from '../../../image/record.ts';
import { AT_FDCWD, O, SYS } from '../abi.ts';
import { RemoteError } from '../remote.ts';
import type { DumpContext, FileObject, OpenFile, RestoreContext } from './file-object.ts';
import { errnoName, ioctlRead, POLL, pollNow } from './local-calls.ts';
import { armOwner, readOwner } from './owner.ts';
import { setStatusFlags } from './paths.ts';
import { howStopped, stopOutput } from './stopped-output.ts';
import {
  applySettings,
  deviceNumbers,
  ptsMajor,
  readSettings,
  slaveDevice,
  ttyNumber,
} from './tty-device.ts';

const TIOCGPTN = 0x80045430;
const TIOCGPTLCK = 0x80045439;
const TIOCGPKT = 0x80045438;
const TIOCSPTLCK = 0x40045431;
const TIOCPKT = 0x5420;

function isMaster(file: OpenFile): boolean {
  if (!file.stat.isCharacterDevice() || (file.flags & O.path) !== 0) return false;
  const { major, minor } = deviceNumbers(file.stat.rdev);
  return major === 5 && minor === 2;
}

const readInt = (fd: number, request: number): number =>
  new DataView(ioctlRead(fd, request, 4).buffer).getInt32(0, true);

/** The devpts instance a master belongs to, by device number: its own, or that beside a ptmx node in /dev. */
function instanceOf(master: OpenFile): bigint {
  try {
    const pts = statSync(`/proc/${master.pid}/root/dev/pts`, { bigint: true });
    if (master.stat.dev !== pts.dev && master.link !== '/dev/ptmx') return master.stat.dev;
    return pts.dev;
  } catch {
    return master.stat.dev;
  }
}

/** Open slaves in the session, by `instance:index`. */
function slaves(context: DumpContext): ReadonlyMap<string, OpenFile> {
  return context.once('slaves of pseudo-terminals', () => {
    const found = new Map<string, OpenFile>();
    for (const file of context.files) {
      if (!file.stat.isCharacterDevice()) continue;
      const { major, minor } = deviceNumbers(file.stat.rdev);
      if (major === ptsMajor && (file.flags & O.path) === 0) found.set(`${file.stat.dev}:${minor}`, file);
    }
    return found;
  });
}

/** The device numbers (tty_nr) of the slaves whose masters are in the session. */
export function devicesInside(context: DumpContext): ReadonlySet<number> {
  return context.once(
    'pseudo-terminals inside',
    () =>
      new Set(context.files.filter(isMaster).map((master) => slaveDevice(readInt(master.local, TIOCGPTN)))),
  );
}

/** Owner and permissions of the slave's node. */
function readNode(index: number, file: OpenFile): { mode?: number; uid?: number; gid?: number } {
  try {
    const node = statSync(`/proc/${file.pid}/root/dev/pts/${index}`);
    return { mode: node.mode & 0o7777, uid: node.uid, gid: node.gid };
  } catch {
    return {}; // devpts is not at its usual place
  }
}

const paths = (context: RestoreContext) => context.once('pseudo-terminals', () => new Map<number, string>());

/** Name in the pod of the slave that stands for terminal `tty` of the image, when its master is in the session. */
export function slavePath(tty: number, context: RestoreContext): string | undefined {
  return paths(context).get(tty);
}

/** A master whose slave is /dev/pts/`index`. */
function openMaster(index: number, context: RestoreContext): number {
  const { builder } = context;
  const spare: number[] = [];
  try {
    for (;;) {
      builder.reset();
      const path = builder.putString('/dev/ptmx');
      const fd = Number(builder.call('open', SYS.openat, AT_FDCWD, path, O.rdwr | O.noctty | O.nonblock));
      spare.push(fd);
      const number = builder.reserve(4);
      builder.call('TIOCGPTN', SYS.ioctl, fd, TIOCGPTN, number);
      const got = new DataView(builder.read(number, 4).slice().buffer).getInt32(0, true);
      if (got === index) {
        spare.pop();
        return fd;
      }
      if (got > index) {
        return context.refuse(
          `the terminal /dev/pts/${index} of the session is in use in the new pod`,
          'dump the session again, from a pod (pod-run), and restart that image',
        );
      }
    }
  } catch (cause) {
    if (!(cause instanceof RemoteError)) throw cause;
    return context.refuse(
      `the pseudo-terminal /dev/pts/${index} can't be made (${errnoName(cause.errno)})`,
      'the machine may have no more of them: sysctl kernel.pty.max',
    );
  } finally {
    for (const fd of spare) builder.run([[SYS.close, fd]]);
  }
}

const setInt = (fd: number, request: number, value: number, context: RestoreContext): void => {
  const { builder } = context;
  builder.reset();
  const address = builder.put(new Uint8Array(new Int32Array([value]).buffer));
  builder.call('ioctl', SYS.ioctl, fd, request, address);
};

export const pty: FileObject = {
  records: ['pty'],
  coverage:
    'pseudo-terminals with the master inside (tmux, screen, script): number and name, settings, size, packet mode, lock, closed slave, stopped output, controlling session and foreground group. The dump waits a moment for output that the master has not read, and is refused when it stays; typed input not yet read is lost and named as a loss, of a line that is not finished nothing is known. Refused: a slave held only outside the session',

  matches: isMaster,

  dump(file, context) {
    const index = readInt(file.local, TIOCGPTN);
    const state = pollNow(file.local, POLL.in);
    // poll(2) also waits for what is on its way from the slave.
    if ((state & POLL.in) !== 0) {
      context.notNow(
        file,
        `output of /dev/pts/${index} has not been read by it`,
        'try again when the program that shows this terminal has caught up',
      );
    }
    const slaveClosed = (state & POLL.hup) !== 0;
    const locked = readInt(file.local, TIOCGPTLCK) !== 0;
    const slave = slaves(context).get(`${instanceOf(file)}:${index}`);
    if (!slaveClosed && !locked && !slave) {
      context.refuse(
        file,
        `its terminal /dev/pts/${index} is used by a process outside the session, or by none yet`,
        'dump the session of the program that holds both',
      );
    }
    const stopped = slave && !slaveClosed ? howStopped(slave.local) : undefined;
    return [
      {
        name: 'pty',
        meta: {
          id: file.id,
          flags: file.flags,
          tty: ttyNumber(slaveDevice(index), context),
          index,
          ...readSettings(file, context),
          ...(slaveClosed ? { slaveClosed } : {}),
          ...(locked ? { locked } : {}),
          ...(stopped ? { stopped } : {}),
          ...(readInt(file.local, TIOCGPKT) !== 0 ? { packet: true } : {}),
          ...readNode(index, file),
          ...readOwner(file, context),
        },
      },
    ];
  },

  restore(_name, meta, context) {
    const record = meta as Records['pty'];
    const { builder } = context;
    const path = `/dev/pts/${record.index}`;
    const master = openMaster(record.index, context);
    setInt(master, TIOCSPTLCK, 0, context);
    applySettings(master, record, context);
    builder.reset();
    const address = builder.putString(path);
    const { uid, gid, mode } = record;
    if (uid !== undefined && gid !== undefined && mode !== undefined) {
      // In an ordinary user's pod the group can not be given (EPERM), and only write(1) would care.
      builder.run([
        [SYS.fchownat, AT_FDCWD, address, uid, gid, 0],
        [SYS.fchmodat, AT_FDCWD, address, mode],
      ]);
    }
    if (record.slaveClosed) {
      const slave = builder.call('open', SYS.openat, AT_FDCWD, address, O.rdwr | O.noctty | O.nonblock);
      builder.call('close', SYS.close, slave);
    }
    if (record.packet) setInt(master, TIOCPKT, 1, context);
    setStatusFlags(master, record.flags, context);
    paths(context).set(record.tty, path);
    context.keep(record.id, master);
  },

  arm(_name, meta, context) {
    const record = meta as Records['pty'];
    stopOutput(context.descriptor(record.id), record, context);
    // Not before: until here the tables' slaves had to be opened.
    if (record.locked) setInt(context.descriptor(record.id), TIOCSPTLCK, 1, context);
    armOwner(record.id, record.owner, context);
  },
};
