/** What a guest is told to do with the module, and what it tells. */
import type { ProgramJob } from '../kernels/job.ts';

export interface KmodJob {
  /** Path of pod.ko, which the guest has where the host has it. */
  module: string;
  /** Dumped by the module, killed, restarted by the user engine. */
  handled: readonly ProgramJob[];
  /** Refused by name, and unharmed. */
  refused: readonly ProgramJob[];
}

export type KmodEvent =
  | { event: 'up'; release: string }
  | { event: 'outcome'; what: string; report: string; seconds: number }
  | { event: 'error'; message: string }
  | { event: 'done' };

/** Outcomes besides those of the programs. */
export const checks = ['device', 'streams', 'unload', 'log'] as const;
