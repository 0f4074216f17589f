/**
 * The one error funnel. Every failure that a user can meet is a PodError with a stable name; commands turn
 * the name into the exit status and print `message` and `hint` (see lib/cli). Messages: lower case, one line,
 * no full stop.
 */

/** Exit status of every command and filter, by failure. 32 and above belong to filters. */
export const exitCodes = {
  done: 0,
  other: 1,
  usage: 2,
  version: 3,
  foreign: 4,
  truncated: 5,
  damaged: 6,
  'wrong-key': 7,
  'unknown-critical': 8,
  limit: 9,
  upstream: 10,
  'cannot-checkpoint': 11,
  'cannot-restart': 12,
  drive: 13,
} as const;

export type Failure = keyof typeof exitCodes;

/** The failure that an exit status, or the code of an ERROR frame, means. */
export function failureOf(status: number | null): Failure {
  const [found] = Object.entries(exitCodes).find(([, code]) => code === status) ?? [];
  return found === undefined || found === 'done' ? 'other' : (found as Failure);
}

export class PodError extends Error {
  readonly failure: Failure;
  readonly hint: string | undefined;
  /** Exit status; differs from the failure's own only for a filter's private codes (32 and above). */
  readonly exitCode: number;

  constructor(
    failure: Failure,
    message: string,
    hint?: string,
    options: { cause?: unknown; exitCode?: number } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'PodError';
    this.failure = failure;
    this.hint = hint;
    this.exitCode = options.exitCode ?? exitCodes[failure];
  }

  /** Any thrown value as a PodError; what is not one already is `other`. */
  static from(cause: unknown): PodError {
    if (cause instanceof PodError) return cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    return new PodError('other', message.split('\n', 1)[0] ?? 'unknown error', undefined, { cause });
  }
}

/** What an ERROR frame says. */
export interface ErrorOrigin {
  stage: string;
  code: number;
  message: string;
  hint: string;
}

/** A failure that an earlier stage reported by an ERROR frame; passed on as that stage's, not as one's own. */
export class UpstreamError extends PodError {
  readonly origin: ErrorOrigin;

  constructor(origin: ErrorOrigin) {
    super('upstream', `upstream failed: ${origin.stage}: ${origin.message}`, origin.hint || undefined);
    this.origin = origin;
  }
}
