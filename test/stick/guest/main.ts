/** The program of one of the two computers: reads its job, does it. Never run by hand. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../../native/package-root.ts';
import { runGuest } from '../../kernels/guest/run-guest.ts';
import type { Job } from '../job.ts';
import { home } from './home.ts';
import { office } from './office.ts';

process.env['PATH'] = `${join(packageRoot(), 'dist/bin')}:${process.env['PATH']}`;
const processor = /^model name\s*: (.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? '';
await runGuest((job: Job) => (job.kind === 'home' ? home(job.travel) : office(job.travel, job.controls)), {
  processor,
});
