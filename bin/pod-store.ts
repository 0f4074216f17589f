import { printWarning, runSpec } from '../lib/cli/main.ts';
import { usageError } from '../lib/cli/parse.ts';
import { Progress, parseBytes, progressSink } from '../lib/cli/progress.ts';
import { refuseTerminalInput } from '../lib/cli/refuse-terminal.ts';
import { packageVersion } from '../lib/cli/version.ts';
import { defaultKeep, storeSink } from '../lib/drive/index.ts';
import { pump } from '../lib/stream/descriptor.ts';
import { widenPipe } from '../lib/stream/pipe-size.ts';

const name = 'pod-store';

void runSpec(
  {
    name,
    summary: 'keep the stream on standard input as a new generation on a drive',
    description:
      'Keeps the stream on standard input as a new generation in DIR, the folder of one pod on a portable drive. It becomes the current one only when all of the stream has come, was checked and is durable; until then, and whenever anything fails, the generation before it stays the current one.',
    positionals: [{ name: 'DIR', describe: 'folder of the pod on the drive, made when missing' }],
    options: {
      keep: {
        type: 'number',
        default: defaultKeep,
        describe: 'generations to keep, the new one included',
      },
      'segment-size': {
        type: 'string',
        default: '2G',
        describe: 'most bytes of a file (FAT32 takes no more than 4G)',
      },
      'progress-fd': { type: 'number', describe: 'descriptor for progress as JSON lines' },
    },
    examples: [
      [
        'pod-dump quake | pod-filter compress encrypt -R key.pub | pod-store /media/stick/quake',
        'store the session quake, compressed and encrypted',
      ],
      ['pod-store --keep 5 /media/stick/quake < image', 'store an image from a file and keep five'],
    ],
  },
  ({ positionals: [folder], keep, 'segment-size': size, 'progress-fd': fd }) => {
    refuseTerminalInput();
    const segmentSize = parseBytes(size);
    if (segmentSize === undefined)
      throw usageError(name, `--segment-size ${size} is no size`, 'as in 512M, 2G');
    const progress = new Progress(name, { fd });
    const sink = storeSink(folder!, {
      keep,
      segmentSize,
      producer: `podstream/${packageVersion()}`,
      warn: (message, hint) => printWarning(name, message, hint),
    });
    widenPipe(0);
    pump(0, progressSink(sink, progress));
  },
);
