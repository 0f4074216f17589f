import { builtIn } from '../filters/built-in/index.ts';
import { runSpec } from '../lib/cli/main.ts';
import { usageError } from '../lib/cli/parse.ts';
import { Progress, progressSink } from '../lib/cli/progress.ts';
import { buildChain, parseChain, resolveFilter } from '../lib/filter/chain.ts';
import { checkFilter, formatReport } from '../lib/filter/check/index.ts';
import { describe, helpText } from '../lib/filter/describe.ts';
import { describeProgram } from '../lib/filter/discover.ts';
import { formatFilters, listFilters } from '../lib/filter/list.ts';
import { openLayers } from '../lib/filter/open-layers.ts';
import { runStage } from '../lib/filter/run.ts';
import { secretOptions, secretsFrom } from '../lib/filter/secrets.ts';
import { WholeStream } from '../lib/filter/whole-stream.ts';
import { DescriptorSink } from '../lib/stream/descriptor.ts';
import { PodError } from '../lib/stream/error.ts';

const name = 'pod-filter';

function print(text: string): void {
  const output = new DescriptorSink(1);
  output.write(Buffer.from(text));
  output.end();
}

/** The description of a filter that the user named. */
function describeNamed(filter: string) {
  const { run } = resolveFilter(filter, builtIn);
  if (!('path' in run)) return describe(run);
  const description = describeProgram(run);
  if (typeof description === 'string')
    throw new PodError('other', `the filter ${filter} is broken: ${description}`);
  return description;
}

void runSpec(
  {
    name,
    summary: 'send a stream through filters',
    description:
      'Reads a stream, sends it through the filters named, in order, and writes what comes out. The options of a filter follow its name; pod-filter NAME --help shows them. Built-in filters run in this process, others are programs pod-filter-NAME in $POD_FILTER_PATH or $PATH.\n\nWith --undo the first NAME is the outermost layer; without names all layers are taken off.',
    positionals: [{ name: 'NAME', describe: 'filter, followed by its options', required: false, rest: true }],
    options: {
      undo: { type: 'boolean', describe: 'take layers off' },
      raw: {
        type: 'boolean',
        describe: "leave out the last filter's framing: a plain zstd or age file; --undo knows such files",
      },
      ...secretOptions,
      allow: {
        type: 'string',
        array: true,
        describe: '--undo without names: a filter of your own that may run',
      },
      list: {
        alias: 'l',
        type: 'boolean',
        describe: 'list all filters, broken and hidden ones with the reason',
      },
      describe: { type: 'boolean', describe: 'print the description of NAME as JSON' },
      check: {
        type: 'boolean',
        describe: 'test whether NAME, run with the options behind it, keeps the protocol',
      },
      json: { type: 'boolean', describe: 'with --list or --check: JSON' },
      'progress-fd': { type: 'number', describe: 'descriptor for progress as JSON lines' },
    },
    passThrough: true,
    examples: [
      [
        'pod-dump quake | pod-filter compress encrypt -R key.pub | pod-store /media/stick/quake',
        'two filters',
      ],
      [
        'pod-load /media/stick/quake | pod-filter --undo encrypt -i key compress',
        'undo them, outermost first',
      ],
      ['pod-load /media/stick/quake | pod-filter --undo -i key', 'undo all layers'],
      ['pod-load /media/stick/plain | pod-filter --raw compress --level 9 > image.zst', 'a file for zstd -d'],
      ['pod-filter --check redact --name HOME', 'test a filter of your own'],
    ],
  },
  async (args) => {
    const { positionals, allow, list, json, check, 'progress-fd': progressFd } = args;
    const tokens = positionals.filter((token) => token !== '--undo' && token !== '--raw');
    const undo = (args.undo ?? false) || positionals.includes('--undo');
    const raw = (args.raw ?? false) || positionals.includes('--raw');
    if (list) {
      const rows = listFilters(builtIn);
      print(json ? `${JSON.stringify(rows)}\n` : formatFilters(rows));
      return 0;
    }
    if (args.describe) {
      if (tokens.length !== 1) throw usageError(name, '--describe wants one NAME');
      print(`${JSON.stringify(describeNamed(tokens[0]!), undefined, 2)}\n`);
      return 0;
    }
    if (check) {
      if (tokens.length === 0) throw usageError(name, '--check wants a NAME');
      const report = await checkFilter(positionals[0]!, positionals.slice(1));
      print(json ? `${JSON.stringify(report)}\n` : formatReport(report));
      return report.passed ? 0 : 1;
    }
    if (tokens.length > 1 && (tokens[1] === '--help' || tokens[1] === '-h')) {
      print(helpText(describeNamed(tokens[0]!), `${name} ${tokens[0]}`));
      return 0;
    }
    const progress = new Progress(name, { fd: progressFd });
    const secrets = secretsFrom(args);
    const given = Object.values(secrets).some((value) => value !== undefined);
    if (tokens.length === 0) {
      if (!undo)
        throw usageError(name, 'no filter is named', `name one: ${name} compress; ${name} --list shows all`);
      runStage(
        // A stream without layers is checked too: END is passed on only when all before it is right.
        (output) => openLayers(new WholeStream(name, output), { builtIn, secrets, allow: allow ?? [] }),
        (output) => progressSink(output, progress),
      );
      return 0;
    }
    if (given || allow) {
      throw usageError(
        name,
        'keys before the first NAME are for --undo without names',
        'give them behind the name of the filter: --undo encrypt -i KEYFILE',
      );
    }
    const direction = undo ? 'undo' : 'forward';
    const links = parseChain(tokens, direction, builtIn);
    runStage(
      (output) => buildChain(links, direction, output, { raw: raw && !undo }),
      (output) => progressSink(output, progress),
    );
    return 0;
  },
);
