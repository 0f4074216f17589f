import { closeSync, openSync, statSync } from 'node:fs';
import { builtIn } from '../filters/built-in/index.ts';
import { printWarning, runSpec } from '../lib/cli/main.ts';
import { refuseTerminalInput } from '../lib/cli/refuse-terminal.ts';
import { loadInto } from '../lib/drive/index.ts';
import { inspectStream } from '../lib/filter/inspect-stream.ts';
import { secretOptions, secretsFrom } from '../lib/filter/secrets.ts';
import { formatInspection, plainInspection } from '../lib/image/format-inspection.ts';
import { DescriptorSink, pump } from '../lib/stream/descriptor.ts';
import { PodError } from '../lib/stream/error.ts';
import type { Sink } from '../lib/stream/sink.ts';

const name = 'pod-inspect';

/** Push the whole of `from` (undefined: standard input) into a sink. */
function feed(from: string | undefined, sink: Sink): void {
  if (from === undefined) {
    refuseTerminalInput();
    pump(0, sink);
    return;
  }
  const status = statSync(from, { throwIfNoEntry: false });
  if (!status)
    throw new PodError('usage', `there is no ${from}`, 'give a file with a stream, or a folder on a drive');
  if (status.isDirectory()) {
    loadInto(from, { warn: (message) => printWarning(name, message) }, sink);
  } else {
    const fd = openSync(from, 'r');
    try {
      pump(fd, sink);
    } finally {
      closeSync(fd);
    }
  }
}

void runSpec(
  {
    name,
    summary: 'show what is in a stream or in a stored image',
    description: `Shows an image: where it comes from, its layers, process tree, memory map, files, and the sizes of its
records by kind. Nothing of it is run or made. Of an encrypted stream it shows what is in the clear; with its key,
all.

FROM is a file, or the folder of a pod on a drive; without it the stream is read from standard input. In the memory
map the columns are address, access, size, and how much of it is in the stream.`,
    positionals: [
      { name: 'FROM', describe: 'file with a stream, or folder of a pod on a drive', required: false },
    ],
    options: {
      json: { type: 'boolean', describe: 'JSON; addresses are hexadecimal strings, sizes bytes' },
      verify: {
        type: 'boolean',
        describe:
          'check also that the records fit together, as restart does; fails when the inside cannot be seen',
      },
      ...secretOptions,
      allow: { type: 'string', array: true, describe: 'filter program that may run to undo its layer' },
    },
    examples: [
      ['pod-inspect /media/stick/quake', 'what is on the stick'],
      ['pod-load /media/stick/quake | pod-inspect -i key', 'the same, decrypted'],
      ['pod-inspect --verify -i key /media/stick/quake', 'would it be restarted; exit 0 or why not'],
      ["pod-inspect --json image | jq '.image.processes[].comm'", 'for scripts'],
    ],
  },
  (args) => {
    const inspection = inspectStream((sink) => feed(args.positionals[0], sink), {
      builtIn,
      secrets: secretsFrom(args),
      allow: args.allow ?? [],
      verify: args.verify ?? false,
    });
    const output = new DescriptorSink(1);
    const text = args.json
      ? `${JSON.stringify(plainInspection(inspection), undefined, 2)}\n`
      : formatInspection(inspection);
    output.write(Buffer.from(text));
    output.end();
  },
);
