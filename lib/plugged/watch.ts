/**
 * The daemon (docs/pod-drive.md). udev's rule leaves an empty file for each file system that is here; whatever is
 * allowed from it is resumed, once for each time it comes. All that can fail (mounting, resuming) fails for that drive
 * alone, and is said.
 */
import { execFile, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmdirSync,
  rmSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { packageRoot } from '../../native/package-root.ts';
import { tryLock } from '../runtime/lock.ts';
import { PodError } from '../stream/error.ts';
import { type AllowedSession, readAllowed } from './allowed-drives.ts';
import { deviceOf, linkedFileSystems, mountedAt } from './file-systems.ts';

/** Where udev/90-podstream.rules leaves its files. */
export const usualFolder = '/run/podstream-plugged';

export interface WatchOptions {
  /** The list of what is allowed; read anew for each drive. */
  list: string;
  /** Folder of the files that say what is here. */
  folder: string;
  /** Below which root mounts what nobody else has. */
  mounts: string;
  /** How long a user waits for somebody to mount a drive, ms. */
  patience: number;
  say(sentence: string): void;
}

const run = promisify(execFile);
const isRoot = process.getuid!() === 0;
const pause = 500;

export class DriveWatch {
  readonly #options: WatchOptions;
  /** Drives that are here, and when all that comes of each is done. */
  readonly #here = new Map<string, Promise<void>>();
  /** Mount points of our making. */
  readonly #mounted = new Map<string, string>();

  constructor(options: WatchOptions) {
    this.#options = options;
  }

  /** Watch until the signal comes; sessions that were resumed go on. */
  async watch(signal: AbortSignal): Promise<void> {
    const { folder } = this.#options;
    makeFolder(folder);
    const lock = openSync(isRoot ? folder : `${this.#options.list}.lock`, isRoot ? 'r' : 'a', 0o600);
    if (!tryLock(lock, 'exclusive')) throw new PodError('other', 'another pod-drive watches already');
    if (isRoot) noteThoseHere(folder);
    const events = watch(folder, { signal }, () => this.#look());
    events.on('error', () => undefined);
    this.#look();
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    events.close();
    await Promise.all(this.#here.values());
  }

  #look(): void {
    const found = new Set(readdirSync(this.#options.folder));
    for (const uuid of [...this.#here.keys()]) {
      if (found.has(uuid)) continue;
      const before = this.#here.get(uuid)!;
      this.#here.delete(uuid);
      void before.then(() => this.#gone(uuid));
    }
    for (const uuid of found) {
      if (this.#here.has(uuid)) continue;
      this.#here.set(
        uuid,
        this.#come(uuid).catch((cause: unknown) =>
          this.#options.say(`${uuid}: ${PodError.from(cause).message}`),
        ),
      );
    }
  }

  async #come(uuid: string): Promise<void> {
    const allowed = readAllowed(this.#options.list).filter((each) => each.uuid === uuid);
    if (allowed.length === 0) return;
    const at = await this.#mount(uuid);
    for (const session of allowed) {
      this.#options.say(`${uuid} is here: resuming ${session.folder}`);
      const problem = await resume(session, at);
      this.#options.say(`${session.folder}: ${problem ?? 'it goes on'}`);
    }
  }

  async #mount(uuid: string): Promise<string> {
    for (const end = Date.now() + this.#options.patience; ; await sleep(pause)) {
      const device = deviceOf(uuid);
      const at = device && mountedAt(device);
      if (at !== undefined) return at;
      if (device !== undefined && isRoot) return this.#mountOurselves(uuid, device);
      if (Date.now() > end)
        throw new PodError('drive', device ? 'nobody has mounted it' : 'it has no device here');
    }
  }

  async #mountOurselves(uuid: string, device: string): Promise<string> {
    const at = join(this.#options.mounts, uuid);
    mkdirSync(at, { recursive: true, mode: 0o755 });
    await run('mount', ['-o', 'nosuid,nodev,noatime', device, at], { env: administrator() });
    this.#mounted.set(uuid, at);
    return at;
  }

  async #gone(uuid: string): Promise<void> {
    const at = this.#mounted.get(uuid);
    if (at === undefined) return;
    this.#mounted.delete(uuid);
    // Lazily: a session that was left behind may still hold it.
    await run('umount', ['--lazy', at], { env: administrator() }).catch(() => undefined);
    try {
      rmdirSync(at);
    } catch {
      // Somebody has put something there: it stays.
    }
  }
}

/** udev's rule writes there only when it exists. */
function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o755 });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EACCES') throw cause;
    throw new PodError(
      'other',
      `there is no ${folder}, in which udev says what is plugged in`,
      'root must make it after each boot, say by tmpfiles.d(5), and install udev/90-podstream.rules',
    );
  }
}

/** Drives that were here before the folder was: the rule has said nothing of them. */
function noteThoseHere(folder: string): void {
  for (const uuid of linkedFileSystems()) {
    const path = join(folder, uuid);
    if (existsSync(path)) continue;
    writeFileSync(path, '');
    // It has gone meanwhile, and the rule's removal may have come before: udev takes the link away first.
    if (!linkedFileSystems().includes(uuid)) rmSync(path, { force: true });
  }
}

const administrator = () => ({ ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` });

/** Resume one session from a drive that is mounted at `at`. What it said when that failed. */
async function resume(session: AllowedSession, at: string): Promise<string | undefined> {
  const { folder, root, identity = [], passphrase, user } = session;
  const words = [process.execPath, join(packageRoot(), 'dist/bin/pod'), 'resume', '-d', join(at, folder)];
  for (const path of identity) words.push('-i', path);
  if (passphrase !== undefined) words.push('-p', passphrase);
  // With a key an image that anybody could have written is not taken.
  if (identity.length > 0 || passphrase !== undefined) words.push('--only-encrypted');
  if (root !== undefined) words.push('--root', join(at, root));
  const { prefix, env } =
    user === undefined || !isRoot ? { prefix: [], env: process.env } : await asUser(user);
  const [program, ...args] = [...prefix, ...words];
  const child = spawn(program!, args, { stdio: ['ignore', 'ignore', 'pipe'], env, cwd: '/', detached: true });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said = `${said}${text}`.slice(-8192)));
  const status = await new Promise<number | string>((resolve) => {
    child.on('close', (code, signal) => resolve(code ?? signal ?? 'gone'));
    child.on('error', (error) => resolve(error.message));
    // The pod may keep the descriptor.
    child.on('exit', (code, signal) => setTimeout(() => resolve(code ?? signal ?? 'gone'), pause).unref());
  });
  child.stderr.destroy();
  if (status === 0) return undefined;
  return said.trim() || `pod resume ended with ${status}`;
}

/** How root runs something as somebody else: setpriv(1), and the environment of a login. */
async function asUser(user: string): Promise<{ prefix: string[]; env: NodeJS.ProcessEnv }> {
  const { stdout } = await run('getent', ['passwd', user]);
  const [name, , uid, gid, , home] = stdout.trim().split(':');
  if (!uid || !gid) throw new PodError('other', `there is no user ${user}`);
  return {
    prefix: ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--init-groups', '--'],
    env: {
      PATH: process.env['PATH'],
      HOME: home,
      USER: name,
      LOGNAME: name,
      // Where the user's own pod-ps looks, once he is logged in.
      ...(existsSync(`/run/user/${uid}`) ? { XDG_RUNTIME_DIR: `/run/user/${uid}` } : {}),
    },
  };
}
