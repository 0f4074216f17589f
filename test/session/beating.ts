/** A session one can hear: it beats into a file while it holds noise that no filter makes small, and checks that. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { disturbed, podProcesses, type Shell, waitFor } from './session-house.ts';

/** A heart that finds its noise changed, or its count gone back, stops. */
const program = `
import time, os, threading
data = os.urandom(int(os.environ["NOISE"]) << 20)
check = hash(data)
def count():
    n = 0
    file = os.open(os.environ["F"] + "/beat", os.O_WRONLY | os.O_CREAT)
    while True:
        n += 1
        os.pwrite(file, b"%010d\\n" % n, 0)
        assert n % 16 or hash(bytes(bytearray(data))) == check
        time.sleep(0.02)
threading.Thread(target=count).start()
while True: time.sleep(0.01)
`;

/** Start the session `s` with so many MiB of noise. */
export async function startBeating(t: Test, shell: Shell, noise: number): Promise<void> {
  const { status, stderr } = shell.sh('pod-run --name s -d -- python3 -c "$BEAT"', {
    BEAT: program,
    NOISE: String(noise),
  });
  t.equal(status, 0, stderr);
  await beatsOn(shell);
}

/** The number of its last beat; 0 before the first. */
export function lastBeat(shell: Shell): number {
  try {
    return Number(readFileSync(join(shell.folder, 'beat'), 'utf8').trim());
  } catch {
    return 0;
  }
}

/** Until it has beaten often enough to have checked its noise once. */
export async function beatsOn(shell: Shell, more = 17): Promise<void> {
  const then = lastBeat(shell);
  await waitFor(`beats after ${then}`, () => lastBeat(shell) >= then + more);
}

/** After a suspend that failed: thawed, undisturbed, beating. */
export async function goesOn(t: Test, shell: Shell, why = ''): Promise<void> {
  const [pod, ...others] = shell.ps();
  t.equal(pod?.name, 's', `the session is there ${why}`);
  t.equal(others.length, 0);
  t.same(disturbed(podProcesses(pod!.init)), [], why);
  await beatsOn(shell);
}
