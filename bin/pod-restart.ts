import { closeSync, openSync } from 'node:fs';
import { isatty } from 'node:tty';
import { builtIn } from '../filters/built-in/index.ts';
import { printWarning, runSpec } from '../lib/cli/main.ts';
import { optimizeLate } from '../lib/cli/optimize-late.ts';
import { usageError } from '../lib/cli/parse.ts';
import { print } from '../lib/cli/print.ts';
import { Progress } from '../lib/cli/progress.ts';
import { refuseTerminalInput } from '../lib/cli/refuse-terminal.ts';
import { type ConnectionFate, connectionFates, type Engine } from '../lib/engine/engine.ts';
import { openForRestart } from '../lib/engine/kmod/index.ts';
import { openLayers } from '../lib/filter/open-layers.ts';
import { secretOptions, secretsFrom } from '../lib/filter/secrets.ts';
import { attachPod } from '../lib/pod/attach.ts';
import { limitOptions, readLimits } from '../lib/pod/limits.ts';
import { reportEnd } from '../lib/pod/report-end.ts';
import { formatPlan } from '../lib/session/format-plan.ts';
import { planRestart } from '../lib/session/plan-restart.ts';
import { descriptorSource, restartSession } from '../lib/session/restart-session.ts';
import { widenPipe } from '../lib/stream/pipe-size.ts';

const name = 'pod-restart';

void runSpec(
  {
    name,
    summary: 'restart a session from the stream on standard input',
    description: `Reads a stream, takes off its layers, and makes the session again in a pod of its own: the same processes under
their old pids, with their memory, files and what was in their pipes. They run only when the whole stream has come
and was checked; when anything fails nothing of them is left.

On a terminal pod-restart then sits at the session's console (ctrl-p ctrl-q leaves it running); otherwise, or with
-d, it returns.`,
    options: {
      name: { type: 'string', alias: 'n', describe: "the pod's name (default: the one in the image)" },
      root: { type: 'string', describe: "folder that is the session's /, when it had one of its own" },
      detach: { type: 'boolean', alias: 'd', describe: 'return once the session runs' },
      attach: { type: 'boolean', describe: 'sit at its console, also without a terminal' },
      plan: { type: 'boolean', describe: 'check everything, say what would be made, make nothing' },
      json: { type: 'boolean', describe: 'the plan as JSON' },
      ...limitOptions,
      confine: {
        type: 'boolean',
        describe:
          'without the means to reach out of the pod (default: as the session was); --no-confine gives them back',
      },
      'ignore-cpu': {
        type: 'boolean',
        describe: 'restart on a processor that lacks features the session saw',
      },
      tcp: {
        type: 'string',
        choices: connectionFates,
        default: 'keep',
        describe: 'TCP connections that were dumped with --tcp keep: they go on, or are reset',
      },
      engine: {
        type: 'string',
        choices: ['user', 'kmod'],
        describe:
          'user (the default), or kmod: the kernel module, by /dev/pod, also gives back the processor time that the session has used, which nobody else can',
      },
      ...secretOptions,
      'only-encrypted': {
        type: 'boolean',
        describe: 'refuse an image that was not encrypted, whoever wrote it',
      },
      allow: { type: 'string', array: true, describe: 'filter program that may run to undo its layer' },
      'progress-fd': { type: 'number', describe: 'descriptor for progress as JSON lines' },
    },
    examples: [
      ['pod-load /media/stick/quake | pod-restart -i key', 'go on where the session stopped'],
      ['pod-load /media/stick/quake | pod-restart -i key --plan', 'see first what it would do'],
      ['pod-restart -d --name second < image', 'a second session from an image in a file'],
    ],
  },
  async (args) => {
    if (args.detach && args.attach) throw usageError(name, '--detach and --attach exclude each other');
    refuseTerminalInput();
    optimizeLate();
    widenPipe(0);
    const progress = new Progress(name, { fd: args['progress-fd'] });
    const source = descriptorSource(0);
    const counted = (target: Uint8Array) => {
      const length = source(target);
      progress.add(length);
      return length;
    };
    const engine = args.engine as Engine['name'] | undefined;
    const options = {
      open: openLayersWith(args),
      ignoreCpu: args['ignore-cpu'],
      warn: (sentence: string) => printWarning(name, sentence),
    };
    if (args.plan) {
      if (engine === 'kmod') openForRestart().close();
      const plan = planRestart(counted, { ...options, name: args.name, root: args.root });
      progress.finish();
      print(args.json ? `${JSON.stringify(plan, undefined, 2)}\n` : formatPlan(plan));
      return 0;
    }
    const { entry } = await restartSession(counted, {
      ...options,
      name: args.name,
      root: args.root,
      confine: args.confine,
      tcp: args.tcp as ConnectionFate,
      engine,
      limits: readLimits(args),
    }).catch((cause) => {
      progress.finish('failed');
      throw cause;
    });
    progress.finish();
    const terminal = isatty(1);
    if (args.detach || (!args.attach && !terminal)) return 0;
    const keyboard = openKeyboard();
    const attachment = await attachPod(entry, {
      input: keyboard ? 'terminal' : 'none',
      replay: true,
      wait: true,
      signals: 'detach',
    });
    return reportEnd(name, entry.name, await attachment.end);
  },
);

/** Standard input was the stream; the user's keyboard takes its place. */
function openKeyboard(): boolean {
  closeSync(0);
  try {
    return openSync('/dev/tty', 'r+') === 0;
  } catch {
    return false;
  }
}

function openLayersWith(
  args: Parameters<typeof secretsFrom>[0] & {
    allow?: string[] | undefined;
    'only-encrypted'?: boolean | undefined;
  },
) {
  const secrets = secretsFrom(args);
  return (image: Parameters<typeof openLayers>[0]) =>
    openLayers(image, { builtIn, secrets, allow: args.allow ?? [], onlyEncrypted: args['only-encrypted'] });
}
