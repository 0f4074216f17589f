import { writeSync } from 'node:fs';
import { basename } from 'node:path';
import { isatty } from 'node:tty';
import { printWarning, runSpec } from '../lib/cli/main.ts';
import { usageError } from '../lib/cli/parse.ts';
import { attachPod } from '../lib/pod/attach.ts';
import { removeGroups } from '../lib/pod/cgroups.ts';
import { checkMachine, formatFindings } from '../lib/pod/check-machine.ts';
import { preparePod } from '../lib/pod/create.ts';
import { limitOptions, readLimits } from '../lib/pod/limits.ts';
import { type PodNetwork, podNetworks } from '../lib/pod/network.ts';
import { reportEnd } from '../lib/pod/report-end.ts';
import { windowSize } from '../lib/pod/terminal.ts';

void runSpec(
  {
    name: 'pod-run',
    summary: 'start a session in a pod',
    description: `Start a command in a pod: its own process numbers, System V IPC, host name, mounts and console.

In the foreground, pod-run sits at the console: with a terminal like a login (detach with ctrl-p ctrl-q), otherwise
it relays input and output as they are. Its exit status is the session's: the main process's, or 128 + signal; 127
when there is no such command, 126 when it cannot be run. The session goes on when pod-run goes away.`,
    positionals: [
      { name: 'COMMAND', describe: 'the program to run', required: false },
      { name: 'ARGUMENT', describe: 'its arguments', required: false, rest: true },
    ],
    passThrough: true,
    options: {
      name: { type: 'string', alias: 'n', describe: "the pod's name (default: the command's)" },
      root: { type: 'string', describe: "folder that is the session's /" },
      detach: { type: 'boolean', alias: 'd', describe: 'return once the command runs' },
      interactive: {
        type: 'boolean',
        alias: 'i',
        describe: 'relay input (the default, for those used to -it)',
      },
      tty: { type: 'boolean', alias: 't', describe: 'insist on a terminal' },
      stdin: { type: 'boolean', default: true, describe: 'relay input; --no-stdin leaves it alone' },
      hostname: { type: 'string', describe: "host name inside (default: the machine's)" },
      ...limitOptions,
      confine: {
        type: 'boolean',
        describe: 'without the means to reach out of the pod (default with --root); --no-confine leaves them',
      },
      check: { type: 'boolean', describe: 'say what this machine lets you do, and run nothing' },
      net: {
        type: 'string',
        choices: podNetworks,
        default: 'host',
        describe:
          "host: the machine's network; none: one of its own, with the loopback interface alone; own: one of its own with an address that leads to the machine (root)",
      },
      address: { type: 'string', describe: 'with --net own: its IPv4 address (default: a free one)' },
      cwd: { type: 'string', describe: 'folder to start in, seen from inside' },
    },
    examples: [
      ['pod-run --name life -d -- node examples/life.js', 'a session in the background'],
      ['pod-run --check', 'what works here, and what does not'],
      ['pod-run --name shell -- bash', 'a shell; ctrl-p ctrl-q leaves it running'],
      ['pod-run --name quake --root /media/stick/fs -- quake2', 'a session with a root of its own'],
    ],
  },
  async (args) => {
    const [program, ...rest] = args.positionals;
    if (args.check) {
      if (program !== undefined) throw usageError('pod-run', '--check runs no command');
      const findings = await checkMachine();
      writeSync(1, formatFindings(findings));
      return findings.some(({ needed, can }) => needed && !can) ? 1 : 0;
    }
    if (program === undefined) throw usageError('pod-run', 'COMMAND is missing: the program to run');
    const terminal = isatty(0) && isatty(1);
    if (args.tty && !args.detach && !terminal) {
      throw usageError(
        'pod-run',
        'the input is not a terminal',
        'leave -t out to relay input and output as they are',
      );
    }
    const name =
      args.name ??
      basename(program)
        .replace(/^[^A-Za-z0-9]+|[^A-Za-z0-9_.-]/g, '')
        .slice(0, 64);
    const { root, hostname, cwd } = args;
    const limits = readLimits(args);
    if (args.confine && root === undefined && process.geteuid!() === 0) {
      throw usageError(
        'pod-run',
        "--confine wants --root: on the host's files user id 0 owns the machine",
        'give the session a root of its own, or start it as an ordinary user',
      );
    }
    const pod = await preparePod({
      name,
      command: [program, ...rest],
      ...(root === undefined ? {} : { root }),
      ...(hostname === undefined ? {} : { hostname }),
      ...(cwd === undefined ? {} : { cwd }),
      ...((terminal && windowSize(0)) || {}),
      plain: !args.detach && !terminal,
      ...(limits ? { limits } : {}),
      confine: args.confine ?? root !== undefined,
      net: args.net as PodNetwork,
      ...(args.address === undefined ? {} : { address: args.address }),
      warn: (sentence) => printWarning('pod-run', sentence),
    });
    if (args.detach) {
      await pod.start();
      return 0;
    }
    // Attached before anything runs: the first byte of output is ours too.
    const attachment = await attachPod(pod.entry, {
      input: terminal ? 'terminal' : args.stdin ? 'stream' : 'none',
      replay: true,
      wait: true,
      signals: terminal ? 'detach' : 'forward',
    }).catch(async (cause) => {
      await pod.destroy();
      throw cause;
    });
    try {
      await pod.start();
    } catch (cause) {
      await attachment.end.catch(() => {});
      throw cause;
    }
    const end = await attachment.end;
    await removeGroups(pod.entry.groups ?? []);
    return reportEnd('pod-run', name, end);
  },
);
