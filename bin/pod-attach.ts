import { isatty } from 'node:tty';
import { runSpec } from '../lib/cli/main.ts';
import { attachPod, printSnapshot } from '../lib/pod/attach.ts';
import { resolvePod } from '../lib/pod/registry.ts';
import { reportEnd } from '../lib/pod/report-end.ts';

void runSpec(
  {
    name: 'pod-attach',
    summary: "sit at a pod's console",
    description: `Show a pod's console, what it showed lately first, and relay the keyboard to it. ctrl-p ctrl-q detaches;
the session goes on, as it does when pod-attach is killed. Exit status: the session's when it ends, 0 when detached.

Several may be attached at a time. One that is slow loses the oldest output; it never holds the session.`,
    positionals: [{ name: 'POD', describe: 'name of a pod, or host pid of one of its processes' }],
    options: {
      stdin: { type: 'boolean', default: true, describe: 'relay the keyboard; --no-stdin only looks on' },
      snapshot: {
        type: 'boolean',
        alias: 'once',
        describe: 'print what the console showed lately (up to 64 KiB), and leave',
      },
    },
    examples: [
      ['pod-attach life', 'sit at the console'],
      ['pod-attach --snapshot life | tail -n 24', 'the last lines'],
    ],
  },
  async (args) => {
    const entry = resolvePod(args.positionals[0]!);
    if (args.snapshot) {
      await printSnapshot(entry);
      return 0;
    }
    const input = !args.stdin ? 'none' : isatty(0) && isatty(1) ? 'terminal' : 'stream';
    const attachment = await attachPod(entry, { input, replay: true, wait: false });
    return reportEnd('pod-attach', entry.name, await attachment.end);
  },
);
