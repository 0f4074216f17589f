/** The first computer, which is not the session's: it runs there from the stick and is taken along. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { RunningProgram } from '../../tools/running-program.ts';
import type { Controls, Travel } from '../job.ts';
import { say, sh, tell, waitFor } from './shell.ts';
import { lookAt, podProcesses } from './sight.ts';

const stick = '/media/stick';

function deviceOf(label: string): string | false {
  try {
    return sh(`blkid -L ${label}`, { quiet: true }).trim();
  } catch {
    return false;
  }
}

/** Words on the disk that must be found there: a file, and one that is deleted again. */
function leaveControls({ kept, deleted }: Controls): void {
  writeFileSync('/root/control', `${kept}\n`);
  writeFileSync('/var/tmp/control', `${deleted}\n`);
  sh('sync', { quiet: true });
  rmSync('/var/tmp/control');
}

export async function office(travel: Travel, controls: Controls): Promise<void> {
  const { label, name, diary, seed, checks } = travel;
  leaveControls(controls);
  tell({ event: 'wants', what: 'plug' });
  const device = await waitFor('the stick is seen', () => deviceOf(label));
  sh(`mkdir -p ${stick} && mount ${device} ${stick}`);

  const root = join(stick, 'root');
  sh(
    `pod-run --name ${name} -d --root ${root} -- /bin/sh /home/session.sh /home/${diary} ${seed} ${checks.join(' ')}`,
  );
  // It has replayed itself once, and the programs turn.
  const { sight, picture } = await lookAt(name, root, ({ checked }) => checked > 0);
  for (const check of checks) {
    const running = new RunningProgram(join(root, 'home/work', check));
    await waitFor(`${check} turns`, () => running.beats > 2 || running.result !== undefined);
    if (running.result !== undefined) throw new Error(`${check}: ${running.result}`);
  }
  say(picture);
  say(sh('pod-ps').trimEnd());
  tell({ event: 'saw', sight });

  const filters = `pod-filter upgrade-2.6 | pod-filter compress | pod-filter encrypt -R ${stick}/key.pub`;
  // Emulated, on a computer that does other things too, a store shows up late.
  sh(`pod-dump --suspend --receipt-timeout 300 ${name} | ${filters} | pod-store ${stick}/${name}`);
  say(sh(`pod-load --list ${stick}/${name}`).trimEnd());
  const left = podProcesses().length + (JSON.parse(sh('pod-ps --json', { quiet: true })) as unknown[]).length;
  sh(`umount ${stick} && rmdir ${stick}`);
  tell({ event: 'wants', what: 'unplug' });
  await waitFor('the stick is gone', () => !readFileSync('/proc/partitions', 'utf8').includes('sda'));
  tell({ event: 'gone' });
  const swap = readFileSync('/proc/swaps', 'utf8').split('\n').slice(1).join('\n').trim();
  tell({ event: 'office', swap, left });
}
