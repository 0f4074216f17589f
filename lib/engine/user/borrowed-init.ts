/** pod-init as the builder: what is done in it leaves no trace (inject.ts). */
import { native } from '../../../native/index.ts';
import { ptraceScope } from '../../../native/ptrace-scope.ts';
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

export interface BorrowOptions {
  /** When the session that it builds has filters (seccomp), they don't see the calls that we make in it behind them. */
  filtered?: boolean;
  /** It has a session, and goes on should we die. Otherwise it and all that it forks are traced, and die with us. */
  runsOn?: boolean;
}

/** `pid` of the host. */
export function borrowInit(pid: number, { filtered = false, runsOn = false }: BorrowOptions): BorrowedInit {
  const addon = native();
  const builds =
    PTRACE.optionTraceFork | PTRACE.optionTraceVfork | PTRACE.optionTraceClone | PTRACE.optionExitKill;
  const options = PTRACE.optionSysGood | (runsOn ? 0 : builds) | (filtered ? PTRACE.optionSuspendSeccomp : 0);
  const before = new Set(listDescriptors(pid));
  try {
    addon.seize(pid, options);
  } catch (cause) {
    if (ptraceScope() === 3)
      throw new PodError(
        'cannot-restart',
        'no process may be traced here (kernel.yama.ptrace_scope is 3), so none can be made again',
        'start the computer with another value',
        { cause },
      );
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
  const lent = { tid: pid, state };
  const site = injector.enter(lent);
  const task = new NewTask(pid, 1, site);
  const own = findGap([...areas, injector.scratch], siteLength);
  task.site = task.remote.ask(makeCallSite(task.tid, own));
  return {
    task,
    giveBack() {
      const made = listDescriptors(task.tid).filter((fd) => !before.has(fd));
      task.remote.run(made.map((fd) => [SYS.close, fd]));
      task.site = site;
      task.remote.call('munmap', SYS.munmap, own, siteLength);
      Injector.finish([{ injector, lent }]);
      detach(task.tid);
    },
  };
}
