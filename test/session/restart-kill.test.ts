/**
 * pod-restart killed at any moment, by a signal that can be caught and by one that cannot: no process is left, its
 * name is free at once, and what is left in the registry is gone with the next command that looks there.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { Random } from '../tools/random.ts';
import { campaignUsers, disturbed, makeShell, podProcesses, short, waitFor } from './session-house.ts';

const rounds = Number(process.env['POD_TEST_ROUNDS'] ?? (short ? 6 : 9));

t.setTimeout(120_000 + rounds * 5000);

for (const user of campaignUsers) {
  t.test(`as ${user}`, async (t) => {
    const shell = makeShell(t, user);
    const random = new Random(Number(process.env['POD_TEST_SEED'] ?? 11));
    const must = (line: string) => {
      const { status, stderr } = shell.sh(line);
      t.equal(status, 0, `${line}\n${stderr}`);
    };
    // All of a pod, and what a half-made one consists of, has the house's folder in its command line.
    const processes = () =>
      readdirSync('/proc')
        .filter((pid) => /^\d+$/.test(pid) && Number(pid) !== process.pid)
        .filter((pid) => {
          try {
            return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(shell.folder);
          } catch {
            return false;
          }
        });
    must('cp $EXAMPLES/threads.py $F && pod-run --name k -d -- python3 -u $F/threads.py');
    must('pod-dump k > $F/image && pod-kill k');
    const began = performance.now();
    must('pod-restart -d < $F/image');
    const whole = performance.now() - began;
    must('pod-kill k');

    const seen = { killed: 0, done: 0 };
    for (let round = 0; round < rounds; round++) {
      const signal = (['SIGTERM', 'SIGINT', 'SIGKILL'] as const)[round % 3]!;
      const running = shell.background('exec pod-restart -d < $F/image');
      await sleep((random.below(1000) / 1000) * whole);
      try {
        process.kill(running.pid, signal);
      } catch {
        // It was done before.
      }
      const { status, stderr } = await running.end;
      if (status === 0) {
        seen.done += 1;
        const [pod] = shell.ps();
        t.same(disturbed(podProcesses(pod!.init)), [], 'it was done before the signal: the session runs');
        must('pod-kill k');
        continue;
      }
      seen.killed += 1;
      t.ok(status > 128, `${signal}: ${status} ${stderr}`);
      await waitFor(`nothing of it is left: ${processes()}`, () => processes().length === 0);
      // Every other time the next restart finds what this one left of its name.
      if (round % 2 === 0) continue;
      t.same(shell.ps(), []);
      t.same(shell.files(), [], `${signal}: the registry is clean`);
    }
    t.comment(JSON.stringify(seen));
    must('pod-restart -d < $F/image');
    t.same(disturbed(podProcesses(shell.ps()[0]!.init)), []);
    must('pod-kill k');
    t.same(shell.files(), []);
  });
}
