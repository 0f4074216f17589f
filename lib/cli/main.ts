/** What the commands share: the error funnel's last metre. */
import { writeSync } from 'node:fs';
import type { Options } from 'yargs';
import { PodError } from '../stream/error.ts';
import { printable } from '../stream/printable.ts';
import { Answered, type CommandSpec, type Parsed, parseArguments } from './parse.ts';

/** Most characters of a message: a path may take 4096, and a person reads none of that length. */
const mostText = 1024;

/** `stage: WHAT: …` and the hint, a line each: what they say of a stream may be a stranger's text. */
function linesOf(stage: string, what: string, message: string, hint: string | undefined): string[] {
  const line = (kind: string, text: string) => `${stage}: ${kind}: ${printable(text, mostText)}`;
  return hint ? [line(what, message), line('hint', hint)] : [line(what, message)];
}

/** Print `stage: error: …` and the hint on stderr. */
export function printError(stage: string, cause: unknown): void {
  const error = PodError.from(cause);
  const lines = linesOf(stage, 'error', error.message, error.hint);
  if (process.env['POD_DEBUG']) lines.push(String((error.cause as Error | undefined)?.stack ?? error.stack));
  try {
    writeSync(2, `${lines.join('\n')}\n`);
  } catch {
    // Nobody reads stderr: the exit status still tells.
  }
}

/** Print `stage: warning: …` and the hint on stderr: something the user should know that is no failure. */
export function printWarning(stage: string, message: string, hint?: string): void {
  try {
    writeSync(2, `${linesOf(stage, 'warning', message, hint).join('\n')}\n`);
  } catch {
    // Nobody reads stderr.
  }
}

/** Print `stage: …` on stderr: what a command that runs on has done. */
export function printNote(stage: string, sentence: string): void {
  try {
    writeSync(2, `${stage}: ${printable(sentence, mostText)}\n`);
  } catch {
    // Nobody reads stderr.
  }
}

/** Run a command's body; a failure becomes its message and exit status. The body may return an exit status. */
export async function runCommand(stage: string, body: () => unknown): Promise<void> {
  try {
    const status = await body();
    process.exitCode = typeof status === 'number' ? status : 0;
  } catch (cause) {
    if (cause instanceof Answered) return;
    printError(stage, cause);
    process.exitCode = PodError.from(cause).exitCode;
  }
}

/** A whole command: read the arguments by its spec, run the body on them, turn failure into message and status. */
export async function runSpec<O extends Record<string, Options>>(
  spec: CommandSpec<O>,
  body: (args: Parsed<O>) => unknown,
): Promise<void> {
  await runCommand(spec.name, async () => body(await parseArguments(spec)));
}
