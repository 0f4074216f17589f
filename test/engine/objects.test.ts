/**
 * Each kernel object, made by this process, dumped, made again in another process, and looked at there: by the
 * very calls a program would use, and by a second dump, which must say the same as the first.
 */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { O, SYS } from '../../lib/engine/user/abi.ts';
import type { OutRecord } from '../../lib/engine/user/objects/file-object.ts';
import {
  control,
  ioctlRead,
  pollNow,
  readable,
  setSocketOption,
  socketOption,
} from '../../lib/engine/user/objects/local-calls.ts';
import { PodError } from '../../lib/stream/error.ts';
import { native } from '../../native/index.ts';
import { type Dumped, dumpDescriptors, TestBuilder } from '../tools/object-driver.ts';

const call = (number: number, ...words: (number | bigint | Uint8Array | null)[]) =>
  Number(native().syscall(number, ...words));
const close = (...fds: number[]) => {
  for (const fd of fds) closeSync(fd);
};
const words32 = (...values: number[]) => new Uint8Array(new Int32Array(values).buffer);
const words64 = (...values: bigint[]) => new Uint8Array(new BigUint64Array(values).buffer);
const second = 1_000_000_000n;

const folder = mkdtempSync(join(tmpdir(), 'pod-objects-'));
const builders: TestBuilder[] = [];
t.afterEach(async () => {
  for (const builder of builders.splice(0)) await builder.end();
});
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

const dump = (...fds: number[]) => dumpDescriptors(process.pid, fds);

function restore(
  records: readonly OutRecord[],
  options: { console?: string; command?: string[] } = {},
): TestBuilder {
  const builder = new TestBuilder(options.command);
  builders.push(builder);
  builder.restore(records, options);
  return builder;
}

/** A record without what may differ: the order of epoll entries, and the peer's pid, which is the builder's then. */
function comparable({ name, meta, data }: OutRecord) {
  const { peerCredentials: _, ...rest } = meta as { peerCredentials?: unknown; entries?: { data: bigint }[] };
  rest.entries?.sort((a, b) => Number(a.data - b.data));
  return { name, meta: rest, ...(data ? { data: Buffer.from(data) } : {}) };
}

/** Dump, restore, dump again: the same. */
function roundTrip(t: Test, fds: number[]): { first: Dumped; builder: TestBuilder } {
  const first = dump(...fds);
  const builder = restore(first.records);
  const second = dumpDescriptors(builder.pid, builder.descriptors());
  t.same(second.records.map(comparable), first.records.map(comparable), 'a second dump says the same');
  t.same(builder.warnings, [], 'nothing to warn of');
  t.equal(
    builder.open().length,
    builder.descriptors().length + builder.openBefore,
    'no descriptor left over',
  );
  return { first, builder };
}

function fails(t: Test, body: () => unknown, failure: PodError['failure'], message: RegExp): void {
  try {
    body();
  } catch (cause) {
    t.ok(cause instanceof PodError, `a PodError: ${cause}`);
    t.equal((cause as PodError).failure, failure);
    t.match((cause as PodError).message, message);
    t.ok((cause as PodError).hint, 'it says what can be done');
    return;
  }
  t.fail('it must fail');
}

const refuses = (t: Test, fds: number[], message: RegExp) =>
  fails(t, () => dump(...fds), 'cannot-checkpoint', message);
const refusesIn = (t: Test, builder: TestBuilder, message: RegExp) =>
  fails(t, () => dumpDescriptors(builder.pid, builder.descriptors()), 'cannot-checkpoint', message);
const cannotRestart = (t: Test, records: readonly OutRecord[], message: RegExp) =>
  fails(t, () => restore(records), 'cannot-restart', message);

t.test('regular files', async (t) => {
  const path = join(folder, 'regular');
  const write = (text: string) => writeFileSync(path, text);

  t.test('keep place and flags', async (t) => {
    write('0123456789');
    const reader = openSync(path, 'r');
    const writer = openSync(path, constants.O_WRONLY | constants.O_APPEND | constants.O_NONBLOCK);
    const both = openSync(path, constants.O_RDWR | constants.O_DSYNC);
    readSync(reader, new Uint8Array(4));
    const { builder } = roundTrip(t, [reader, writer, both]);
    const buffer = Buffer.alloc(2);
    const again = builder.take(0);
    readSync(again, buffer);
    t.equal(buffer.toString(), '45', 'goes on where it was');
    t.equal(control(builder.take(1), 3) & 3, 1);
    close(reader, writer, both);
  });

  t.test('keep a place beyond the end', async (t) => {
    write('short');
    const fd = openSync(path, 'r+');
    call(SYS.lseek, fd, 1000, 0);
    roundTrip(t, [fd]);
    close(fd);
  });

  t.test('a place in the file system without the file (O_PATH)', async (t) => {
    write('x');
    const fd = openSync(path, O.path);
    roundTrip(t, [fd]);
    close(fd);
  });

  t.test('have grown: said, not refused', async (t) => {
    write('12345');
    const fd = openSync(path, 'a');
    const { records } = dump(fd);
    write('1234567');
    t.match(restore(records).warnings, [/had 5 bytes at dump and has 7 now/]);
    close(fd);
  });

  t.test('lack what was passed', async (t) => {
    write('1234567890');
    const fd = openSync(path, 'r');
    readSync(fd, new Uint8Array(8));
    const { records } = dump(fd);
    write('123');
    cannotRestart(t, records, /regular had 10 bytes, of which 8 were passed, and has 3 here/);
    unlinkSync(path);
    cannotRestart(t, records, /regular is needed and is not there/);
    mkdirSync(path);
    cannotRestart(t, records, /was a regular file and is a folder here/);
    rmSync(path, { recursive: true });
    call(133 /* mknod */, Buffer.from(`${path}\0`), 0o10644, 0);
    cannotRestart(t, records, /was a regular file and is a FIFO here/);
    unlinkSync(path);
    close(fd);
  });

  t.test('deleted, replaced, and from memory', async (t) => {
    write('x');
    const fd = openSync(path, 'r');
    renameSync(path, `${path}.moved`);
    roundTrip(t, [fd]);
    const pathOf = () => (dump(fd).records[0]!.meta as { path: string }).path;
    t.equal(pathOf(), `${path}.moved`, 'found under its new name');
    linkSync(`${path}.moved`, `${path}.other`);
    unlinkSync(`${path}.moved`);
    t.equal(pathOf(), `${path}.other`, 'and under another in the same folder');
    mkdirSync(`${path}.away`);
    linkSync(`${path}.other`, `${path}.away/x`);
    unlinkSync(`${path}.other`);
    refuses(t, [fd], /another name elsewhere/);
    rmSync(`${path}.away`, { recursive: true });
    close(fd);
    const own = openSync(`/proc/${process.ppid}/maps`, 'r');
    refuses(t, [own], /shows a process/);
    const notText = Buffer.concat([Buffer.from(`${path}-`), Buffer.of(0xff)]);
    const foreign = openSync(notText, 'w');
    refuses(t, [foreign], /not UTF-8/);
    close(foreign);
    unlinkSync(notText);
    close(own);
  });

  t.test('without a name: bytes, holes and attributes', async (t) => {
    write('');
    const fd = openSync(path, 'r+');
    const reader = openSync(path, 'r');
    writeSync(fd, 'far away', 1 << 20);
    readSync(reader, new Uint8Array(3));
    chmodSync(path, 0o4751);
    utimesSync(path, 1_000_000_000, 1_100_000_000);
    unlinkSync(path);
    const { records } = dump(fd, reader);
    t.equal(records.filter(({ name }) => name === 'shm').length, 1, 'one file, however often it is open');
    const builder = restore(records);
    const [again, other] = [builder.take(0), builder.take(1)] as [number, number];
    const status = fstatSync(again);
    t.match(status, { nlink: 0, size: (1 << 20) + 8, mode: 0o104751, atimeMs: 1e12, mtimeMs: 1.1e12 });
    t.ok(status.blocks * 512 < 1 << 20, 'the hole stays');
    t.equal(fstatSync(other).ino, status.ino, 'one file again');
    t.equal(readlinkSync(`/proc/self/fd/${again}`).startsWith(`${folder}/`), true, 'in its folder');
    const bytes = new Uint8Array(8);
    readSync(other, bytes, 0, 8, 1 << 20);
    t.equal(Buffer.from(bytes).toString(), 'far away');
    t.equal(call(SYS.lseek, other, 0, 1), 3);
    t.throws(() => writeSync(other, 'x'), { code: 'EBADF' });
    t.same(builder.warnings, []);
    t.same(readdirSync(folder), [], 'no name was left');
    close(fd, reader);
  });

  t.test('made without a name, then given one', async (t) => {
    const fd = openSync(folder, 0o20200000 | constants.O_RDWR, 0o600);
    writeSync(fd, 'named');
    const from = Buffer.from(`/proc/self/fd/${fd}\0`);
    call(265 /* linkat */, -100, from, -100, Buffer.from(`${path}\0`), 0x400);
    const { records } = dump(fd);
    t.match(records, [{ name: 'regular', meta: { path } }]);
    const again = restore(records).take(0);
    t.equal(fstatSync(again).ino, fstatSync(fd).ino, 'the file of that name');
    close(fd);
    unlinkSync(path);
  });

  t.test('without a name and without its folder', async (t) => {
    mkdirSync(`${path}.folder`);
    const fd = openSync(`${path}.folder/file`, 'w+');
    writeSync(fd, 'bytes');
    rmSync(`${path}.folder`, { recursive: true });
    const builder = restore(dump(fd).records);
    t.match(builder.warnings, [/lies in \/var\/tmp now/]);
    t.equal(readFileSync(`/proc/self/fd/${builder.take(0)}`, 'utf8'), 'bytes');
    close(fd);
  });

  t.test('written to, and closed to readers', async (t) => {
    write('secret');
    const fd = openSync(path, 'a');
    chmodSync(path, 0o200);
    unlinkSync(path);
    const { records } = dump(fd);
    t.match(records.at(-1), { name: 'pages', data: Buffer.from('secret\0') });
    close(fd);
  });

  t.test('memory files', async (t) => {
    const memory = call(SYS.memfd_create, Buffer.from('../name\0'), 2);
    writeSync(memory, 'abc');
    const seals = 0x1e;
    control(memory, 1033, seals);
    const { records } = dump(memory);
    t.match(records[0], { name: 'shm', meta: { origin: 'memfd', name: '../name', size: 3n, seals } });
    const again = restore(records).take(0);
    t.equal(control(again, 1034), seals);
    t.equal(readlinkSync(`/proc/self/fd/${again}`), '/memfd:../name (deleted)');
    t.throws(() => writeSync(again, 'x'), { code: 'EPERM' });
    t.equal(readFileSync(`/proc/self/fd/${again}`, 'utf8'), 'abc');
    const plain = call(SYS.memfd_create, Buffer.from('\0'), 0);
    const other = restore(dump(plain).records).take(0);
    t.equal(control(other, 1034), 1, 'what could not be sealed still can not');
    const huge = call(SYS.memfd_create, Buffer.from('huge\0'), 4);
    refuses(t, [huge], /huge pages/);
    close(memory, plain, huge);
  });

  t.test('open nothing for writing that was not', async (t) => {
    write('x');
    const fd = openSync(path, 'r');
    const { records } = dump(fd);
    const meta = records[0]!.meta as { flags: number };
    meta.flags |= O.trunc | O.creat;
    restore(records);
    t.equal(readFileSync(path, 'utf8'), 'x', 'an image can neither make nor empty a file');
    close(fd);
  });
});

t.test('directories', async (t) => {
  const path = join(folder, 'directory');
  mkdirSync(path);
  for (let index = 0; index < 50; index++) writeFileSync(join(path, `file-${index}`), '');
  const list = (fd: number) => {
    const buffer = Buffer.alloc(256);
    const length = call(217 /* getdents64 */, fd, buffer, buffer.length);
    return buffer.subarray(0, length).toString('latin1');
  };
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  list(fd);
  const { first, builder } = roundTrip(t, [fd]);
  const rest = list(fd);
  t.equal(list(builder.take(0)), rest, 'the listing goes on at the same name');
  close(fd);
  rmSync(path, { recursive: true });
  cannotRestart(t, first.records, /directory is needed and is not there/);
  writeFileSync(path, '');
  cannotRestart(t, first.records, /was a folder and is a regular file here/);
});

t.test('devices', async (t) => {
  const fds = ['null', 'zero', 'full', 'random', 'urandom'].map((name) => openSync(`/dev/${name}`, 'r'));
  fds.push(openSync('/dev/null', 'w'));
  const { builder } = roundTrip(t, fds);
  const buffer = Buffer.alloc(4, 1);
  t.equal(readSync(builder.take(0), buffer), 0);
  readSync(builder.take(1), buffer);
  t.same([...buffer], [0, 0, 0, 0]);
  close(...fds);
  const kmsg = openSync('/dev/kmsg', 'r');
  refuses(t, [kmsg], /device \(1:11\)/);
  close(kmsg);
  const fd = openSync('/dev/null', 'r');
  const { records } = dump(fd);
  (records[0]!.meta as { path: string }).path = '/dev/zero';
  cannotRestart(t, records, /should be device 1:3 and is device 1:5/);
  (records[0]!.meta as { rdev: bigint }).rdev = 0x10bn;
  cannotRestart(t, records, /not one that a restart may open/);
  close(fd);
});

/** A pseudo-terminal: master, slave, path of the slave. */
function openTerminal(): { master: number; slave: number; path: string } {
  const master = openSync('/dev/pts/ptmx', constants.O_RDWR | constants.O_NOCTTY);
  call(SYS.ioctl, master, 0x40045431 /* TIOCSPTLCK */, words32(0));
  const number = new DataView(ioctlRead(master, 0x80045430 /* TIOCGPTN */, 4).buffer).getInt32(0, true);
  const path = `/dev/pts/${number}`;
  return { master, slave: openSync(path, constants.O_RDWR | constants.O_NOCTTY), path };
}

t.test('terminals', async (t) => {
  const old = openTerminal();
  const fresh = openTerminal();
  const termios = ioctlRead(old.slave, 0x802c542a, 44);
  termios[12] = termios[12]! & ~0x0a; // ICANON, ECHO
  call(SYS.ioctl, old.slave, 0x402c542b, termios);
  call(SYS.ioctl, old.slave, 0x5414, new Uint8Array(new Uint16Array([33, 101, 0, 0]).buffer));
  const reader = openSync(old.path, constants.O_RDONLY | constants.O_NOCTTY);
  const { records, losses } = dump(old.slave, reader);
  t.same(losses, []);
  t.same(
    records.map(({ meta }) => (meta as { tty: number }).tty),
    [0, 0],
  );

  const builder = restore(records, { console: fresh.path });
  const [again, other] = [builder.take(0), builder.take(1)];
  t.equal(readlinkSync(`/proc/${builder.pid}/fd/${builder.descriptor(0)}`), fresh.path);
  t.same(ioctlRead(again, 0x802c542a, 44), termios, 'settings');
  const size = new DataView(ioctlRead(again, 0x5413, 8).buffer);
  t.same([size.getUint16(0, true), size.getUint16(2, true)], [33, 101]);
  t.equal(control(other, 3) & 3, 0, 'read only');
  t.same(builder.warnings, []);

  await t.test('become the controlling one, with a foreground group', async (t) => {
    const leader = new TestBuilder(['setsid', 'sleep', '1000']);
    builders.push(leader);
    const meta = records[0]!.meta as { session?: number; foreground?: number };
    leader.restore(
      [{ ...records[0]!, meta: { ...meta, session: leader.pid, foreground: leader.pid } as never }],
      {
        console: fresh.path,
      },
    );
    const stat = readFileSync(`/proc/${leader.pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
    t.equal(Number(stat[4]), Number(statSync(fresh.path).rdev), 'controlling terminal');
    t.equal(Number(stat[5]), leader.pid, 'foreground group');
    t.same(leader.warnings, []);
    const second = dumpDescriptors(leader.pid, leader.descriptors());
    t.match(second.records[0]!.meta, { session: leader.pid, foreground: leader.pid }, 'and is dumped so');
  });

  writeSync(old.master, 'typed');
  // The kernel carries it over in its own time.
  while (readable(old.slave) === 0) await sleep(1);
  t.match(dump(old.slave).losses, [/what was typed/]);
  cannotRestart(t, records, /this restart has none to give/);
  refuses(t, [fresh.master], /used by a process outside the session, or by none yet/);
  writeSync(old.slave, 'shown');
  refuses(t, [old.master, old.slave], /output of .* has not been read/);
  close(old.master, old.slave, reader, fresh.master, fresh.slave);
});

t.test('eventfd', async (t) => {
  const counter = call(SYS.eventfd2, 5, O.nonblock);
  const semaphore = call(SYS.eventfd2, 3, 1);
  const { builder } = roundTrip(t, [counter, semaphore]);
  const word = Buffer.alloc(8);
  readSync(builder.take(0), word);
  t.equal(word.readBigUInt64LE(), 5n);
  readSync(builder.take(1), word);
  t.equal(word.readBigUInt64LE(), 1n);
  close(counter, semaphore);
});

t.test('pipes', async (t) => {
  const pair = new Int32Array(2);
  call(SYS.pipe2, new Uint8Array(pair.buffer), O.nonblock | O.cloexec);
  const [read, write] = [pair[0]!, pair[1]!];
  writeSync(write, 'in the pipe');
  const { builder } = roundTrip(t, [read, write]);
  const buffer = Buffer.alloc(100);
  t.equal(buffer.toString('utf8', 0, readSync(builder.take(0), buffer)), 'in the pipe');
  t.equal(
    buffer.toString('utf8', 0, readSync(read, buffer)),
    'in the pipe',
    'and it is still in the old one',
  );
  close(read, write);
});

t.test('signalfd', async (t) => {
  const fd = call(SYS.signalfd4, -1, words64(0x4000000000000203n), 8, O.nonblock);
  roundTrip(t, [fd]);
  close(fd);
});

const setTimer = (fd: number, flags: number, interval: bigint, value: bigint) =>
  call(
    SYS.timerfd_settime,
    fd,
    flags,
    words64(interval / second, interval % second, value / second, value % second),
    null,
  );
const readTimer = (fd: number) => {
  const words = new BigUint64Array(4);
  call(SYS.timerfd_gettime, fd, new Uint8Array(words.buffer));
  return { interval: words[0]! * second + words[1]!, value: words[2]! * second + words[3]! };
};
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

t.test('timerfd', async (t) => {
  const make = (clock: number) => call(SYS.timerfd_create, clock, O.nonblock);
  const word = Buffer.alloc(8);
  const unread = (fd: number) => {
    readSync(fd, word);
    return word.readBigUInt64LE();
  };

  t.test('rest of the time, and period', async (t) => {
    const [relative, disarmed, boot] = [make(1), make(0), make(7)];
    setTimer(relative, 0, 5n * second, 100n * second);
    setTimer(boot, 1, 0n, 1_000_000n * second);
    const { records } = dump(relative, disarmed, boot);
    const { valueNs: rest } = records[0]!.meta as { valueNs: bigint };
    await sleep(50);
    const start = process.hrtime.bigint();
    const builder = restore(records);
    const [again, empty, long] = [0, 1, 2].map((id) => readTimer(builder.take(id)));
    const least = rest - (process.hrtime.bigint() - start);
    t.equal(again!.interval, 5n * second);
    t.ok(
      again!.value >= least && again!.value <= rest,
      `the time between does not count: ${again!.value} of ${rest}, at least ${least}`,
    );
    t.same(empty, { interval: 0n, value: 0n });
    t.equal(long!.interval, 0n);
    t.ok(long!.value > 900_000n * second);
    close(relative, disarmed, boot);
  });

  t.test('absolute on the wall clock keeps its moment', async (t) => {
    const fd = make(0);
    const moment = BigInt(Date.now()) * 1_000_000n + 1000n * second;
    setTimer(fd, 1 | 2, 7n * second, moment);
    const { records } = dump(fd);
    const { expiryNs } = records[0]!.meta as { expiryNs: bigint };
    const near = (found: bigint) => found - moment < second && moment - found < second;
    t.ok(near(expiryNs), `the moment was recorded: ${expiryNs - moment} ns off`);
    // Longer than `near`: what keeps the rest of the time instead of the moment is seen.
    await sleep(1500);
    const builder = restore(records);
    const now = BigInt(Date.now()) * 1_000_000n;
    const { value } = readTimer(builder.take(0));
    t.ok(near(now + value), `off by ${now + value - moment} ns`);
    const text = readFileSync(`/proc/${builder.pid}/fdinfo/${builder.descriptor(0)}`, 'utf8');
    t.match(text, /settime flags: 03/);
    close(fd);
  });

  t.test('expirations nobody has read', async (t) => {
    const [once, periodic] = [make(1), make(1)];
    setTimer(once, 0, 0n, 1n);
    setTimer(periodic, 0, 1000n * second, 1n);
    await sleep(10);
    const { records } = dump(once, periodic);
    t.same(
      records.map(({ meta }) => (meta as { ticks: bigint }).ticks),
      [1n, 1n],
    );
    const builder = restore(records);
    t.equal(unread(builder.take(0)), 1n);
    const again = builder.take(1);
    t.ok(readTimer(again).value > 900n * second);
    t.equal(unread(again), 1n);
    t.equal(unread(once), 1n, 'and the old one still has it');
    close(once, periodic);
  });

  t.test('many expirations of a fast timer', async (t) => {
    const fd = make(1);
    setTimer(fd, 0, 1_000_000n, 1n);
    await sleep(30);
    const { records } = dump(fd);
    const { ticks, intervalNs } = records[0]!.meta as { ticks: bigint; intervalNs: bigint };
    t.ok(ticks >= 25n, `${ticks}`);
    t.equal(intervalNs, 1_000_000n);
    const builder = restore(records);
    t.ok(unread(builder.take(0)) >= ticks);
    close(fd);
  });
});

t.test('inotify', async (t) => {
  const path = join(folder, 'watched');
  const file = join(path, 'file');
  mkdirSync(path);
  writeFileSync(file, '');
  const fd = call(SYS.inotify_init1, O.nonblock);
  const watch = (name: string, mask: number) =>
    call(SYS.inotify_add_watch, fd, Buffer.from(`${name}\0`), mask);
  watch('/', 0x100);
  watch(path, 0x3c0);
  call(255, fd, 1);
  const cwd = watch(file, 0x2);
  t.equal(cwd, 3);
  const event = Buffer.alloc(4096);
  readSync(fd, event); // the end of the first watch
  // INOTIFY_IOC_SETNEXTWD: a number that can't be reached by counting.
  const far = 1_500_000_000;
  call(SYS.ioctl, fd, 0x40044900, far);
  t.equal(watch(folder, 0x100), far);
  const { first, builder } = roundTrip(t, [fd]);
  t.match(first.records[0]!.meta, {
    watches: [
      { wd: 2, path },
      { wd: 3, path: file },
      { wd: far, path: folder },
    ],
  });
  const again = builder.take(0);
  writeFileSync(join(path, 'new'), '');
  const length = readSync(again, event);
  t.ok(length > 0);
  t.equal(event.readInt32LE(0), 2, 'the watch has its number');
  t.match(dump(fd).losses, [/nobody had read/]);
  rmSync(path, { recursive: true });
  cannotRestart(t, first.records, /can't be watched here \(ENOENT\)/);
  close(fd);
});

function socketPair(type: number): [number, number] {
  const pair = new Int32Array(2);
  call(SYS.socketpair, 1, type | O.nonblock | O.cloexec, 0, new Uint8Array(pair.buffer));
  return [pair[0]!, pair[1]!];
}
const [stream, dgram, seqpacket] = [1, 2, 5] as const;
const send = (fd: number, data: string | Uint8Array) => {
  const bytes = typeof data === 'string' ? Buffer.from(data) : data;
  return call(SYS.sendto, fd, bytes, bytes.length, 0x4040, null, 0);
};
const receive = (fd: number, most = 1 << 20) => {
  const got = native().receiveMessage(fd, most, 0x40);
  return got && Buffer.from(got.data).toString('latin1');
};
const sockaddr = (name: string) =>
  Buffer.concat([Buffer.from([1, 0]), Buffer.from(name), Buffer.from(name.startsWith('\0') ? '' : '\0')]);
const bind = (fd: number, name: string) => call(SYS.bind, fd, sockaddr(name), sockaddr(name).length);
const connect = (fd: number, name: string) => call(SYS.connect, fd, sockaddr(name), sockaddr(name).length);
/** sendmsg(2) with a descriptor. */
function sendRights(fd: number, passed: number): void {
  // struct msghdr holds addresses, which only native code knows of its own memory: python does it.
  const script =
    'import socket,sys,array; s=socket.socket(fileno=0); s.sendmsg([b"x"],[(socket.SOL_SOCKET,socket.SCM_RIGHTS,array.array("i",[3]))])';
  const { status } = spawnSync('python3', ['-c', script], { stdio: [fd, 'ignore', 'inherit', passed] });
  if (status !== 0) throw new Error('python3 could not send a descriptor');
}
const newSocket = (type: number) => call(SYS.socket, 1, type | O.nonblock | O.cloexec, 0);
const nameOf = (fd: number, number: number = SYS.getsockname) => {
  const room = Buffer.alloc(110);
  const length = words32(110);
  call(number, fd, room, length);
  return room.toString('latin1', 2, new DataView(length.buffer).getInt32(0, true)).replace(/\0$/, '');
};
const accept = (fd: number) => call(288 /* accept4 */, fd, null, null, O.nonblock | O.cloexec);
const getpeername = 52;

t.test('unix sockets', async (t) => {
  t.test('stream pairs with data both ways', async (t) => {
    const [a, b] = socketPair(stream);
    const big = Buffer.alloc(150_000, 'abcdefg');
    send(a, 'to b, ');
    send(a, 'again');
    t.equal(send(b, big), big.length);
    const { builder } = roundTrip(t, [a, b]);
    t.equal(receive(builder.take(1)), 'to b, again');
    const again = builder.take(0);
    t.equal(receive(again), big.toString('latin1'));
    t.equal(receive(a), big.toString('latin1'), 'the old one still has it');
    send(again, 'on');
    t.equal(receive(builder.take(1)), 'on', 'and they are connected');
    close(a, b);
  });

  t.test('no open files wanted (SO_PASSRIGHTS)', async (t) => {
    const passRights = 83;
    const [a, b] = socketPair(dgram);
    try {
      setSocketOption(a, passRights, 0);
    } catch {
      return t.comment('this kernel has no such option');
    }
    send(b, 'bytes');
    const { builder } = roundTrip(t, [a, b]);
    t.equal(socketOption(builder.take(0), passRights), 0);
    t.equal(socketOption(builder.take(1), passRights), 1);
    close(a, b);
  });

  t.test('packet filters are refused', async (t) => {
    const attachFilter = 26;
    const [a, b] = socketPair(dgram);
    // struct sock_filter: return all of it; struct sock_fprog: how many, where.
    const code = words32(6, -1);
    const memory = call(SYS.mmap, 0, 4096, 3, 0x22, -1, 0);
    native().writeMemory(process.pid, BigInt(memory), code);
    setSocketOption(a, attachFilter, words64(1n, BigInt(memory)));
    refuses(t, [a, b], /packet filter/);
    close(a, b);
  });

  t.test('messages keep their boundaries', async (t) => {
    for (const type of [dgram, seqpacket]) {
      const [a, b] = socketPair(type);
      const big = 'x'.repeat(100_000);
      for (const message of ['one', '', 'three', big]) send(a, message);
      const { builder } = roundTrip(t, [a, b]);
      for (const message of ['one', '', 'three', big]) t.equal(receive(builder.take(1)), message);
      t.equal(receive(builder.take(1)), undefined);
      t.equal(receive(b), 'one', 'the old one still has them');
      close(a, b);
    }
  });

  t.test('more data than the default buffer holds', async (t) => {
    const [a, b] = socketPair(stream);
    setSocketOption(a, 32, 2 << 20);
    let sent = 0;
    const piece = Buffer.alloc(1 << 16, 'q');
    try {
      for (;;) sent += send(a, piece);
    } catch {
      // full
    }
    t.ok(sent > 1 << 20, `${sent} bytes`);
    const { builder } = roundTrip(t, [a, b]);
    t.equal(readable(builder.take(1)), sent);
    close(a, b);
  });

  t.test('closed ways', async (t) => {
    const [a, b] = socketPair(stream);
    send(a, 'last words');
    call(SYS.shutdown, a, 1);
    const { builder } = roundTrip(t, [a, b]);
    t.equal(receive(builder.take(1)), 'last words');
    t.equal(receive(builder.take(1)), '', 'then end of file');
    send(builder.take(1), 'back');
    t.equal(receive(builder.take(0)), 'back');
    close(a, b);
  });

  t.test('partners that closed', async (t) => {
    const [a, b] = socketPair(stream);
    send(a, 'left behind');
    close(a);
    const first = roundTrip(t, [b]);
    t.equal(receive(first.builder.take(0)), 'left behind');
    t.equal(receive(first.builder.take(0)), '');

    const [c, d] = socketPair(stream);
    send(d, 'never read');
    close(c);
    t.ok(pollNow(d, 0) & 8);
    const again = restore(dump(d).records).take(0);
    t.equal(pollNow(d, 0) & 8, 8, 'looking did not take the error away');
    t.throws(() => receive(again), { code: 'ECONNRESET' });
    t.equal(receive(again), '');

    const [e, f] = socketPair(dgram);
    send(e, 'datagram');
    close(e);
    const last = restore(dump(f).records).take(0);
    t.equal(receive(last), 'datagram');
    t.throws(() => send(last, 'x'), { code: 'ECONNREFUSED' });
    close(b, d, f);
  });

  t.test('options', async (t) => {
    const [a, b] = socketPair(dgram);
    setSocketOption(a, 7, 50_000);
    setSocketOption(b, 8, 60_000);
    setSocketOption(a, 16, 1);
    setSocketOption(a, 20, words64(3n, 500_000n));
    setSocketOption(b, 42, 0);
    const { builder, first } = roundTrip(t, [a, b]);
    t.equal(socketOption(builder.take(0), 7), 100_000);
    t.match(first.records[0]!.meta, { receiveTimeoutUs: 3_500_000n, passCredentials: true });
    t.equal(socketOption(b, 42), 0, 'SO_PEEK_OFF of the session is as it was');
    close(a, b);
  });

  t.test('SO_PEEK_OFF does not hide data, and stays', async (t) => {
    const [a, b] = socketPair(stream);
    setSocketOption(b, 42, 3);
    send(a, '0123456789');
    const { records } = dump(a, b);
    t.equal(Buffer.from(records.find(({ name }) => name === 'content')!.data!).toString(), '0123456789');
    t.equal(socketOption(b, 42), 3);
    close(a, b);
  });

  t.test('listening ones come back at their names', async (t) => {
    const path = join(folder, 'listener');
    const fd = newSocket(stream);
    bind(fd, path);
    chmodSync(path, 0o640);
    call(SYS.listen, fd, 7);
    const abstract = newSocket(seqpacket);
    bind(abstract, '\0pod-objects-test');
    call(SYS.listen, abstract, 3);
    const plain = newSocket(dgram);
    const first = dump(fd, abstract, plain);
    cannotRestart(t, first.records, /listener, which something else has here/);
    close(fd, abstract);

    const builder = restore(first.records);
    t.equal(statSync(path).mode & 0o7777, 0o640);
    t.equal(nameOf(builder.take(0)), path);
    t.same(builder.warnings, []);
    t.same(
      dumpDescriptors(builder.pid, builder.descriptors()).records.map(comparable),
      first.records.map(comparable),
    );
    const client = newSocket(stream);
    connect(client, path);
    send(client, 'hello');
    refusesIn(t, builder, /outside the session waits for its connection/);
    const accepted = accept(builder.take(0));
    t.equal(receive(accepted), 'hello');
    close(plain, client, accepted);
    await builders.pop()!.end();

    writeFileSync(`${path}.other`, '');
    renameSync(`${path}.other`, path);
    cannotRestart(t, [first.records[0]!], /something else has here/);
    t.ok(statSync(path).isFile(), 'a file that is no socket stays');
    unlinkSync(path);
  });

  t.test('connections through a listener keep both names', async (t) => {
    const results: { records: OutRecord[]; client: number; server: number; listener: number }[] = [];
    for (const name of [join(folder, 'server'), '\0pod-objects-server']) {
      const listener = newSocket(stream);
      bind(listener, name);
      call(SYS.listen, listener, 5);
      const client = newSocket(stream);
      connect(client, name);
      const server = accept(listener);
      send(client, 'request');
      send(server, 'answer');
      for (const fds of [
        [client, server, listener],
        [listener, server, client],
      ]) {
        const { records } = dump(...fds);
        const at = (fd: number) => fds.indexOf(fd);
        results.push({ records, client: at(client), server: at(server), listener: at(listener) });
      }
      close(listener, client, server);
      for (const { records, client, server, listener } of results.splice(0)) {
        const builder = restore(records);
        t.same(builder.warnings, []);
        t.equal(nameOf(builder.take(server)), name);
        t.equal(nameOf(builder.take(client), getpeername), name);
        t.equal(nameOf(builder.take(client)), '');
        t.equal(receive(builder.take(server)), 'request');
        t.equal(receive(builder.take(client)), 'answer');
        const another = newSocket(stream);
        connect(another, name);
        t.equal(pollNow(builder.take(listener), 1), 1, 'and the listener listens');
        close(another);
        await builders.pop()!.end();
      }
    }
  });

  t.test('datagrams to a bound socket, from a named one and from nobody', async (t) => {
    const path = join(folder, 'log');
    const server = newSocket(dgram);
    bind(server, path);
    const named = newSocket(dgram);
    bind(named, '\0pod-objects-sender');
    connect(named, path);
    const nameless = newSocket(dgram);
    connect(nameless, path);
    send(named, 'from a name');
    send(nameless, 'from nobody');
    const { records } = dump(server, named, nameless);
    close(server, named, nameless);
    const builder = restore(records);
    t.same(builder.warnings, []);
    const again = builder.take(0);
    const message = native().receiveMessage(again, 100, 0x40)!;
    t.equal(Buffer.from(message.data).toString(), 'from a name');
    t.equal(Buffer.from(message.address).toString('latin1', 2), '\0pod-objects-sender');
    t.equal(receive(again), 'from nobody');
    send(builder.take(2), 'still connected');
    t.equal(receive(again), 'still connected');
  });

  t.test('senders that show themselves (SO_PASSCRED)', async (t) => {
    const [a, b] = socketPair(stream);
    setSocketOption(b, 16, 1);
    send(a, 'signed');
    const { records } = dump(a, b);
    t.match(records.find(({ name }) => name === 'content')!.meta, {
      credentials: [process.pid, process.getuid!(), process.getgid!()],
    });
    const again = restore(records).take(1);
    const got = native().receiveMessage(again, 100, 0x40)!;
    t.equal(Buffer.from(got.data).toString(), 'signed');
    const control = new DataView(got.control.buffer, got.control.byteOffset);
    t.equal(control.getInt32(12, true), 2);
    t.equal(control.getInt32(16, true), process.pid, 'the pid of the sender, not of the builder');
    close(a, b);
  });

  t.test('descriptors on their way, between the bytes', async (t) => {
    const [a, b] = socketPair(stream);
    const file = openSync('/dev/null', 'r');
    send(a, 'before');
    sendRights(a, file);
    send(a, 'behind');
    close(file);
    const before = readdirSync('/proc/self/fd').length;
    const { records } = dump(a, b);
    t.equal(readdirSync('/proc/self/fd').length, before, 'nothing of it stays with us');
    const contents = records.filter(({ name }) => name === 'content');
    t.same(
      contents.map(({ data }) => Buffer.from(data!).toString()),
      ['before', 'x', 'behind'],
    );
    t.same(
      contents.map(({ meta }) => (meta as { rights?: number[] }).rights?.length ?? 0),
      [0, 1, 0],
    );
    const builder = restore(records);
    const again = dumpDescriptors(builder.pid, [builder.descriptor(0), builder.descriptor(1)]);
    t.same(again.records.map(comparable), records.map(comparable), 'a second dump says the same');
    close(a, b);
  });

  t.test('messages without a byte are never lost', async (t) => {
    const [a, b] = socketPair(seqpacket);
    send(a, '');
    send(a, 'x');
    for (let look = 0; look < 3; look++) {
      const { records } = dump(a, b);
      t.same(
        records.flatMap(({ data }) => (data ? [data.length] : [])),
        [0, 1],
        'the first in the queue shows itself to every look',
      );
    }
    send(a, '');
    t.equal(dump(a, b).records.length, 5);
    refuses(t, [a, b], /without a byte/);
    receive(b);
    refuses(t, [a, b], /without a byte/);
    receive(b);
    t.equal(dump(a, b).records.length, 3);
    close(a, b);

    const named = newSocket(dgram);
    bind(named, '\0pod-objects-empty');
    const sender = newSocket(dgram);
    connect(sender, '\0pod-objects-empty');
    send(sender, 'x');
    send(sender, '');
    close(sender);
    t.equal(dump(named).records.length, 3);
    refuses(t, [named], /without a byte/);
    receive(named);
    receive(named);
    dump(named);
    dump(named);
    close(named);
  });

  t.test('refused by name', async (t) => {
    const [a, b] = socketPair(stream);
    refuses(t, [a], /its other end is held by a process outside/);
    close(a, b);

    const path = join(folder, 'waiting');
    const listener = newSocket(stream);
    bind(listener, path);
    call(SYS.listen, listener, 5);
    const client = newSocket(stream);
    connect(client, path);
    refuses(t, [listener], /a process outside the session waits/);
    refuses(t, [client], /accepted by a process outside/);
    send(client, 'early');
    refuses(t, [listener, client], /something was sent/);
    close(listener, client);

    const [c, d] = socketPair(stream);
    call(SYS.sendto, c, Buffer.from('!'), 1, 1, null, 0);
    refuses(t, [c, d], /urgent/);
    close(c, d);
  });
});

t.test('epoll', async (t) => {
  const IN = 1;
  const ET = 0x80000000;
  const ONESHOT = 0x40000000;
  const event = (events: number, data: bigint) => {
    const bytes = Buffer.alloc(12);
    bytes.writeUInt32LE(events >>> 0, 0);
    bytes.writeBigUInt64LE(data, 4);
    return bytes;
  };
  const add = (set: number, fd: number, events: number, data: bigint) =>
    call(SYS.epoll_ctl, set, 1, fd, event(events, data));
  const wait = (set: number) => {
    const room = Buffer.alloc(12 * 16);
    const count = call(SYS.epoll_wait, set, room, 16, 0);
    return Array.from({ length: count }, (_, at) => room.readBigUInt64LE(at * 12 + 4)).sort();
  };
  const events = () => call(SYS.eventfd2, 0, O.nonblock | O.cloexec);
  const raise = (fd: number) => writeSync(fd, words64(1n));

  t.test('entries with modes and data', async (t) => {
    const set = call(SYS.epoll_create1, O.cloexec);
    const [a, b, c] = [events(), events(), events()];
    add(set, a, IN, 0xdeadbeefcafef00dn);
    add(set, b, IN | ET, 2n);
    add(set, c, IN | ONESHOT, 3n);
    const { builder } = roundTrip(t, [set, a, b, c]);
    t.same(wait(builder.take(0)), []);
    raise(builder.take(1));
    t.same(wait(builder.take(0)), [0xdeadbeefcafef00dn]);
    close(set, a, b, c);
  });

  t.test('disarmed entries stay silent', async (t) => {
    const set = call(SYS.epoll_create1, O.cloexec);
    const a = events();
    const pair = new Int32Array(2);
    call(SYS.pipe2, new Uint8Array(pair.buffer), O.nonblock | O.cloexec);
    const [read, write] = [pair[0]!, pair[1]!];
    add(set, a, IN | ONESHOT, 7n);
    add(set, read, IN | ONESHOT, 8n);
    raise(a);
    writeSync(write, 'x');
    t.same(wait(set), [7n, 8n]);
    const { builder } = roundTrip(t, [set, a, read, write]);
    t.same(wait(builder.take(0)), []);
    raise(builder.take(1));
    t.same(wait(builder.take(0)), [], 'still disarmed');
    close(set, a, read, write);
  });

  t.test('numbers that were closed or given to other files', async (t) => {
    const set = call(SYS.epoll_create1, O.cloexec);
    const first = events();
    const kept = call(SYS.dup, first);
    const number = first;
    add(set, first, IN, 1n);
    close(first);
    const second = events();
    t.equal(second, number, 'the number is used again');
    add(set, second, IN, 2n);
    const { first: dumped, builder } = roundTrip(t, [set, kept, second]);
    t.match(dumped.records.at(-1)!.meta, { entries: [{ fd: number }, { fd: number }] });
    raise(builder.take(1));
    t.same(wait(builder.take(0)), [1n]);
    raise(builder.take(2));
    t.same(wait(builder.take(0)), [1n, 2n]);
    close(kept);
    close(set, second);
  });

  t.test('sets in sets', async (t) => {
    const outer = call(SYS.epoll_create1, O.cloexec);
    const inner = call(SYS.epoll_create1, O.cloexec);
    const a = events();
    add(outer, inner, IN, 1n);
    add(inner, a, IN, 2n);
    const { builder } = roundTrip(t, [outer, inner, a]);
    raise(builder.take(2));
    t.same(wait(builder.take(0)), [1n]);
    t.same(wait(builder.take(1)), [2n]);
    close(outer, inner, a);
  });

  t.test('numbers that the builder uses itself', async (t) => {
    const set = call(SYS.epoll_create1, O.cloexec);
    const files = Array.from({ length: 20 }, events);
    for (const [index, fd] of files.entries()) add(set, fd, IN, BigInt(index));
    // Backwards, so that numbers and descriptors of the builder cross.
    const { builder } = roundTrip(t, [...files.reverse(), set]);
    raise(builder.take(0));
    t.same(wait(builder.take(20)), [19n]);
    close(set, ...files);
  });

  t.test('a target that nobody has', async (t) => {
    const set = call(SYS.epoll_create1, O.cloexec);
    const a = events();
    add(set, a, IN, 1n);
    refuses(t, [set], /still watches a file that was descriptor/);
    close(set, a);
  });
});

t.test('everything else is refused by name', async (t) => {
  const cases: [number, RegExp][] = [
    [call(425 /* io_uring_setup */, 1, new Uint8Array(120)), /io_uring/],
    [call(SYS.pidfd_open, process.ppid, 0), /of process \d+, which is not of the session/],
    [call(323 /* userfaultfd */, 1), /userfaultfd/],
    [call(SYS.socket, 2, 3, 6), /a raw socket of IP protocol 6/],
    [call(SYS.socket, 16, 3, 12 /* NETLINK_NETFILTER */), /netlink/],
    [call(300 /* fanotify_init */, 0, 0), /fanotify/],
  ];
  for (const [fd, message] of cases) {
    refuses(t, [fd], message);
    close(fd);
  }
});
