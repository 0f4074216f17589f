/** `--memory`, `--cpus` and `--pids` as users write them. */
import { PodError } from '../stream/error.ts';
import type { Limits } from './cgroups.ts';

export const limitOptions = {
  memory: { type: 'string', describe: 'most memory that the session may take: 512M, 2G' },
  cpus: { type: 'number', describe: 'most processors that it may keep busy: 1.5' },
  pids: { type: 'number', describe: 'most processes and threads that it may have' },
} as const;

const units = { '': 0n, K: 10n, M: 20n, G: 30n, T: 40n };

/** Undefined when none is given. Throws `usage`. */
export function readLimits(given: {
  memory?: string | undefined;
  cpus?: number | undefined;
  pids?: number | undefined;
}): Limits | undefined {
  const { memory, cpus, pids } = given;
  const limits: Limits = {};
  if (memory !== undefined) {
    const found = /^(\d{1,15})([KMGT]?)(iB|B)?$/i.exec(memory);
    if (!found || BigInt(found[1]!) === 0n)
      throw new PodError(
        'usage',
        `${JSON.stringify(memory)} is no amount of memory`,
        'for example 512M or 2G',
      );
    limits.memory = BigInt(found[1]!) << units[found[2]!.toUpperCase() as keyof typeof units];
  }
  if (cpus !== undefined) {
    if (!(cpus >= 0.01 && cpus <= 10_000))
      throw new PodError('usage', '--cpus wants a number from 0.01 on', 'for example 1.5');
    limits.milliCpus = Math.round(cpus * 1000);
  }
  if (pids !== undefined) {
    if (!Number.isInteger(pids) || pids < 1 || pids > 4_194_304)
      throw new PodError('usage', '--pids wants a whole number from 1 on', 'for example 200');
    limits.pids = pids;
  }
  return Object.keys(limits).length > 0 ? limits : undefined;
}
