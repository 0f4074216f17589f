/** What a guest is told to do, and what it tells: the two sides of a test machine speak in these. */

export interface ProgramJob {
  name: string;
  as: 'root' | 'nobody';
}

/** What must be refused by name (exit 11) on a kernel that cannot tell it: never lost in silence. */
export const mustRefuse = (program: string, kernel: string) => program === 'rseq-own' && kernel === '5.10';

/** A disk of the guest, and where it belongs: a session's files must be at the same path on every machine. */
export interface Mount {
  device: string;
  path: string;
}

export type Job =
  /** Start each program, dump it onto the disk, end it. */
  | { kind: 'dump'; mount: Mount; programs: readonly ProgramJob[] }
  /** Restart what another machine left on each disk, and let it judge itself. */
  | { kind: 'restart'; sources: readonly { from: string; mount: Mount; programs: readonly ProgramJob[] }[] }
  /** All of it on one machine: test/tools/cycle.ts, with its files on the disk. */
  | { kind: 'cycle'; kernel: string; mount: Mount; programs: readonly ProgramJob[] };

/**
 * One program is through, with one step. `status` is that of the command that decided: 0, or pod-dump's or
 * pod-restart's, or `program` when all commands went well and the program itself complains.
 */
export interface Outcome {
  event: 'outcome';
  step: Job['kind'];
  from?: string;
  program: string;
  as: ProgramJob['as'];
  status: number | string;
  /** All that may tell why; empty when all went well. */
  story: string;
  seconds: number;
}

export type GuestEvent =
  | { event: 'up'; release: string }
  | Outcome
  | { event: 'error'; message: string }
  | { event: 'done' };

/** Where everything of one program lies, below the place of the kernel it was dumped on. */
export const sessionFolder = (mount: Mount, { name, as }: ProgramJob) => `${mount.path}/${name}-${as}`;
