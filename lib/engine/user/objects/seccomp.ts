/**
 * seccomp(2): filters, strict mode. While we trace a task its filters are suspended (PTRACE_O_SUSPEND_SECCOMP), or they
 * would see, and may punish, the calls that we make in it. Only root may suspend, or read, a filter: an ordinary user's
 * dump refuses a task that has one before any call is made in it.
 */
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { PodError } from '../../../stream/error.ts';
import { SYS } from '../abi.ts';
import type { FrozenProcess } from '../freeze.ts';
import { needed } from '../image-records.ts';
import type { NewTask } from '../new-task.ts';
import { describeProcess, type Status } from '../proc.ts';
import type { Word } from '../remote.ts';
import type { OutRecord } from './file-object.ts';
import { codeOf } from './local-calls.ts';

type State = NonNullable<Records['thread']['seccomp']>;

const PTRACE_SECCOMP_GET_FILTER = 0x420c;
const PTRACE_SECCOMP_GET_METADATA = 0x420d;
const SECCOMP_SET_MODE_FILTER = 1;
const SECCOMP_FILTER_FLAG_TSYNC = 1;
const SECCOMP_FILTER_FLAG_LOG = 2;
const PR_SET_SECCOMP = 22;
const strictMode = 1;
const filterMode = 2;

const modeOf = (status: Status) => Number(status.get('Seccomp')?.[0] ?? 0);

/** Filters that are in place; strict mode, and filters that nobody counts (before Linux 5.9), are more than any pod has. */
function countOf(status: Status): number {
  const mode = modeOf(status);
  if (mode === 0) return 0;
  return mode === filterMode
    ? Number(status.get('Seccomp_filters')?.[0] ?? Number.POSITIVE_INFINITY)
    : Number.POSITIVE_INFINITY;
}

/**
 * Before any call is made in the session: `suspended` says that filters won't see them. The first `inherited` are the
 * pod's, of its pid 1, and let all our calls through.
 */
export function refuseFiltered(
  processes: readonly FrozenProcess[],
  suspended: boolean,
  inherited: number,
): void {
  if (suspended) return;
  for (const { pid, threads } of processes) {
    if (threads.every(({ status }) => countOf(status) === 0 || countOf(status) === inherited)) continue;
    throw new PodError(
      'cannot-checkpoint',
      `${describeProcess(pid)}, a seccomp filter: only root can save it`,
      'dump as root (outside of containers and sandboxes), or start the program without its sandbox',
    );
  }
}

/** The filters of a session, each once; without those that it inherits from the pod, as it will again. */
export class FilterCollector {
  readonly records: OutRecord<'seccomp'>[] = [];
  readonly #ids = new Map<string, number>();
  readonly #inherited: number;

  constructor(inherited: number) {
    this.#inherited = inherited;
  }

  /** What a stopped thread has of them; `tid` is the host's. */
  of(pid: number, tid: number, status: Status): { seccomp?: State } {
    const mode = modeOf(status);
    if (mode === 0 || countOf(status) === this.#inherited) return {};
    if (mode === strictMode) return { seccomp: { strict: true } };
    if (mode !== filterMode) {
      throw new PodError(
        'cannot-checkpoint',
        `${describeProcess(pid)} has the unknown seccomp mode ${mode}`,
        'try again in a moment, when it has ended',
      );
    }
    const filters: number[] = [];
    for (;;) {
      const place = this.#inherited + filters.length;
      const program = readFilter(pid, tid, place);
      if (!program) return { seccomp: { filters } };
      refuseListener(pid, program);
      filters.push(this.#idOf(program, isLogged(tid, place)));
    }
  }

  #idOf(program: Uint8Array, log: boolean): number {
    const key = `${log} ${Buffer.from(program).toString('latin1')}`;
    const known = this.#ids.get(key);
    if (known !== undefined) return known;
    const id = this.records.length;
    this.#ids.set(key, id);
    this.records.push({ name: 'seccomp', meta: { id, program, ...(log ? { log } : {}) } });
    return id;
  }
}

/** The filter that was the `index`-th to be put in place; undefined when there are fewer. */
function readFilter(pid: number, tid: number, index: number): Uint8Array | undefined {
  try {
    const length = Number(native().syscall(SYS.ptrace, PTRACE_SECCOMP_GET_FILTER, tid, index, 0));
    const program = new Uint8Array(length * instruction);
    native().syscall(SYS.ptrace, PTRACE_SECCOMP_GET_FILTER, tid, index, program);
    return program;
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return undefined;
    throw new PodError(
      'cannot-checkpoint',
      `the seccomp filters of ${describeProcess(pid)} can't be read (${codeOf(cause)})`,
      'dump as root (outside of containers and sandboxes), or start the program without its sandbox',
      { cause },
    );
  }
}

function isLogged(tid: number, index: number): boolean {
  const metadata = new BigUint64Array([BigInt(index), 0n]);
  const bytes = new Uint8Array(metadata.buffer);
  native().syscall(SYS.ptrace, PTRACE_SECCOMP_GET_METADATA, tid, bytes.length, bytes);
  return (metadata[1]! & BigInt(SECCOMP_FILTER_FLAG_LOG)) !== 0n;
}

/** struct sock_filter: u16 code, u8 jt, u8 jf, u32 k. */
const instruction = 8;
const returnConstant = 0x06;
const SECCOMP_RET_USER_NOTIF = 0x7fc0;

/** A program outside, or in the session, answers calls: its descriptor belongs to this very filter. */
function refuseListener(pid: number, program: Uint8Array): void {
  const view = new DataView(program.buffer, program.byteOffset, program.length);
  for (let at = 0; at < program.length; at += instruction) {
    const code = view.getUint16(at, true);
    if (code !== returnConstant || view.getUint32(at + 4, true) >>> 16 !== SECCOMP_RET_USER_NOTIF) continue;
    throw new PodError(
      'cannot-checkpoint',
      `${describeProcess(pid)} has a seccomp filter that asks a supervisor (SECCOMP_RET_USER_NOTIF)`,
      'run the program without that supervisor',
    );
  }
}

/** Put back what the threads of a process have. The leader first, `threads` in the same order. */
export function restoreFilters(
  tasks: readonly NewTask[],
  threads: readonly Records['thread'][],
  filters: ReadonlyMap<number, Records['seccomp']>,
): void {
  const chains = threads.map(({ seccomp }) => seccomp?.filters ?? []);
  // What all have is given to all at once: so it is one filter, below which a program may do the same again.
  const shared = chains[0]!.filter((_id, index) =>
    chains.every((chain) => chain.slice(0, index + 1).every((id, place) => id === chains[0]![place])),
  );
  install(tasks[0]!, shared, filters, tasks.length > 1 ? SECCOMP_FILTER_FLAG_TSYNC : 0);
  tasks.forEach((task, index) => {
    install(task, chains[index]!.slice(shared.length), filters, 0);
    if (threads[index]!.seccomp?.strict)
      task.remote.call('PR_SET_SECCOMP', SYS.prctl, PR_SET_SECCOMP, strictMode, 0, 0, 0);
  });
}

function install(
  task: NewTask,
  ids: readonly number[],
  filters: ReadonlyMap<number, Records['seccomp']>,
  flags: number,
): void {
  if (ids.length === 0) return;
  const { remote } = task;
  for (const id of ids) {
    const { program, log } = needed(filters, id, 'seccomp filter');
    remote.reset();
    const code = remote.put(program);
    // struct sock_fprog: u16 length, then the address.
    const head = new BigUint64Array([BigInt(program.length / instruction), code]);
    const all = flags | (log ? SECCOMP_FILTER_FLAG_LOG : 0);
    const call: Word[] = [SYS.seccomp, SECCOMP_SET_MODE_FILTER, all, remote.put(new Uint8Array(head.buffer))];
    const result = remote.run([call])[0]!;
    if (result === 0n) continue;
    throw new PodError(
      'cannot-restart',
      `thread ${task.inner} can't be given its seccomp filter (${result})`,
      'the image was damaged, or this kernel knows no such filter',
    );
  }
}
