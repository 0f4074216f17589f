import { resolve } from 'node:path';
import { printWarning, runSpec } from '../lib/cli/main.ts';
import { optimizeLate } from '../lib/cli/optimize-late.ts';
import { usageError } from '../lib/cli/parse.ts';
import { print } from '../lib/cli/print.ts';
import { Progress, progressSink } from '../lib/cli/progress.ts';
import { refuseTerminalOutput } from '../lib/cli/refuse-terminal.ts';
import { packageVersion } from '../lib/cli/version.ts';
import { type ConnectionFate, connectionFates } from '../lib/engine/engine.ts';
import { dumpSession, explainSession, findSession } from '../lib/session/dump-session.ts';
import { formatExplanation } from '../lib/session/format-explanation.ts';
import { DescriptorSink } from '../lib/stream/descriptor.ts';
import { exitCodes } from '../lib/stream/error.ts';
import { widenPipe } from '../lib/stream/pipe-size.ts';
import { explainOpenPipe } from '../lib/stream/pipe-writers.ts';

const name = 'pod-dump';

void runSpec(
  {
    name,
    summary: 'write the image of a running session to standard output',
    description: `Stops a session, writes its image as a stream to standard output, and lets it go on. POD is a pod's name, or the
pid of the topmost process of any session; its children go along.

With --suspend the session is ended instead, but only when pod-store has made the image durable; when that fails,
whatever the reason, the session goes on and the exit status is not zero. Killing pod-dump never harms a session.

Files are found by path where the session goes on, and are not in the image, but for those that --with-files names:
their contents are of the same moment as the memory, and pod-restart lays them under the same path, where it
overwrites nothing. PATH is seen as the session sees it.

With --explain nothing is written: every object that cannot go is named, a line each, with its process, descriptor, path
and what to do, and so is everything that would be lost. The exit status is 0 when the session could go, else 11.`,
    positionals: [{ name: 'POD', describe: "a pod's name, or a pid" }],
    options: {
      suspend: { type: 'boolean', alias: 's', describe: 'end the session once its image is stored' },
      // biome-ignore lint/suspicious/noThenProperty: the option's name; nothing awaits this table
      then: {
        type: 'string',
        choices: ['run', 'kill'],
        describe: 'what becomes of the session once the image is written (default: run)',
      },
      tcp: {
        type: 'string',
        choices: connectionFates,
        default: 'reset',
        describe:
          'TCP connections to outside: reset, as if by their peers; keep: they go on where the session goes on, when its address moves along (pod-run --net own)',
      },
      'with-files': {
        type: 'string',
        array: true,
        describe: 'a folder or file of the session whose contents go along (may be given several times)',
      },
      engine: {
        type: 'string',
        choices: ['user', 'kmod'],
        describe:
          'who makes the image: user (the default), or kmod, the kernel module by /dev/pod, which handles less and refuses the rest',
      },
      'receipt-timeout': {
        type: 'number',
        describe:
          'with --suspend: seconds to wait for a store to show up (default 20), and for more to reach it while it waits for the rest (default 60)',
      },
      'progress-fd': { type: 'number', describe: 'descriptor for progress as JSON lines' },
      explain: {
        type: 'boolean',
        describe: 'write no image; name all that cannot go, and all that would be lost',
      },
      json: { type: 'boolean', describe: 'the explanation as JSON' },
    },
    examples: [
      [
        'pod-dump quake | pod-filter compress | pod-store /media/stick/quake',
        'store an image; the session goes on',
      ],
      [
        'pod-dump --suspend quake | pod-filter encrypt -R key.pub | pod-store /media/stick/quake',
        'take the session along',
      ],
      [
        'pod-dump job --with-files /work/job | ssh other pod-restart -d',
        'a job and the folder it works in, to another computer',
      ],
      ['pod-dump 4711 > image', 'a session that was not started by pod-run'],
      ['pod-dump --explain quake', 'see first whether it can go'],
    ],
  },
  async ({
    positionals: [pod],
    suspend,
    then,
    tcp,
    'with-files': withFiles,
    engine,
    'receipt-timeout': timeout,
    'progress-fd': fd,
    ...args
  }) => {
    if (timeout !== undefined && !(timeout >= 0))
      throw usageError(name, '--receipt-timeout wants a number of seconds');
    if (tcp === 'keep' && !suspend && then !== 'kill')
      throw usageError(
        name,
        '--tcp keep wants --suspend or --then kill',
        'a connection can go on only in one place',
      );
    if (suspend && then) throw usageError(name, '--suspend and --then exclude each other');
    if (args.explain && (suspend || then))
      throw usageError(name, '--explain leaves the session as it is: it goes without --suspend and --then');
    if (args.json && !args.explain) throw usageError(name, '--json is for --explain');
    optimizeLate();
    if (args.explain) {
      const explanation = explainSession(findSession(pod!), engine as 'user' | 'kmod' | undefined);
      const json = () => JSON.stringify({ pod, ...explanation }, undefined, 2);
      print(args.json ? `${json()}\n` : formatExplanation(pod!, explanation));
      return explanation.obstacles.length === 0 ? exitCodes.done : exitCodes['cannot-checkpoint'];
    }
    refuseTerminalOutput();
    const found = findSession(pod!);
    let progress: Progress | undefined;
    const output = new DescriptorSink(1);
    widenPipe(1);
    // Progress knows its total only when the session was looked at, which is before the first byte.
    const sink = progressSink(output, {
      add: (bytes) => progress?.add(bytes),
      finish: (state) => progress?.finish(state),
    });
    await dumpSession(
      found,
      {
        producer: `podstream/${packageVersion()}`,
        withFiles: (withFiles ?? []).map((path) => resolve(path)),
        fate: suspend ? 'suspend' : then === 'kill' ? 'kill' : 'run',
        tcp: tcp as ConnectionFate,
        receipt: {
          ...(timeout === undefined ? {} : { firstSignMs: timeout * 1000, silenceMs: timeout * 1000 }),
          explainSilence: explainOpenPipe(1),
        },
        onReady: (total) => {
          progress = new Progress(name, { total, fd });
        },
        onLoss: (sentence) => printWarning(name, sentence),
        engine: engine as 'user' | 'kmod' | undefined,
        direct: { descriptor: 1, add: (bytes) => progress?.add(bytes) },
      },
      sink,
    );
    return exitCodes.done;
  },
);
