/** A filter as a program of its own: pod-filter-NAME. Bundled by scripts/build.mjs with each file of filters/. */
import { fstatSync, writeSync } from 'node:fs';
import { runCommand } from '../cli/main.ts';
import { refuseTerminalInput, refuseTerminalOutput } from '../cli/refuse-terminal.ts';
import { DescriptorSink, pump } from '../stream/descriptor.ts';
import { PodError } from '../stream/error.ts';
import type { Sink } from '../stream/sink.ts';
import type { FilterDefinition } from './define.ts';
import { describe, helpText } from './describe.ts';
import { parseOptions } from './options.ts';
import { undoStage } from './undo.ts';

/** Reading and writing one file would destroy it. */
function refuseSameFile(): void {
  const [input, output] = [fstatSync(0), fstatSync(1)];
  if (input.isFile() && output.isFile() && input.ino === output.ino && input.dev === output.dev) {
    throw new PodError('usage', 'input and output are the same file', 'write to another file');
  }
}

/** Standard input through the stage to standard output, which `observe` may wrap to count what goes by. */
export function runStage(
  make: (output: Sink) => Sink,
  observe: (output: Sink) => Sink = (sink) => sink,
): void {
  refuseTerminalOutput();
  refuseTerminalInput();
  refuseSameFile();
  const output = observe(new DescriptorSink(1));
  let first: Sink;
  try {
    first = make(output);
  } catch (cause) {
    output.abort(cause);
    throw cause;
  }
  pump(0, first);
}

export function runFilter(definition: FilterDefinition): void {
  const command = `pod-filter-${definition.name}`;
  void runCommand(command, () => {
    const tokens = process.argv.slice(2);
    if (tokens.includes('--describe')) {
      writeSync(1, `${JSON.stringify(describe(definition))}\n`);
      return;
    }
    if (tokens.includes('--help') || tokens.includes('-h')) {
      writeSync(1, helpText(describe(definition), command));
      return;
    }
    const own = new Set(['--undo', '--raw']);
    const undo = tokens.includes('--undo');
    const raw = tokens.includes('--raw');
    const { values, rest } = parseOptions(
      definition.name,
      definition.options,
      undo ? 'undo' : 'forward',
      tokens.filter((token) => !own.has(token)),
    );
    if (rest.length > 0) {
      throw new PodError(
        'usage',
        `${command} is one filter, but got ${JSON.stringify(rest[0])}`,
        `several in one process: pod-filter ${definition.name} ${rest[0]} …`,
      );
    }
    // A bare file is recognised by how it starts, so --raw changes nothing when undoing.
    runStage((output) =>
      undo ? undoStage(definition, values, output) : definition.forward(values, output, { raw }),
    );
  });
}
