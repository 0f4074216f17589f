/**
 * Making a pod. native/pod-init does the system calls; this side decides, registers the pod and gives the word.
 *
 * The status channel (descriptor 3 of pod-init, a socket pair) speaks in lines. From pod-init: `pid N` (pid 1, as
 * the host numbers it), `network` (it has one of its own and waits for what is in it), `ready` (all is made, nothing runs), `started N` (the command's exec succeeded, or the main
 * process was taken over; N is its pid inside), `error STEP ERRNO`. To pod-init: `made`, then `go`, or `main N`. When the channel
 * closes before `started`, pod-init ends and all that was made inside ends with it: a starter or a restart that is
 * killed leaves nothing behind.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { realpathSync, statSync } from 'node:fs';
import type { Socket } from 'node:net';
import { hostname as hostName } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import { nativeProgram } from '../../native/index.ts';
import { listMounts } from '../runtime/mount-list.ts';
import { runtimeDirectory } from '../runtime/runtime-dir.ts';
import { PodError } from '../stream/error.ts';
import { type Groups, joinGroups, type Limits } from './cgroups.ts';
import { type Clocks, clockOffsets } from './clocks.ts';
import { keptCapabilities } from './confine.ts';
import { killPod } from './kill.ts';
import { checkNetwork, type MadeNetwork, type NetworkOptions, setUpNetwork } from './network.ts';
import { readStat } from './proc.ts';
import { checkName, type PodEntry, socketPath, writeEntry } from './registry.ts';

export interface PodOptions extends NetworkOptions {
  name: string;
  /** Command and arguments; looked up in the environment's PATH, below the session's root. */
  command: readonly string[];
  /** Folder that becomes the session's `/`; without it the session sees the host's files. */
  root?: string;
  /** Where the command starts, seen from inside. Default: the caller's, or `/` with a root. */
  cwd?: string;
  /** Default: the caller's. */
  env?: Readonly<Record<string, string | undefined>>;
  /** Default: the machine's. */
  hostname?: string;
  domainname?: string;
  /** Size of the console. Default 24 x 80. */
  rows?: number;
  columns?: number;
  /** The N of the console's /dev/pts/N, below 512. Default 0. */
  console?: number;
  /** Where its monotonic and boot clocks go on from. Default: the caller's. Needs hasTimeNamespaces(). */
  clocks?: Clocks;
  /** The console does not echo and translates nothing: for a session whose input and output are not a person's. */
  plain?: boolean;
  /** Without the means to reach out of the pod; see docs/pods.md. Default: not. */
  confine?: boolean;
  /** Of the whole session, by control groups. */
  limits?: Limits;
  /** Told when the limits can't be had, and the pod is made without; without this it is not made. */
  withoutLimits?: (cause: PodError) => void;
}

export interface Pod {
  readonly entry: PodEntry;
}

/** A pod without a session: namespaces, mounts, console and socket are there. */
export interface PreparedPod {
  /** Not yet the final one: `main` is 0, `held` is true. */
  readonly entry: PodEntry;
  /** Host pid of its pid 1. */
  readonly initPid: number;
  /** The console's path inside. */
  readonly consolePath: string;
  /** Run the command. Resolves when its exec has succeeded; throws exit 127 / 126 when it did not. */
  start(): Promise<Pod>;
  /** Name the main process (pid inside) of a session that was made in here by other means. */
  adopt(mainPid: number): Promise<Pod>;
  /** Packets may come, when they were held back. */
  letIn(): void;
  /** End it, and whatever was made inside. */
  destroy(): Promise<void>;
}

/** Start a session. Resolves when the command runs (its exec has succeeded). */
export async function createPod(options: PodOptions): Promise<Pod> {
  return (await preparePod(options)).start();
}

/**
 * A pod for a restart: pid 1 sits in its poll loop, reaps nothing, and waits for adopt(). Its descriptors are 0 to 25
 * (docs/pods.md); others may be made in it at 64 and above, and must be closed before adopt(). It ends by itself
 * when this process does.
 */
export function holdPod(options: Omit<PodOptions, 'command' | 'cwd' | 'env'>): Promise<PreparedPod> {
  return preparePod({ ...options, command: [], env: {} });
}

/** Make everything but the session. */
export async function preparePod(options: PodOptions): Promise<PreparedPod> {
  checkName(options.name);
  // An image that can't be had here is not our user's mistake.
  const failure = options.command.length === 0 ? 'cannot-restart' : 'other';
  checkNetwork(options, failure);
  const root = options.root === undefined ? undefined : resolveRoot(options.root);
  const cwd = options.cwd ?? (root === undefined ? process.cwd() : '/');
  const hostname = options.hostname ?? hostName();
  const channel = new StatusChannel(
    spawn(nativeProgram('pod-init'), initArguments(options, { root, cwd, hostname }), {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
      env: (options.env ?? process.env) as NodeJS.ProcessEnv,
      cwd: '/',
      detached: true,
    }),
    options,
  );
  const initPid = await channel.expect('pid');
  let network: MadeNetwork | undefined;
  if (hasOwnNetwork(options)) {
    await channel.expect('network');
    try {
      network = setUpNetwork(initPid, options, failure);
    } catch (cause) {
      channel.close();
      throw cause;
    }
    channel.send('made\n');
  }
  await channel.expect('ready');
  const stat = readStat(initPid);
  if (!stat) throw new PodError('other', `pod ${options.name} ended while it was made`);
  let groups: Groups | undefined;
  try {
    const { limits } = options;
    if (limits) groups = orWithout(options, () => joinGroups(limits, options.name, initPid));
  } catch (cause) {
    // pid 1 ends when nobody is there to give it the word.
    channel.close();
    throw cause;
  }
  const entry: PodEntry = {
    version: 1,
    name: options.name,
    init: initPid,
    initStart: stat.start,
    main: 0,
    command: [...options.command],
    created: new Date().toISOString(),
    root: root ?? null,
    cwd,
    hostname,
    socket: socketPath(options.name),
    held: true,
    ...(hasOwnNetwork(options) ? { net: options.net! } : {}),
    ...(network?.address === undefined ? {} : { address: network.address }),
    ...(options.confine ? { confined: true } : {}),
    mounts: listMounts(initPid),
    ...(groups ? { groups: groups.folders, limits: limitsEntry(options.limits!) } : {}),
  };
  writeEntry(entry);

  const settle = async (word: string, main: number): Promise<Pod> => {
    const settled = { ...entry, main, held: false };
    // Before the word: afterwards the session may end at any moment, and pid 1 removes the entry that is there.
    writeEntry(settled);
    try {
      if (groups) orWithout(options, groups.set);
      channel.send(word);
      await channel.expect('started');
    } catch (cause) {
      await killPod(entry);
      throw cause;
    }
    channel.close();
    return { entry: settled };
  };
  return {
    entry,
    initPid,
    consolePath: `/dev/pts/${options.console ?? 0}`,
    // pid 1's first child.
    start: () => settle('go\n', 2),
    adopt: (mainPid) => settle(`main ${mainPid}\n`, mainPid),
    letIn: () => network?.letIn(),
    destroy: async () => {
      network?.cut();
      await killPod(entry);
      channel.close();
    },
  };
}

const hasOwnNetwork = ({ net = 'host' }: PodOptions): boolean => net !== 'host';

/** A step on the way to limits; undefined when it fails and the pod may do without. */
function orWithout<T>({ withoutLimits }: PodOptions, step: () => T): T | undefined {
  try {
    return step();
  } catch (cause) {
    if (!withoutLimits) throw cause;
    withoutLimits(PodError.from(cause));
    return undefined;
  }
}

/** JSON has no integers of 64 bits. */
function limitsEntry({ memory, ...others }: Limits): NonNullable<PodEntry['limits']> {
  return { ...others, ...(memory === undefined ? {} : { memory: String(memory) }) };
}

function resolveRoot(path: string): string {
  let root: string;
  try {
    root = realpathSync(path);
  } catch (cause) {
    throw new PodError('usage', `cannot use ${path} as the root: ${(cause as Error).message}`, undefined, {
      cause,
    });
  }
  if (!statSync(root).isDirectory()) throw new PodError('usage', `${path} is not a directory`);
  if (root === '/') throw new PodError('usage', "the root is the host's own", 'leave --root out');
  return root;
}

function initArguments(
  options: PodOptions,
  { root, cwd, hostname }: { root: string | undefined; cwd: string; hostname: string },
): string[] {
  const given: (readonly [string, string | undefined])[] = [
    ['--folder', runtimeDirectory('pods')],
    ['--name', options.name],
    ['--root', root],
    ['--cwd', cwd],
    ['--hostname', hostname],
    ['--domainname', options.domainname],
    ['--clocks', options.clocks === undefined ? undefined : clockOffsets(options.clocks)],
    ['--console', options.console === undefined ? undefined : String(options.console)],
    ['--size', `${options.rows ?? 24}x${options.columns ?? 80}`],
  ];
  const list = given.flatMap(([flag, value]) => (value === undefined ? [] : [flag, value]));
  if (process.geteuid!() !== 0) list.push('--user');
  if (options.confine) list.push('--confine', String(keptCapabilities));
  if (hasOwnNetwork(options)) list.push('--own-net');
  if (options.plain) list.push('--plain');
  if (options.command.length > 0) list.push('--', ...options.command);
  return list;
}

/** The creator's end of the status channel. */
class StatusChannel {
  readonly #socket: Socket;
  readonly #options: PodOptions;
  #text = '';
  #ended = false;
  #failure: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(child: ChildProcess, options: PodOptions) {
    this.#options = options;
    this.#socket = child.stdio[3] as Socket;
    child.on('error', (cause) => {
      this.#failure = cause;
      this.#end();
    });
    child.unref();
    this.#socket?.on('data', (chunk: Buffer) => {
      this.#text += chunk.toString('utf8');
      this.#wake?.();
    });
    this.#socket?.on('error', () => this.#end());
    this.#socket?.on('end', () => this.#end());
  }

  #end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  send(word: string): void {
    this.#socket.write(word);
  }

  close(): void {
    this.#socket.destroy();
  }

  /** The number behind `word` (0 for none), whatever came before it stays. */
  async expect(word: string): Promise<number> {
    for (;;) {
      const lines = this.#text.split('\n').slice(0, -1);
      const failed = lines.find((line) => line.startsWith('error '));
      if (failed) {
        this.close();
        throw explain(failed, this.#options);
      }
      const found = lines.find((line) => line.split(' ', 1)[0] === word);
      if (found) return Number(found.split(' ')[1] ?? 0);
      if (this.#failure) {
        throw new PodError(
          'other',
          `cannot run pod-init: ${this.#failure.message}`,
          'npm run build makes it',
          {
            cause: this.#failure,
          },
        );
      }
      if (this.#ended) throw new PodError('other', `pod-init of ${this.#options.name} ended without a word`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

const namespaceHint =
  'this machine gives ordinary users no namespaces: as root, sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000 (on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0), or run as root';

/** `error STEP ERRNO` as a message for people. */
function explain(line: string, options: PodOptions): PodError {
  const [, step, code] = /^error (.*) (\d+)$/.exec(line) ?? ['', line, '0'];
  const [name, text] = getSystemErrorMap().get(-Number(code)) ?? ['', `error ${code}`];
  const program = options.command[0];
  switch (step) {
    case 'taken':
      return new PodError(
        'other',
        `a pod named ${options.name} runs already`,
        `pod-attach ${options.name} shows it, pod-kill ${options.name} ends it`,
      );
    case 'exec':
      return new PodError(
        'other',
        `cannot run ${program}: ${text}`,
        name === 'ENOENT'
          ? `is it on the PATH${options.root === undefined ? '' : ', inside the root'}`
          : undefined,
        { exitCode: name === 'ENOENT' ? 127 : 126 },
      );
    case 'cwd':
      return new PodError(
        'other',
        `cannot start in ${options.cwd ?? process.cwd()}: ${text}`,
        'choose another with --cwd',
        {
          exitCode: 126,
        },
      );
    case '/proc/self/timens_offsets':
      return new PodError(
        'cannot-restart',
        `the session's clocks cannot go on here: ${text}`,
        'the image gives impossible times',
      );
    case 'main':
      return new PodError('other', 'the main process is not in the pod');
    case 'unshare':
    case '/proc/self/uid_map':
    case '/proc/self/gid_map':
      return new PodError('other', `cannot make namespaces: ${text}`, namespaceHint);
    case 'mkdir /proc':
    case 'mkdir /dev':
      return new PodError(
        'other',
        `cannot make ${options.root}${step.slice(6)}: ${text}`,
        'a root needs the folders proc and dev',
      );
    default:
      return new PodError('other', `cannot make the pod: ${step}: ${text}`);
  }
}
