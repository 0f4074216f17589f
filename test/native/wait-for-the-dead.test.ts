/**
 * Whoever runs a call in the first thread of a process must not wait for ever when the process is killed: the kernel
 * reports that thread's end only after its tracer has taken note of the end of all others.
 */
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import t from 'tap';
import { PTRACE } from '../../lib/engine/user/abi.ts';
import { native } from '../../native/index.ts';
import { until } from '../tools/running-program.ts';

const script =
  'import threading, time\nfor n in range(2): threading.Thread(target=time.sleep, args=(600,)).start()';

t.test('a wait without limit ends when the process was killed', { timeout: 60_000 }, async (t) => {
  const child = spawn('python3', ['-c', script], { stdio: 'ignore' });
  const pid = child.pid!;
  // Its end is ours to take note of, so that Node will not see it.
  child.unref();
  t.teardown(() => child.kill('SIGKILL'));
  const tasks = () => readdirSync(`/proc/${pid}/task`).map(Number);
  await until(() => tasks().length === 3);
  const addon = native();
  const threads = tasks();
  for (const tid of threads) {
    addon.seize(tid, PTRACE.optionSysGood);
    addon.interrupt(tid);
    t.equal(addon.waitStop(tid, 10_000)?.state, 'stopped');
  }
  process.kill(pid, 'SIGKILL');
  t.throws(() => addon.waitStop(pid, -1), { code: 'ESRCH' });
  // The youngest first, the whole process is taken note of.
  for (const tid of threads.reverse()) t.equal(addon.waitStop(tid, 10_000)?.state, 'exited');
});
