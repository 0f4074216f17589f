import { resolve } from 'node:path';
import { isatty } from 'node:tty';
import { builtIn } from '../filters/built-in/index.ts';
import { printWarning, runSpec } from '../lib/cli/main.ts';
import { optimizeLate } from '../lib/cli/optimize-late.ts';
import { usageError } from '../lib/cli/parse.ts';
import { Progress, progressSink } from '../lib/cli/progress.ts';
import { packageVersion } from '../lib/cli/version.ts';
import { type ConnectionFate, connectionFates } from '../lib/engine/engine.ts';
import { secretOptions } from '../lib/filter/secrets.ts';
import { attachPod } from '../lib/pod/attach.ts';
import { reportEnd } from '../lib/pod/report-end.ts';
import { resumeSession } from '../lib/session/resume-session.ts';
import { suspendSession } from '../lib/session/suspend-session.ts';

const name = 'pod';

void runSpec(
  {
    name,
    summary: 'suspend a session onto a drive, or resume it from there',
    description: `pod suspend POD DIR: stops the session, writes its image through filters into DIR, the folder of one pod on a
drive, and ends the session when the image is durable there. When anything fails the session goes on and the exit
status is not zero.

pod resume DIR: makes the session again from the current image in DIR and sits at its console, when this is a
terminal.

Both do in one process what pod-dump, pod-filter, pod-store and pod-load, pod-restart do in a pipe, with the same
stream. Images are compressed, and encrypted when a recipient or a passphrase is given. Filters of your own choice
stand behind --, as for pod-filter.`,
    positionals: [
      { name: 'suspend|resume', describe: 'what to do' },
      {
        name: 'ARGUMENT',
        describe: 'POD DIR [-- FILTER [OPTION…]…] for suspend; DIR for resume',
        rest: true,
      },
    ],
    options: {
      'recipients-file': {
        alias: 'R',
        type: 'string',
        array: true,
        describe: 'suspend: file with recipients (age1…)',
      },
      recipient: {
        alias: 'r',
        type: 'string',
        array: true,
        describe: 'suspend: a recipient, its public key',
      },
      ...secretOptions,
      'with-files': {
        type: 'string',
        array: true,
        describe: 'suspend: a folder or file of the session whose contents go along',
      },
      keep: { type: 'number', describe: 'suspend: generations to keep, the new one included (default 2)' },
      generation: { alias: 'g', type: 'number', describe: 'resume: number of an older generation' },
      name: {
        alias: 'n',
        type: 'string',
        describe: "resume: the pod's name (default: the one in the image)",
      },
      root: {
        type: 'string',
        describe: "resume: folder that is the session's /, when it had one of its own",
      },
      detach: { alias: 'd', type: 'boolean', describe: 'resume: return once the session runs' },
      confine: {
        type: 'boolean',
        describe: 'resume: without the means to reach out of the pod (default: as the session was)',
      },
      tcp: {
        type: 'string',
        choices: connectionFates,
        describe:
          'TCP connections to outside: suspend: reset (default) or keep, when its address moves along (pod-run --net own); resume: keep those that were kept (default) or reset',
      },
      'ignore-cpu': {
        type: 'boolean',
        describe: 'resume: on a processor that lacks features the session saw',
      },
      'only-encrypted': {
        type: 'boolean',
        describe: 'resume: refuse an image that was not encrypted, whoever wrote it',
      },
      allow: {
        type: 'string',
        array: true,
        describe: 'resume: filter program that may run to undo its layer',
      },
      'progress-fd': { type: 'number', describe: 'descriptor for progress as JSON lines' },
    },
    examples: [
      ['pod suspend quake /media/stick/quake -R key.pub', 'take the session along, encrypted'],
      ['pod resume /media/stick/quake -i key', 'and go on elsewhere'],
      [
        'pod suspend quake /media/stick/quake -- upgrade-2.6 compress --level 9',
        'with filters of your choice',
      ],
    ],
  },
  async (args) => {
    optimizeLate();
    const [verb, ...given] = args.positionals;
    const warn = (message: string, hint?: string) => printWarning(name, message, hint);
    if (verb === 'suspend') {
      const [pod, folder, ...chain] = given;
      if (pod === undefined || folder === undefined) throw usageError(name, 'suspend wants POD DIR');
      let progress: Progress | undefined;
      await suspendSession(pod, folder, {
        builtIn,
        chain: chain.length > 0 ? chain : chainFor(args),
        producer: `podstream/${packageVersion()}`,
        tcp: args.tcp as ConnectionFate | undefined,
        ...(args.keep === undefined ? {} : { keep: args.keep }),
        withFiles: (args['with-files'] ?? []).map((path) => resolve(path)),
        warn,
        onReady: (total) => {
          progress = new Progress(name, { total, fd: args['progress-fd'] });
        },
        observe: (sink) =>
          progressSink(sink, {
            add: (bytes) => progress?.add(bytes),
            finish: (state) => progress?.finish(state),
          }),
      });
      return 0;
    }
    if (verb !== 'resume') throw usageError(name, `${JSON.stringify(verb)} is neither suspend nor resume`);
    const [folder, ...more] = given;
    if (folder === undefined || more.length > 0) throw usageError(name, 'resume wants DIR, and only that');
    const progress = new Progress(name, { fd: args['progress-fd'] });
    const { entry } = await resumeSession(folder, {
      builtIn,
      secrets: { identity: args.identity, passphrase: args.passphrase, passphraseFd: args['passphrase-fd'] },
      allow: args.allow ?? [],
      onlyEncrypted: args['only-encrypted'],
      generation: args.generation,
      name: args.name,
      root: args.root,
      ignoreCpu: args['ignore-cpu'],
      confine: args.confine,
      tcp: args.tcp as ConnectionFate | undefined,
      warn,
      moved: (bytes) => progress.add(bytes),
    }).catch((cause) => {
      progress.finish('failed');
      throw cause;
    });
    progress.finish();
    if (args.detach || !isatty(1)) return 0;
    const input = isatty(0) ? 'terminal' : 'none';
    const attachment = await attachPod(entry, { input, replay: true, wait: true, signals: 'detach' });
    return reportEnd(name, entry.name, await attachment.end);
  },
);

/** compress, and encrypt when there is somebody to encrypt to. */
function chainFor(args: {
  'recipients-file'?: string[] | undefined;
  recipient?: string[] | undefined;
  passphrase?: string | undefined;
  'passphrase-fd'?: number | undefined;
}): string[] {
  const keys = [
    ...(args['recipients-file'] ?? []).flatMap((file) => ['--recipients-file', file]),
    ...(args.recipient ?? []).flatMap((key) => ['--recipient', key]),
    ...(args.passphrase === undefined ? [] : ['--passphrase', args.passphrase]),
    ...(args['passphrase-fd'] === undefined ? [] : ['--passphrase-fd', String(args['passphrase-fd'])]),
  ];
  return keys.length > 0 ? ['compress', 'encrypt', ...keys] : ['compress'];
}
