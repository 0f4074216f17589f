import { printWarning, runSpec } from '../lib/cli/main.ts';
import { usageError } from '../lib/cli/parse.ts';
import { Progress, progressSink } from '../lib/cli/progress.ts';
import { refuseTerminalOutput } from '../lib/cli/refuse-terminal.ts';
import { formatGenerations, reportStatus } from '../lib/drive/generation-table.ts';
import { listGenerations, loadInto, verifyGenerations } from '../lib/drive/index.ts';
import { DescriptorSink } from '../lib/stream/descriptor.ts';
import { widenPipe } from '../lib/stream/pipe-size.ts';

const name = 'pod-load';

void runSpec(
  {
    name,
    summary: 'write a stored image to standard output',
    description:
      'Writes the current generation of the pod in DIR to standard output. Digests are checked on the way: a damaged image ends before its last bytes, so that nobody downstream takes it for whole.',
    positionals: [{ name: 'DIR', describe: 'folder of the pod on the drive' }],
    options: {
      generation: { alias: 'g', type: 'number', describe: 'number of the generation, as --list shows it' },
      list: { alias: 'l', type: 'boolean', conflicts: ['verify'], describe: 'list the generations' },
      verify: {
        type: 'boolean',
        describe: 'read all generations (or the one given) and check every byte; exit 6 when one is damaged',
      },
      json: { type: 'boolean', describe: 'with --list or --verify: JSON' },
      'progress-fd': { type: 'number', describe: 'descriptor for progress as JSON lines' },
    },
    examples: [
      ['pod-load /media/stick/quake | pod-restart -i key', 'go on with the session quake'],
      ['pod-load --list /media/stick/quake', 'show what is stored'],
      ['pod-load --generation 6 /media/stick/quake > image', 'an older generation, into a file'],
      ['pod-load --verify /media/stick/quake', 'check the drive before a journey'],
    ],
  },
  ({ positionals: [folder], generation, list, verify, json, 'progress-fd': fd }) => {
    if (generation !== undefined && !(Number.isSafeInteger(generation) && generation > 0))
      throw usageError(name, '--generation wants a number, 1 or more');
    if (json && !list && !verify) throw usageError(name, '--json goes with --list or --verify');
    if (list || verify) {
      const progress = new Progress(name, { fd });
      const reports = list
        ? listGenerations(folder!).filter(
            (each) => generation === undefined || each.generation === generation,
          )
        : verifyGenerations(folder!, { generation, moved: (bytes) => progress.add(bytes) });
      progress.finish();
      const output = new DescriptorSink(1);
      output.write(Buffer.from(json ? `${JSON.stringify(reports)}\n` : formatGenerations(reports)));
      output.end();
      return verify ? reportStatus(reports) : 0;
    }
    refuseTerminalOutput();
    widenPipe(1);
    const sink = progressSink(new DescriptorSink(1), new Progress(name, { fd }));
    loadInto(folder!, { generation, warn: (message, hint) => printWarning(name, message, hint) }, sink);
    return 0;
  },
);
