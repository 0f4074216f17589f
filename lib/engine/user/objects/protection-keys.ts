/**
 * Memory protection keys: pkeys(7). An address space hands out sixteen numbers, each area carries one of them, and each
 * thread says in a register (PKRU) which of them it may touch. Key 0 is every area's that was given no other.
 *
 * Which numbers are handed out nobody tells, but pkey_mprotect(2) looks at the key before it looks for the memory: where
 * no memory can be, it fails one way for a key that is handed out and another for one that is not, and nothing is
 * touched.
 *
 * Memory that may be run and not read (PROT_EXEC alone) the kernel puts under a key that it keeps for itself, the lowest
 * that is free when the first such area is made. It is not handed out to the program, so it is found by its areas.
 *
 * PKRU is part of the extended registers. It holds for the kernel too when it copies for the thread, so a thread that
 * denies itself key 0 can make no call with arguments in memory of ours: for as long as it makes calls for us it is given
 * all rights. Other processes' reads and writes (process_vm_readv, /proc/PID/mem) don't ask it.
 */
import { native } from '../../../../native/index.ts';
import { PodError } from '../../../stream/error.ts';
import { NT_X86_XSTATE, PROT, page, SYS } from '../abi.ts';
import type { Area, ImageRecords, SpaceImage } from '../image-records.ts';
import type { NewTask } from '../new-task.ts';
import { describeProcess, type MappedArea } from '../proc.ts';
import type { Remote, Word } from '../remote.ts';
import { errnoName } from './local-calls.ts';

/** HELLO's word in `requires`. */
export const protectionKeys = 'protection-keys';

const keyCount = 16;
const ENOMEM = -12n;
/** A kernel's address: no program has memory there. */
const nowhere = 0xffff800000000000n;
/** PKRU among the components of XSAVE, and the header that lists them. */
const component = 9n;
const headerAt = 512;

const bit = (key: number) => 1 << key;
const numbers = Array.from({ length: keyCount - 1 }, (_none, index) => index + 1);

let place: number | undefined;

/** Where PKRU lies in the extended registers, 0 where processor or kernel have no keys. */
function rightsAt(): number {
  place ??= native().protectionKeyState();
  return place;
}

export const hasProtectionKeys = (): boolean => rightsAt() !== 0;

/** Calls that tell which keys are handed out. */
export const keyCalls = (): Word[][] =>
  hasProtectionKeys() ? numbers.map((key) => [SYS.pkey_mprotect, nowhere, page, 0, key]) : [];

/** Keys that are handed out but 0, bit n is key n, from the results of keyCalls(). */
export function parseKeys(results: ArrayLike<bigint>): number {
  return numbers.reduce((keys, key, index) => (results[index] === ENOMEM ? keys | bit(key) : keys), 0);
}

/**
 * The key that the kernel keeps for memory that may only be run. One that was handed out and given back looks the same:
 * where both are there, nobody can say which is which.
 */
export function findExecuteOnlyKey(
  areas: readonly Pick<MappedArea, 'permissions' | 'protectionKey'>[],
  handedOut: number,
  pid: number,
): number | undefined {
  const found = new Set(
    areas
      .filter(({ permissions }) => /^--x/.test(permissions))
      .map(({ protectionKey }) => protectionKey)
      .filter((key) => key !== 0 && (handedOut & bit(key)) === 0),
  );
  if (found.size > 1)
    throw new PodError(
      'cannot-checkpoint',
      `${describeProcess(pid)} has memory that may only be run under protection keys that it has given back`,
      'give back a key (pkey_free) only when no memory is under it any more',
    );
  return [...found][0];
}

/** PKRU in a thread's extended registers; undefined where there is none. */
export function readRights(extended: Uint8Array): number | undefined {
  const at = rightsAt();
  if (at === 0 || extended.length < at + 4) return undefined;
  return new DataView(extended.buffer, extended.byteOffset).getUint32(at, true);
}

/** The same registers with another PKRU; without one where this machine has none. */
export function withRights(extended: Uint8Array, rights: number): Uint8Array {
  const copy = extended.slice();
  const view = new DataView(copy.buffer);
  const used = view.getBigUint64(headerAt, true) & ~(1n << component);
  const at = rightsAt();
  const known = at !== 0 && copy.length >= at + 4;
  if (known) view.setUint32(at, rights, true);
  view.setBigUint64(headerAt, known && rights !== 0 ? used | (1n << component) : used, true);
  return copy;
}

/** What a thread must have in its extended registers while it makes calls for us; undefined: what it has will do. */
export function liftedRights(extended: Uint8Array): Uint8Array | undefined {
  const rights = readRights(extended) ?? 0;
  return (rights & 3) === 0 ? undefined : withRights(extended, 0);
}

type KeyUsers = Pick<ImageRecords, 'spaces' | 'processes' | 'tree'>;

/** Whether a kernel will have to be asked for keys, or could give one that the session does not have. */
export function usesKeys({ spaces }: Pick<ImageRecords, 'spaces'>): boolean {
  return [...spaces.values()].some(
    ({ record, areas }) =>
      record.protectionKeys !== undefined ||
      areas.some(({ prot, protectionKey }) => protectionKey !== undefined || prot === PROT.exec),
  );
}

/** Before anything is made. What may only be run any machine has, with or without a key. */
export function checkKeys({ spaces, processes, tree }: KeyUsers, present = hasProtectionKeys()): void {
  if (present) return;
  for (const { record, areas } of spaces.values()) {
    const own = areas.some(
      ({ protectionKey }) => protectionKey !== undefined && protectionKey !== record.executeOnlyKey,
    );
    if (!own && record.protectionKeys === undefined) continue;
    const pid = [...processes.values()].find((each) => each.record.mm === record.id)?.record.pid;
    const comm = tree.find((entry) => entry.pid === pid)?.comm ?? 'a process';
    throw new PodError(
      'cannot-restart',
      `${comm} (pid ${pid} of the session) uses memory protection keys, which this processor or kernel lacks`,
      'restart on a machine with them: "ospke" among the flags of /proc/cpuinfo',
    );
  }
}

/** As what an area is mapped first: PROT_EXEC alone would take a key. */
export const protAtFirst = (prot: number): number => (prot === PROT.exec ? PROT.exec | PROT.read : prot);

/** All areas are mapped: the same keys as before, and each area under its own. */
export function arrangeKeys(task: NewTask, { record, areas }: SpaceImage, base?: SpaceImage): void {
  const { remote } = task;
  const own = record.executeOnlyKey;
  const isOnlyRun = ({ prot, protectionKey }: Area) =>
    prot === PROT.exec && protectionKey === own && own !== undefined;
  const firstOnlyRun = areas.find(isOnlyRun);
  if (!hasProtectionKeys()) {
    protect(
      remote,
      areas
        .filter(({ prot }) => prot === PROT.exec)
        .map(({ start, end, prot }) => [SYS.mprotect, start, end - start, prot]),
    );
    return;
  }
  // Whoever is forked from here has all rights too, until it gets its own with its registers.
  const lifted = withRights(native().getRegset(task.tid, NT_X86_XSTATE), 0);
  native().setRegset(task.tid, NT_X86_XSTATE, lifted);

  const kept = record.protectionKeys ?? 0;
  const used =
    areas.reduce((keys, area) => keys | (isOnlyRun(area) ? 0 : bit(area.protectionKey ?? 0)), 0) & ~1;
  const wanted = kept | used;
  const taken = own !== undefined && firstOnlyRun && base?.record.executeOnlyKey !== own ? bit(own) : 0;
  let have = parseKeys(remote.run(keyCalls()));
  const free = (keys: number) => {
    remote.run(numbers.filter((key) => (keys & bit(key)) !== 0).map((key) => [SYS.pkey_free, key]));
    have &= ~keys;
  };
  free(have & ~wanted);
  // The kernel gives the lowest that is free: those below it are held until all are there.
  let made = 0;
  while (((wanted | taken) & ~have & ~made) !== 0) {
    const [result] = remote.run([[SYS.pkey_alloc, 0, 0]]);
    if (result! < 0n)
      throw new PodError(
        'cannot-restart',
        `process ${task.inner} can't have its memory protection keys back (${errnoName(Number(-result!))})`,
      );
    const key = Number(result);
    if (bit(key) !== taken) {
      have |= bit(key);
      continue;
    }
    remote.run([[SYS.pkey_free, key]]);
    const { start, end } = firstOnlyRun!;
    protect(remote, [[SYS.mprotect, start, end - start, PROT.exec]]);
    made = bit(key);
  }
  protect(
    remote,
    areas
      .filter(({ kind }) => kind !== 'vvar' && kind !== 'vdso')
      .filter(
        ({ prot, protectionKey, inherited }) =>
          protectionKey !== undefined || inherited || prot === PROT.exec,
      )
      .map((area) => {
        const { start, end, prot, protectionKey = 0 } = area;
        const where = [start, end - start, prot] as const;
        return isOnlyRun(area) ? [SYS.mprotect, ...where] : [SYS.pkey_mprotect, ...where, protectionKey];
      }),
  );
  free(have & ~kept);
}

function protect(remote: Remote, calls: Word[][]): void {
  remote.run(calls).forEach((result, index) => {
    if (result === 0n) return;
    throw new PodError(
      'cannot-restart',
      `memory at ${calls[index]![1]!.toString(16)} can't be protected as it was (${errnoName(Number(-result))})`,
    );
  });
}
