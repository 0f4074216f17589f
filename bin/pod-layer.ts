import { runSpec } from '../lib/cli/main.ts';
import { usageError } from '../lib/cli/parse.ts';
import { defineFilter } from '../lib/filter/define.ts';
import { filterNamePattern } from '../lib/filter/options.ts';
import { ProcessSink } from '../lib/filter/process-sink.ts';
import { runStage } from '../lib/filter/run.ts';
import { undoStage } from '../lib/filter/undo.ts';

const name = 'pod-layer';

void runSpec(
  {
    name,
    summary: 'the framing of a wrap filter, for filters written in shell',
    description:
      'Checks the stream on standard input, sends its bytes through COMMAND and writes what that makes as the layer FILTER. With --undo the other way round: COMMAND gets what is in the layer, and what it makes has to be a whole stream.',
    positionals: [
      { name: 'FILTER', describe: 'name of the wrap filter' },
      {
        name: 'COMMAND',
        describe: 'program from standard input to standard output, and its arguments',
        rest: true,
      },
    ],
    options: {
      'filter-version': { type: 'string', default: '1', describe: 'version of the filter' },
      undo: { type: 'boolean', describe: 'take the layer off' },
    },
    passThrough: true,
    examples: [
      ['pod-layer xz xz -T0 < image > image.layer', 'the layer xz around an image'],
      ['pod-layer --undo xz xz -d < image.layer > image', 'off again'],
    ],
  },
  ({ positionals, undo, 'filter-version': version }) => {
    const [filterName, command, ...rest] = positionals;
    if (!filterNamePattern.test(filterName!)) throw usageError(name, `${filterName} is not a filter's name`);
    if (command === undefined) throw usageError(name, 'COMMAND is missing: program that makes the layer');
    const through = (output: ConstructorParameters<typeof ProcessSink>[3]) =>
      new ProcessSink(command, command, rest, output);
    const filter = defineFilter({
      name: filterName!,
      version,
      class: 'wrap',
      summary: command,
      options: {},
      encode: (_options, output) => ({ params: {}, sink: through(output) }),
      decode: (_params, _options, output) => through(output),
    });
    runStage((output) => (undo ? undoStage(filter, {}, output) : filter.forward({}, output)));
    return 0;
  },
);
