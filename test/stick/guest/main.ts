/** The program of one of the two computers: reads its job, does it. Never run by hand. */
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../../native/package-root.ts';
import { jobPath } from '../../kernels/initramfs.ts';
import { keepDescriptors } from '../../tools/running-program.ts';
import type { Job } from '../job.ts';
import { home } from './home.ts';
import { office } from './office.ts';
import { tell } from './shell.ts';

keepDescriptors();
process.env['PATH'] = `${join(packageRoot(), 'dist/bin')}:${process.env['PATH']}`;
try {
  const processor = /^model name\s*: (.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? '';
  tell({ event: 'up', release: release(), processor });
  const job = JSON.parse(readFileSync(jobPath, 'utf8')) as Job;
  if (job.kind === 'home') await home(job.travel);
  else await office(job.travel, job.controls);
  tell({ event: 'done' });
} catch (error) {
  tell({ event: 'error', message: (error as Error).stack ?? String(error) });
  process.exitCode = 1;
}
