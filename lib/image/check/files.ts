/** Open-file objects, their content, and the tables that name them. */
import { kinds } from '../../stream/kind.ts';
import { bounds, type OpenFileKind, openFileKinds } from '../model.ts';
import type { Records } from '../record.ts';
import { beyond, checkPath, damaged, IdSpace } from './fault.ts';

type OpenFile = { [Kind in OpenFileKind]: { kind: Kind; record: Records[Kind] } }[OpenFileKind];

/** What CONTENT may still bring: bytes for a pipe or socket, the end of file for an unlinked file. */
interface Container {
  limit: bigint;
  used: bigint;
  /** Content has offsets. */
  file: boolean;
  /** A connection whose unsent content goes along. */
  kept?: boolean;
}

type OriginOf = (id: number) => Records['shm']['origin'] | undefined;

const kindNumbers: readonly number[] = openFileKinds.map((kind) => kinds[kind]);

/** Whether a frame's kind is in the open-file id space. */
export function isOpenFile(kind: number): boolean {
  return kindNumbers.includes(kind);
}

export class FilesCheck {
  readonly #ids = new IdSpace('open file', bounds.openFiles);
  readonly #tables = new IdSpace('descriptor table', bounds.tables);
  readonly #fs = new IdSpace('filesystem context', bounds.tables);
  readonly #handlers = new IdSpace('handler table', bounds.tables);
  readonly #pipes = new Set<number>();
  /** Terminal numbers of the masters, and the numbers of their slaves' names. */
  readonly #ptys = new Set<number>();
  readonly #ptyIndexes = new Set<number>();
  /** They are made when all tasks are there, too late to be sent anywhere. */
  readonly #pidfds = new Set<number>();
  readonly #containers = new Map<number, Container>();
  /** Unix streams and TCP connections that wait for their other end: id of the peer → id of the socket that names it. */
  readonly #peers = new Map<number, number>();
  /** What may be named before it comes: by datagram sockets, queues, listeners and those that wait for them. */
  readonly #later = new Map<number, string>();
  /** Descriptor tables and filesystem contexts: the process whose thread has them for itself, 0 for processes. */
  readonly #owners = new Map<string, number>();
  #table: { id: number; last: number } | undefined;
  #lockCount = 0;
  #ownNetwork = false;

  pod({ net }: Records['pod']): void {
    this.#ownNetwork = net === 'own';
  }

  /** `originOf` tells of a shared memory object how it was made, if it was defined. */
  object(file: OpenFile, originOf: OriginOf): void {
    const { id } = file.record;
    const name = `${file.kind} ${id}`;
    // Before it is defined: an object that names itself names what does not exist.
    switch (file.kind) {
      case 'regular':
        this.#regular(name, file.record, originOf);
        break;
      case 'directory':
      case 'device':
        checkPath(file.record.path, name);
        break;
      case 'terminal':
        if (file.record.path !== undefined) checkPath(file.record.path, name);
        if (file.record.role === 'inside' && !this.#ptys.has(file.record.tty))
          throw damaged(`${name} is the slave of a pseudo-terminal that is not defined before it`);
        break;
      case 'pty':
        this.#pty(name, file.record);
        break;
      case 'pipe':
        if (file.record.path !== undefined) checkPath(file.record.path, name);
        this.#pipes.add(id);
        this.#containers.set(id, { limit: BigInt(file.record.capacity), used: 0n, file: false });
        break;
      case 'pipe-end':
        if (!this.#pipes.has(file.record.pipe))
          throw damaged(`${name} names pipe ${file.record.pipe}, which is not defined before it`);
        break;
      case 'epoll':
        for (const entry of file.record.entries) this.#ids.require(entry.file, name);
        break;
      case 'inotify':
        for (const watch of file.record.watches) checkPath(watch.path, name);
        break;
      case 'pidfd':
        if (this.#later.has(id)) throw damaged(`${this.#later.get(id)} has ${name} in it`);
        this.#pidfds.add(id);
        break;
      case 'unix-socket':
        this.#socket(name, file.record);
        break;
      case 'inet-socket':
        this.#inetSocket(name, file.record);
        break;
    }
    this.#ids.define(id);
  }

  content(record: Records['content'], length: number): void {
    const container = this.#containers.get(record.file);
    if (!container)
      throw damaged(`content names open file ${record.file}, which cannot hold any or comes later`);
    if (record.sent && !container.kept)
      throw damaged(`open file ${record.file} has sent something, and is no connection to outside`);
    const behind = (container.file ? (record.offset ?? 0n) : container.used) + BigInt(length);
    if (behind > container.limit)
      throw damaged(`open file ${record.file} has ${behind} bytes of content, more than it holds`);
    checkAddress(record.source, undefined, `content of open file ${record.file}: source`);
    // The socket that a message came from may come later.
    if (record.sender !== undefined && !this.#ids.has(record.sender))
      this.#later.set(record.sender, `content of open file ${record.file}`);
    if (!container.file) container.used = behind;
    for (const id of record.rights ?? []) {
      if (this.#pidfds.has(id)) throw damaged(`content of open file ${record.file} has pidfd ${id} in it`);
      this.#later.set(id, `content of open file ${record.file}`);
    }
  }

  table(record: Records['fd-table']): void {
    // Several frames in a row continue one table.
    if (this.#table?.id !== record.id) {
      this.#tables.define(record.id);
      this.#table = { id: record.id, last: -1 };
    }
    for (const { fd, file } of record.entries) {
      if (fd <= this.#table.last)
        throw damaged(`descriptor table ${record.id}: descriptor ${fd} is out of order`);
      if (fd > bounds.descriptor) throw beyond(`descriptor ${fd}`, bounds.descriptor);
      this.#ids.require(file, `descriptor ${fd} of table ${record.id}`);
      this.#table.last = fd;
    }
  }

  locks(record: Records['file-locks']): void {
    const name = `locks on open file ${record.file}`;
    this.#ids.require(record.file, name);
    this.#lockCount += record.locks.length;
    if (this.#lockCount > bounds.locks) throw beyond(`${this.#lockCount} file locks`, bounds.locks);
    for (const { kind, table, start = 0n, end } of record.locks) {
      if (start >= 1n << 63n || (end ?? start) < start || (end ?? 0n) >= 1n << 63n)
        throw damaged(`${name}: one is from ${start} to ${end ?? 'the end'}`);
      if (kind !== 'posix') continue;
      if (table === undefined) throw damaged(`${name}: one belongs to no process`);
      this.#tables.require(table, name);
    }
  }

  fs(record: Records['fs']): void {
    const name = `filesystem context ${record.id}`;
    checkPath(record.cwd, `${name}: working directory`);
    checkPath(record.root, `${name}: root`);
    this.#fs.define(record.id);
  }

  handlers(record: Records['handlers']): void {
    const seen = new Set<number>();
    for (const { signal } of record.actions) {
      if (signal === 0 || seen.has(signal))
        throw damaged(`handler table ${record.id}: signal ${signal} is impossible or comes twice`);
      seen.add(signal);
    }
    this.#handlers.define(record.id);
  }

  /** A process's first thread has what the process has; what others have of their own, no process has. */
  thread({ tid, pid, files, fs }: Records['thread']): void {
    const name = `thread ${tid}`;
    if (tid === pid && (files !== undefined || fs !== undefined))
      throw damaged(`${name} is the first of its process and has descriptors or a directory of its own`);
    if (files !== undefined) this.#threadOwns('descriptor table', this.#tables, files, pid, name);
    if (fs !== undefined) this.#threadOwns('filesystem context', this.#fs, fs, pid, name);
  }

  #threadOwns(what: string, space: IdSpace, id: number, pid: number, name: string): void {
    space.require(id, name);
    const key = `${what} ${id}`;
    const owner = this.#owners.get(key) ?? pid;
    if (owner !== pid) throw damaged(`${name} has ${key}, which belongs to ${owner || 'a process'}`);
    this.#owners.set(key, pid);
  }

  #processOwns(what: string, id: number, name: string): void {
    const key = `${what} ${id}`;
    if (this.#owners.get(key)) throw damaged(`${name} has ${key}, which is a thread's`);
    this.#owners.set(key, 0);
  }

  process(record: Records['process']): void {
    const name = `process ${record.pid}`;
    this.#tables.require(record.files, name);
    this.#fs.require(record.fs, name);
    this.#handlers.require(record.handlers, name);
    this.#processOwns('descriptor table', record.files, name);
    this.#processOwns('filesystem context', record.fs, name);
  }

  /** All objects came. `carriers` are the ids that areas named before. */
  end(carriers: Iterable<number>): void {
    for (const id of carriers) this.#ids.require(id, 'an area');
    for (const [peer, id] of this.#peers) throw damaged(`socket ${id} is connected to ${peer}, which is not`);
    for (const [id, name] of this.#later) this.#ids.require(id, name);
  }

  #regular(name: string, record: Records['regular'], originOf: OriginOf): void {
    checkPath(record.path, name);
    for (const origin of ['memfd', 'unlinked'] as const) {
      const id = record[origin];
      if (id === undefined) continue;
      const found = originOf(id);
      if (found === undefined)
        throw damaged(`${name} names shared memory ${id}, which is not defined before it`);
      if (found !== origin)
        throw damaged(`${name} names shared memory ${id} as ${origin}, which is ${found}`);
    }
    if (record.memfd !== undefined && record.unlinked !== undefined)
      throw damaged(`${name} is both a memfd and an unlinked file`);
    if (record.memfd !== undefined || record.unlinked !== undefined) return;
    if (!record.deleted) return;
    const size = record.size ?? 0n;
    if (size > bounds.objectSize) throw beyond(`an unlinked file of ${size} bytes`, bounds.objectSize);
    this.#containers.set(record.id, { limit: size, used: 0n, file: true });
  }

  #pty(name: string, { tty, index }: Records['pty']): void {
    if (index >= bounds.ptys) throw beyond(`/dev/pts/${index}`, bounds.ptys - 1);
    if (this.#ptys.has(tty) || this.#ptyIndexes.has(index))
      throw damaged(`${name} is a terminal that another master has`);
    this.#ptys.add(tty);
    this.#ptyIndexes.add(index);
  }

  #socket(name: string, record: Records['unix-socket']): void {
    const { id, peer, folder } = record;
    this.#containers.set(id, { limit: BigInt(bounds.socketQueue), used: 0n, file: false });
    if (folder !== undefined) checkPath(folder, name);
    // A socket's name is what the program said, '..' and all: it is looked up in the pod's root.
    for (const client of record.waiting ?? []) if (client >= 0) this.#later.set(client, name);
    if (record.awaits !== undefined) this.#later.set(record.awaits, name);
    if (peer === undefined) return;
    if (peer === id) throw damaged(`${name} is connected to itself`);
    if (record.type === 'dgram' && record.state !== 'pair') {
      this.#later.set(peer, name);
      return;
    }
    this.#pair(name, id, peer);
  }

  /** Two ends name each other. */
  #pair(name: string, id: number, peer: number): void {
    const waiting = this.#peers.get(id);
    if (waiting === peer) this.#peers.delete(id);
    else if (waiting !== undefined || this.#ids.has(peer) || this.#peers.has(peer))
      throw damaged(`${name} is connected to ${peer}, which is connected to another`);
    else this.#peers.set(peer, id);
  }

  #inetSocket(name: string, record: Records['inet-socket']): void {
    const { id, peer, type, state } = record;
    if (type === 'udp' && state !== 'unconnected' && state !== 'connected')
      throw damaged(`${name} is a UDP socket that is ${state}`);
    for (const [what, address] of Object.entries({ own: record.address, peer: record.peerAddress }))
      checkAddress(address, record.family, `${name}: ${what} address`);
    for (const { address, sources } of record.groups ?? []) {
      checkAddress(address, undefined, `${name}: group`);
      for (const source of sources ?? [])
        checkAddress(source, address[0] === 2 ? 'ipv4' : 'ipv6', `${name}: source of a group`);
    }
    if (type === 'tcp') {
      if (state === 'listening' || state === 'connected') requireAddress(record.address, name, 'own');
      if (state === 'connected' || state === 'connecting' || state === 'waiting')
        requireAddress(record.peerAddress, name, "its peer's");
      const alone = state !== 'connected' || record.peerClosed === true || record.kept !== undefined;
      if ((peer === undefined) !== alone)
        throw damaged(`${name} is ${state} and has ${peer === undefined ? 'no other' : 'another'} end`);
    } else if (peer !== undefined || (state === 'connected' && record.peerAddress === undefined))
      throw damaged(`${name} is a UDP socket with another end`);
    // In the computer's own network an image could give itself out for anybody there.
    if (record.kept && (type === 'udp' || state !== 'connected' || record.peerClosed || !this.#ownNetwork))
      throw damaged(`${name} is no connection that can be kept`);
    if (type === 'udp' || state === 'connected' || state === 'closed' || state === 'reset')
      this.#containers.set(id, {
        limit: BigInt(bounds.socketQueue),
        used: 0n,
        file: false,
        kept: record.kept !== undefined,
      });
    if (peer === undefined) return;
    if (peer === id) throw damaged(`${name} is connected to itself`);
    this.#pair(name, id, peer);
  }
}

const families = { ipv4: { number: 2, length: 16 }, ipv6: { number: 10, length: 28 } } as const;

/** struct sockaddr_in or sockaddr_in6; `family` when it must be a certain one. */
function checkAddress(
  address: Uint8Array | undefined,
  family: keyof typeof families | undefined,
  name: string,
): void {
  if (!address) return;
  const wanted = family === undefined ? Object.values(families) : [families[family]];
  const found = address[0]! + 256 * address[1]!;
  if (!wanted.some(({ number, length }) => address.length === length && found === number))
    throw damaged(`${name} has ${address.length} bytes of family ${found}`);
}

function requireAddress(address: Uint8Array | undefined, name: string, whose: string): void {
  if (!address) throw damaged(`${name} lacks ${whose} address`);
}
