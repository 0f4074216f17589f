/** pod-init as the builder: what is done in it leaves no trace (inject.ts). */
import { native } from '../../../native/index.ts';
import { PodError } from '../../stream/error.ts';
import { PTRACE, SYS } from './abi.ts';
import { findGap } from './address-range.ts';
import { detach } from './build-tree.ts';
import { makeCallSite, siteLength } from './call-site.ts';
import { Injector, readThreadState } from './inject.ts';
import { NewTask } from './new-task.ts';
import { listDescriptors, readAreas } from './proc.ts';

export interface BorrowedInit {
  task: NewTask;
  /** As if nothing had been: it runs on in its loop. */
  giveBack(): void;
}

/**
 * `pid` of the host. Whoever it forks is traced too, and dies with us; when the session is `filtered` (seccomp), its
 * filters don't see the calls that we make in it after they are in place.
 */
export function borrowInit(pid: number, filtered: boolean): BorrowedInit {
  const addon = native();
  const options =
    PTRACE.optionSysGood |
    PTRACE.optionTraceFork |
    PTRACE.optionTraceVfork |
    PTRACE.optionTraceClone |
    PTRACE.optionExitKill |
    (filtered ? PTRACE.optionSuspendSeccomp : 0);
  const before = new Set(listDescriptors(pid));
  try {
    addon.seize(pid, options);
  } catch (cause) {
    if (!filtered) throw cause;
    throw new PodError(
      'cannot-restart',
      'the session has seccomp filters, which only root can put back',
      'restart as root, outside of containers and sandboxes',
      { cause },
    );
  }
  addon.interrupt(pid);
  for (;;) {
    const stop = addon.waitStop(pid, 5000);
    if (!stop || stop.state === 'exited') throw new PodError('other', 'pod-init does not stop');
    if (stop.event === PTRACE.eventStop) break;
    addon.resume(pid, PTRACE.cont, stop.event === 0 ? stop.signal : 0);
  }
  const state = readThreadState(pid);
  const areas = readAreas(pid, 'maps');
  const injector = new Injector(pid, areas);
  const { site, leave } = injector.borrow(pid, state);
  const task = new NewTask(pid, 1, site);
  const own = findGap([...areas, injector.scratch], siteLength);
  task.site = makeCallSite(task.remote, own);
  return {
    task,
    giveBack() {
      const made = listDescriptors(task.tid).filter((fd) => !before.has(fd));
      task.remote.run(made.map((fd) => [SYS.close, fd]));
      task.site = site;
      task.remote.call('munmap', SYS.munmap, own, siteLength);
      leave();
      injector.finish(task.tid, state);
      detach(task.tid);
    },
  };
}
