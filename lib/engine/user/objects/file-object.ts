/**
 * What an object file provides. One file an object that a descriptor can refer to: what it looks like in a running
 * session, what is saved of it, how it is made again. Everything about an object stands in its file, so that adding
 * one touches nothing else but the list in index.ts.
 */
import type { BigIntStats } from 'node:fs';
import type { Records } from '../../../image/record.ts';
import type { Remote } from '../remote.ts';

/** An open file description found in the session. */
export interface OpenFile {
  /** Object id in the image. */
  id: number;
  /** One descriptor of it: host pid and number. Of a file in flight: of the socket it is found in. */
  pid: number;
  fd: number;
  /** No process has it open: it is on its way through a unix socket. */
  inFlight?: boolean;
  /** It is on its way through a unix socket, whether a process has it open or not. */
  travels?: boolean;
  /** All descriptors of it, in order of process and number. */
  holders: { pid: number; fd: number }[];
  /** Our own descriptor of the same open file description (pidfd_getfd); shares its offset and flags. */
  local: number;
  /** readlink of /proc/PID/fd/N. */
  link: string;
  stat: BigIntStats;
  /** F_GETFL, access mode included, O_LARGEFILE removed. */
  flags: number;
  /** /proc/PID/fdinfo/N: key → words; of keys that repeat (epoll's tfd, inotify) all lines, in `infoLines`. */
  info: Map<string, string[]>;
  infoLines: string[];
}

/** A record on its way into the image. Objects that others refer to come first. */
export interface OutRecord<Name extends keyof Records = keyof Records> {
  name: Name;
  meta: Records[Name];
  data?: Uint8Array;
}

export interface DumpContext {
  /** All open file descriptions of the session. */
  readonly files: readonly OpenFile[];
  /** Those of an inode, by its number: more than one when it is opened more than once. */
  filesOf(inode: bigint): readonly OpenFile[];
  /** The open file description behind a descriptor of a process (host pid), if it has one. */
  fileAt(pid: number, fd: number): OpenFile | undefined;
  /** A new object id in the space of `files`, for what is not itself an open file (the pipe behind its ends). */
  newFileId(): number;
  /** Host pid → pid in the session, 0 when it is not of the session. */
  innerPid(hostPid: number): number;
  /** The same of any thread. */
  innerTid(hostTid: number): number;
  /** Remember something between files of the same kind (pipes already written, terminals already numbered). */
  once<Value>(key: string, make: () => Value): Value;
  /**
   * The open file behind a descriptor of ours that came out of a message in the socket `through`. Takes the
   * descriptor.
   */
  adopt(local: number, through: OpenFile): OpenFile;
  /** Run system calls in the process (any of its threads), undisturbed. */
  within<Result>(pid: number, body: (remote: Remote) => Result): Result;
  /** The shared memory object that carries a file without a name; `path` is the one it had in the pod. */
  carry(file: OpenFile, path: string): number;
  /** Say that restart will not bring this back, in one sentence. */
  loss(sentence: string): void;
  /**
   * When the image is safe and the session is just to be ended: do something to the open file, of which `local` is our
   * descriptor.
   */
  beforeEnd(file: OpenFile, body: (local: number) => void): void;
  /** Connections to outside go on elsewhere: nothing comes in any more, and the session is to be ended. */
  readonly keepsConnections: boolean;
  /** How often this dump was put off by notNow() already. */
  readonly putOff: number;
  /** The same as refuse(), for a state that will pass: the dump lets the session go on a moment, and tries again. */
  notNow(file: OpenFile, why: string, hint: string): never;
  /** Throw exit 11: process, descriptor, link, and why. */
  refuse(file: OpenFile, why: string, hint?: string): never;
}

export interface RestoreContext {
  /**
   * System calls in the builder, the task out of which all processes are forked: descriptors opened here are
   * inherited by all of them, so an open file description is shared again by whoever shared it. Its root, working
   * directory and namespaces are the pod's.
   */
  readonly builder: Remote;
  /** The builder's host pid (for /proc/PID/root, /proc/PID/fd). */
  readonly builderPid: number;
  /** A descriptor of the builder that now stands for object `id`. */
  keep(id: number, fd: number | bigint): void;
  /** The builder's descriptor of an object restored before. Throws `damaged` when there is none. */
  descriptor(id: number): number;
  /** The builder's descriptor of a shared memory object, open for reading and writing: not to be given away. */
  carrier(id: number): number;
  /** Have a process that ends with a wait status once `body` is through, and is waited for; nobody else sees it. */
  ended<Result>(status: number, body: (pid: number) => Result): Result;
  /** CONTENT records of an object, in order. */
  contents(id: number): readonly { meta: Records['content']; data: Uint8Array }[];
  /** Remember something between records of the same image. */
  once<Value>(key: string, make: () => Value): Value;
  /** Just before the tasks run, when nothing can fail any more. */
  beforeRun(body: () => void): void;
  /** Connections to outside that could go on are given up. */
  readonly resetsConnections: boolean;
  /** The terminal that this restart gives the session in place of an outside one: path inside the pod. */
  readonly console: string | undefined;
  /** Say something to the user that does not stop the restart. */
  warn(sentence: string): void;
  /** Throw exit 12: which object, what was expected, what was found, what to do. */
  refuse(what: string, hint?: string): never;
}

/** A process of the tree that still has the builder's descriptors, under the builder's numbers. */
export interface BareTask {
  remote: Remote;
  /** Its pid in the session. */
  pid: number;
}

/** A process whose descriptor table is in place, for what must be done from inside it. */
export interface RestoredTable {
  /** Remote of a task that has the table. */
  remote: Remote;
  /** The task's pid in the session. */
  pid: number;
  /** Descriptor numbers of an object in this table. */
  numbers(id: number): readonly number[];
}

export interface FileObject {
  /** Records this file owns. */
  records: readonly (keyof Records)[];
  /** One line for docs/coverage.md: what is kept, what is refused. */
  coverage: string;
  /** Whether an open file is of this kind. The first object in index.ts that says yes dumps it. */
  matches(file: OpenFile): boolean;
  /** Before anything is dumped: look for open files that only this one leads to (`adopt`). */
  discover?(file: OpenFile, context: DumpContext): void;
  /** Its records. May refuse. Must not change the session. */
  dump(file: OpenFile, context: DumpContext): OutRecord[];
  /** Make it again in the builder. `record` is one of `records`, checked against its schema. */
  restore(name: keyof Records, record: unknown, context: RestoreContext): void;
  /** A session leader is made, and nobody of its session is forked yet: what the session inherits from it. */
  leadSession?(name: keyof Records, record: unknown, leader: BareTask, context: RestoreContext): void;
  /** All processes are in their sessions and groups. `find`: by pid in the session, undefined for a zombie. */
  treeMade?(
    name: keyof Records,
    record: unknown,
    find: (pid: number) => BareTask | undefined,
    context: RestoreContext,
  ): void;
  /**
   * What can only be done from inside a process when all tables are in place (an epoll set names descriptor
   * numbers). Called for each record of this object with each table that holds it, the first one first.
   */
  restoreInTable?(
    name: keyof Records,
    record: unknown,
    table: RestoredTable,
    context: RestoreContext,
  ): 'done' | 'next-table';
  /** Last of all, before the tasks run: what must not tick or fire while the session is rebuilt (timers). */
  arm?(name: keyof Records, record: unknown, context: RestoreContext): void;
}
