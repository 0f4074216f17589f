/**
 * System V shared memory of a pod that nobody has attached. Only who attaches a segment can read it, so pid 1 of the pod
 * does, never a process of the session, and lets go of it when the pages are read. All the while the session is stopped:
 * it sees no more of this than the times of the segment. What a killed dumper left attached there, the next lets go of.
 */
import { PodError } from '../../../stream/error.ts';
import { AT_FDCWD, O, SYS } from '../abi.ts';
import { borrowInit } from '../borrowed-init.ts';
import type { Carriers } from '../carriers.ts';
import { isGone, readAreas } from '../proc.ts';
import type { Remote } from '../remote.ts';
import { errnoName } from './local-calls.ts';
import { isSysvArea, SHM_RDONLY, type SysvSegment } from './sysv-shm.ts';

export class Unattached {
  readonly #init: number | undefined;

  /** `init`: host pid of the pod's pid 1; none without a pod. */
  constructor(init: number | undefined) {
    this.#init = init;
    this.release();
  }

  /** Of all segments of the pod those that nobody has attached. */
  carry(segments: Iterable<SysvSegment>, carriers: Carriers): void {
    const init = this.#init;
    const alone = [...segments].filter(({ attached }) => attached === 0n);
    if (init === undefined || alone.length === 0) return;
    within(init, (remote) => {
      refuseForced(remote, alone[0]!);
      for (const segment of alone) attach(segment, remote);
    });
    const areas = readAreas(init);
    for (const segment of alone) {
      const area = areas.find(({ path, inode }) => isSysvArea(path) && inode === BigInt(segment.id));
      if (!area) throw refusal(segment, "can't be found where it is attached");
      if (area.flags.has('ht')) throw refusal(segment, 'is of huge pages (hugetlb), which is not handled');
      carriers.ofSysv(init, area, segment, nameOf(segment));
    }
  }

  /** Nobody has them attached again. */
  release(): void {
    const init = this.#init;
    if (init === undefined) return;
    try {
      const attached = readAreas(init, 'maps').filter(({ path }) => isSysvArea(path));
      if (attached.length === 0) return;
      within(init, (remote) => remote.run(attached.map(({ start }) => [SYS.shmdt, start])));
    } catch (cause) {
      // The pod has ended, and its segments with it.
      if (!isGone(cause)) throw cause;
    }
  }
}

function within(init: number, body: (remote: Remote) => void): void {
  const borrowed = borrowInit(init, { runsOn: true });
  try {
    body(borrowed.task.remote);
  } finally {
    borrowed.giveBack();
  }
}

function attach(segment: SysvSegment, remote: Remote): void {
  const [address] = remote.run([[SYS.shmat, segment.id, 0, SHM_RDONLY]]);
  if (address! < 0n && address! > -4096n)
    throw refusal(segment, `can't be read (${errnoName(Number(-address!))})`);
}

/** Where kernel.shm_rmid_forced is set, a segment is gone as soon as nobody has it attached any more: so ours would be. */
function refuseForced(remote: Remote, first: SysvSegment): void {
  remote.reset();
  const path = remote.putString('/proc/sys/kernel/shm_rmid_forced');
  const [fd] = remote.run([[SYS.openat, AT_FDCWD, path, O.cloexec]]);
  const place = remote.reserve(1);
  const [got] = remote.run([
    [SYS.read, fd!, place, 1],
    [SYS.close, fd!],
  ]);
  if (fd! >= 0n && got === 1n && remote.read(place, 1)[0] === '0'.charCodeAt(0)) return;
  throw refusal(first, "can't be read without being lost: kernel.shm_rmid_forced is set, or can't be seen");
}

const nameOf = ({ id, key }: SysvSegment) =>
  `System V shared memory ${id} (key ${key}), which nobody has attached,`;

const refusal = (segment: SysvSegment, why: string) =>
  new PodError(
    'cannot-checkpoint',
    `the session's ${nameOf(segment)} ${why}`,
    `if no program needs it any more, remove it: ipcrm -m ${segment.id}`,
  );
