/** What a guest is told to do with the module, and what it tells: the two sides speak in these. */

/** One thing to try; each has one outcome. */
export type Part =
  /** Wrong requests, early close, killed readers. */
  | { part: 'device' }
  /** The same session by both engines. */
  | { part: 'streams' }
  /** A self-checking program, dumped by the module, killed, restarted by the user engine. */
  | { part: 'cycle'; program: string; mode: 'restart' | 'thrice'; via: 'pod' | 'pid' }
  /** The same, restarted by the module. `dumper`: of all its images. */
  | { part: 'restart'; program: string; dumper: 'user' | 'kmod'; mode: 'restart' | 'thrice' }
  /** node, which lives on an epoll set. */
  | { part: 'node' }
  /** One that holds what the module does not handle: named, nothing written, unharmed. */
  | { part: 'refused'; program: string }
  /** One session through that many generations. */
  | { part: 'rounds'; rounds: number }
  /** Readers killed at random moments. */
  | { part: 'kills'; rounds: number }
  /** Relative time-outs go on with their rest, by the user engine too. */
  | { part: 'rests' }
  /** pod-restart killed at random moments, with the module at work. */
  | { part: 'restart-kills'; rounds: number }
  /** The README's pipeline in a shell, with all filters. `drive`: a disk. */
  | { part: 'pipeline'; drive: string };

export interface KmodJob {
  /** Path of pod.ko, which the guest has where the host has it. */
  module: string;
  parts: readonly Part[];
}

/** What each machine looks at in the end: the module's memory, that it goes and comes, the kernel's log. */
export const lastChecks = ['leaks', 'unload', 'log'] as const;

export const nameOf = (part: Part): string =>
  part.part === 'cycle'
    ? `${part.program}${part.via === 'pod' ? ' in a pod with a console' : ''}`
    : part.part === 'refused'
      ? `refused ${part.program}`
      : part.part === 'restart'
        ? `restart of ${part.program} from ${part.dumper}`
        : part.part === 'rounds' || part.part === 'kills' || part.part === 'restart-kills'
          ? `${part.rounds} ${part.part}`
          : part.part;

export interface KmodOutcome {
  event: 'outcome';
  what: string;
  /** `refused`: by name, as it must be, which is no pass; `lacking`: not tried, as processor or kernel have not what it needs. */
  status: 'ok' | 'refused' | 'lacking' | 'failed';
  /** All that may tell why; of what went well: what was measured. */
  story: string;
  seconds: number;
}

export type KmodEvent =
  | { event: 'up'; release: string }
  | KmodOutcome
  /** Something long goes on. */
  | { event: 'says'; text: string }
  | { event: 'error'; message: string }
  | { event: 'done' };
