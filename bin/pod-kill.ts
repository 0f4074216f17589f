import { printError, runSpec } from '../lib/cli/main.ts';
import { killPod, signalNumber, signalPod } from '../lib/pod/kill.ts';
import { resolvePod } from '../lib/pod/registry.ts';
import { PodError } from '../lib/stream/error.ts';

void runSpec(
  {
    name: 'pod-kill',
    summary: 'end pods, or signal their sessions',
    description: `Without -s: end each pod at once, with all its processes, and wait until they are gone.

With -s SIGNAL: send it to the process group of the session's main process (-s KILL too).`,
    positionals: [
      { name: 'POD', describe: 'name of a pod, or host pid of one of its processes', rest: true },
    ],
    options: {
      signal: { type: 'string', alias: 's', describe: 'signal, by name or number' },
    },
    examples: [
      ['pod-kill life', 'end it'],
      ['pod-kill -s TERM life quake', 'ask two sessions to end'],
    ],
  },
  async (args) => {
    const signal = args.signal === undefined ? undefined : signalNumber(args.signal);
    let status = 0;
    for (const name of args.positionals) {
      try {
        const entry = resolvePod(name);
        if (signal === undefined) await killPod(entry);
        else await signalPod(entry, signal);
      } catch (cause) {
        // The others are still to be done.
        printError('pod-kill', cause);
        status ||= PodError.from(cause).exitCode;
      }
    }
    return status;
  },
);
