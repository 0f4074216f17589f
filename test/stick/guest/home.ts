/**
 * The second computer, the session's own: real udev with the rule, and pod-drive as its service file starts it. The
 * stick is allowed once; from then on this program only looks.
 */
import { spawn } from 'node:child_process';
import { existsSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { usualFolder } from '../../../lib/plugged/watch.ts';
import { packageRoot } from '../../../native/package-root.ts';
import { RunningProgram } from '../../tools/running-program.ts';
import { findUdevd } from '../find-udevd.ts';
import type { Travel } from '../job.ts';
import { say, sh, tell, waitFor } from './shell.ts';
import { lookAt } from './sight.ts';

const stick = '/media/stick';
const log = '/run/pod-drive.log';

/** What systemd would do: the command of the service file. */
function startService(): void {
  const unit = readFileSync(join(packageRoot(), 'udev/podstream-drive.service'), 'utf8');
  const words = /^ExecStart=(.*)$/m.exec(unit)![1]!.split(' ') as [string, ...string[]];
  const errors = openSync(log, 'a');
  const [program, ...args] = words;
  spawn(program, args, { stdio: ['ignore', 'ignore', errors], cwd: '/', detached: true }).unref();
}

const plugged = () => (existsSync(usualFolder) ? readdirSync(usualFolder) : []);
const daemonSays = () => readFileSync(log, 'utf8');

export async function home(travel: Travel): Promise<void> {
  const { label, name, checks } = travel;
  sh(`install -m 644 '${packageRoot()}'/udev/90-podstream.rules /etc/udev/rules.d/`);
  sh(`${findUdevd()} --daemon && udevadm trigger --action=add && udevadm settle`);

  // Once: this session, from this stick, with this key. Until then a stick is nothing to pod-drive.
  tell({ event: 'wants', what: 'plug' });
  const link = `/dev/disk/by-label/${label}`;
  await waitFor('udev knows the stick', () => existsSync(link));
  const uuid = sh(`blkid -o value -s UUID ${link}`, { quiet: true }).trim();
  // The service starts when the stick is there already: it must learn of it all the same.
  startService();
  await waitFor(
    'pod-drive knows of the stick',
    () => plugged().includes(uuid),
    () => `${plugged()} ${daemonSays()}`,
  );
  sh(`mkdir -p ${stick} && mount ${link} ${stick}`);
  sh(`age-keygen -o /root/key 2>/dev/null && age-keygen -y /root/key > ${stick}/key.pub`);
  const unallowed = !existsSync(join('/media/podstream', uuid)) && daemonSays() === '';
  sh(`pod-drive allow ${stick}/${name} -i /root/key --root ${stick}/root`);
  say(sh('pod-drive list').trimEnd());
  sh(`umount ${stick}`);
  tell({ event: 'wants', what: 'unplug' });
  await waitFor('the rule has told that it is gone', () => !plugged().includes(uuid));
  tell({ event: 'gone' });

  // From here on nobody types anything.
  const told = await waitFor(
    'pod-drive resumes the session',
    () => daemonSays().includes(`pod-drive: ${name}: `) && daemonSays(),
    daemonSays,
  );
  say(told.trimEnd());
  if (!told.includes(`${name}: it goes on`)) throw new Error(told);
  const place = join('/media/podstream', uuid);
  const root = join(place, 'root');
  const first = await lookAt(name, root, () => true);
  const start = first.sight.frames[0]!.generation;
  // It has replayed everything once more.
  const { sight, picture } = await lookAt(name, root, ({ checked }) => checked > start);
  say(picture);
  tell({ event: 'saw', sight: { ...sight, frames: [...first.sight.frames, ...sight.frames] } });

  const results: Record<string, string> = {};
  for (const check of checks) {
    const running = new RunningProgram(join(root, 'home/work', check));
    const before = running.beats;
    await waitFor(`${check} turns`, () => running.beats > before + 2 || running.result !== undefined);
    await running.finish();
    results[check] = await waitFor(`${check} judges itself`, () => running.result);
  }
  say(sh('pod-ps').trimEnd());

  sh(`pod-kill ${name}`);
  tell({ event: 'wants', what: 'unplug' });
  await waitFor('pod-drive has unmounted the stick', () => !existsSync(place), daemonSays);
  const unmounted = !readFileSync('/proc/mounts', 'utf8').includes(place);
  tell({ event: 'home', unallowed, unmounted, results });
}
