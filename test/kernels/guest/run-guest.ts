/** What every program of a test machine does: it says that it is up, does its job, and says that it is through. */
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { keepDescriptors } from '../../tools/running-program.ts';
import { jobPath } from '../initramfs.ts';
import { tell } from './tell.ts';

/** `about`: what else it says of its machine. */
export async function runGuest<Job>(work: (job: Job) => Promise<void>, about: object = {}): Promise<void> {
  keepDescriptors();
  try {
    tell({ event: 'up', release: release(), ...about });
    await work(JSON.parse(readFileSync(jobPath, 'utf8')) as Job);
    tell({ event: 'done' });
  } catch (error) {
    tell({ event: 'error', message: (error as Error).stack ?? String(error) });
    process.exitCode = 1;
  }
}
