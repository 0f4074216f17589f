/** What a guest is told to do, and what it tells: the two sides of a test machine speak in these. */

import { isRefused } from '../tools/refused.ts';

export interface ProgramJob {
  name: string;
  as: 'root' | 'nobody';
}

/** What a kernel cannot tell of a program's state: dumps of it must be refused there. */
const untold: Record<string, readonly string[]> = {
  // A restartable sequence of its own: Linux 5.13.
  'rseq-own': ['5.10'],
  // A descriptor table that a thread has for itself: Linux 6.9.
  'split-threads': ['5.10', '6.1'],
};

/** Where an ordinary user may do too little. */
const forbidden: Record<string, readonly string[]> = {
  // To lock more than 64 KiB: Linux 5.16. What locks all that it maps has no room for a dump's calls.
  'memory-attributes': ['5.10'],
};

/** What must be refused by name (exit 11): never lost in silence. */
export const mustRefuse = ({ name, as }: ProgramJob, kernel: string): boolean =>
  isRefused(name, as) ||
  untold[name]?.includes(kernel) === true ||
  (as === 'nobody' && forbidden[name]?.includes(kernel) === true);

/** What a kernel tells nobody of (docs/coverage.md), so that only the module can refuse it. */
const hidden: Record<string, readonly string[]> = { dispatched: ['6.1'] };
export const isHidden = (program: string, kernel: string): boolean =>
  hidden[program]?.includes(kernel) === true;

/** What a kernel cannot make again, of a session dumped on a later one: restarts must be refused there, by name. */
const unmakable: Record<string, { from: readonly string[]; on: readonly string[] }> = {
  // A descriptor of a thread: Linux 6.9. Before, the program has none.
  pidfds: { from: ['6.12'], on: ['5.10', '6.1'] },
};

/** What must be refused by name (exit 12), and leave nothing. */
export const mustRefuseRestart = ({ name }: ProgramJob, from: string, kernel: string): boolean => {
  const pairs = unmakable[name];
  return pairs?.from.includes(from) === true && pairs.on.includes(kernel);
};

/** A disk of the guest, and where it belongs: a session's files must be at the same path on every machine. */
export interface Mount {
  device: string;
  path: string;
}

export type Job =
  /** Start each program, dump it onto the disk, end it. `module`: path of pod.ko, which dumps then. */
  | { kind: 'dump'; kernel: string; mount: Mount; programs: readonly ProgramJob[]; module?: string }
  /** Restart what another machine left on each disk, and let it judge itself. */
  | {
      kind: 'restart';
      kernel: string;
      sources: readonly { from: string; mount: Mount; programs: readonly ProgramJob[] }[];
    }
  /** All of it on one machine: test/tools/cycle.ts, with its files on the disk. */
  | { kind: 'cycle'; kernel: string; mount: Mount; programs: readonly ProgramJob[] }
  /** Tests of the checkout (tap), by their path below test/. */
  | { kind: 'tests'; files: readonly string[] };

/**
 * One program is through, with one step. `status` is that of the command that decided: 0, or pod-dump's or
 * pod-restart's, or `program` when all commands went well and the program itself complains, or `refused` when it
 * was refused as it must be, or `lacking` when processor or kernel have not what the program needs: not tried.
 */
export interface Outcome {
  event: 'outcome';
  step: Job['kind'];
  from?: string;
  program: string;
  as: ProgramJob['as'];
  status: number | string;
  /** All that may tell why; empty when all went well. Of tests: what was skipped. */
  story: string;
  seconds: number;
}

export const isGood = (status: Outcome['status']): boolean =>
  status === 0 || status === 'refused' || status === 'lacking';

export type GuestEvent =
  | { event: 'up'; release: string }
  | Outcome
  /** A long test is not hung. */
  | { event: 'says'; text: string }
  | { event: 'error'; message: string }
  | { event: 'done' };

/** Where everything of one program lies, below the place of the kernel it was dumped on. */
export const sessionFolder = (mount: Mount, { name, as }: ProgramJob) => `${mount.path}/${name}-${as}`;
