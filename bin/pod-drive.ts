import { existsSync, realpathSync } from 'node:fs';
import { relative, resolve } from 'node:path';
import { printNote, runSpec } from '../lib/cli/main.ts';
import { usageError } from '../lib/cli/parse.ts';
import {
  type AllowedSession,
  isSame,
  readAllowed,
  usualList,
  writeAllowed,
} from '../lib/plugged/allowed-drives.ts';
import { fileSystemOf } from '../lib/plugged/file-systems.ts';
import { DriveWatch, usualFolder } from '../lib/plugged/watch.ts';
import { PodError } from '../lib/stream/error.ts';

const name = 'pod-drive';

void runSpec(
  {
    name,
    summary: 'resume sessions when their drive is plugged in',
    description: `pod-drive allow DIR: the session in DIR, a pod's folder on a drive that is mounted now, may go on by itself on
this computer. Give the key it is encrypted to; then an image that is not encrypted is refused.

pod-drive forget DIR: it may not any more. pod-drive list: what may.

pod-drive watch: the daemon. It learns from udev (udev/90-podstream.rules) which file systems are here, mounts those of
which a session is allowed, when it is root and nobody else does, and runs pod resume. Ends with SIGTERM; the sessions
go on.

Restarting an image is running a program: a drive from which nothing is allowed is not even mounted.`,
    positionals: [
      { name: 'allow|forget|list|watch', describe: 'what to do' },
      { name: 'DIR', describe: "allow, forget: a pod's folder on a drive", required: false },
    ],
    options: {
      identity: { alias: 'i', type: 'string', array: true, describe: 'allow: file with an age identity' },
      passphrase: { alias: 'p', type: 'string', describe: 'allow: file with the passphrase' },
      root: {
        type: 'string',
        describe: "allow: folder on the drive that is the session's /, when it had one of its own",
      },
      user: { type: 'string', describe: 'allow: who runs the session, when root watches (default: root)' },
      list: { type: 'string', describe: "file with what is allowed (default: the user's own)" },
      folder: {
        type: 'string',
        describe: `watch: where udev's rule leaves its files (default: ${usualFolder})`,
      },
      mounts: {
        type: 'string',
        describe: 'watch: below which root mounts drives (default: /media/podstream)',
      },
    },
    examples: [
      ['pod-drive allow /media/me/STICK/quake -i ~/key', 'this session may go on here'],
      ['pod-drive watch', 'now plug it in'],
    ],
  },
  async (args) => {
    const [verb, folder] = args.positionals;
    const list = args.list ?? usualList();
    if (verb === 'watch') {
      const stop = new AbortController();
      for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop.abort());
      const watch = new DriveWatch({
        list,
        folder: args.folder ?? usualFolder,
        mounts: args.mounts ?? '/media/podstream',
        patience: 60_000,
        say: (sentence) => printNote(name, sentence),
      });
      await watch.watch(stop.signal);
      return 0;
    }
    if (verb === 'list') {
      for (const each of readAllowed(list)) console.log(describe(each));
      return 0;
    }
    if (verb !== 'allow' && verb !== 'forget')
      throw usageError(name, `${JSON.stringify(verb)} is none of allow, forget, list, watch`);
    if (folder === undefined) throw usageError(name, `${verb} wants DIR`);
    const drive = find(folder);
    const session: AllowedSession = { uuid: drive.uuid, folder: below(drive.at, folder) };
    const others = readAllowed(list).filter((each) => !isSame(each, session));
    if (verb === 'allow') {
      if (args.identity) session.identity = args.identity.map(secret);
      if (args.passphrase !== undefined) session.passphrase = secret(args.passphrase);
      if (args.root !== undefined) session.root = below(drive.at, args.root);
      if (args.user !== undefined) session.user = args.user;
      others.push(session);
    }
    writeAllowed(list, others);
    return 0;
  },
);

function find(folder: string): { uuid: string; at: string } {
  if (!existsSync(folder))
    throw new PodError(
      'drive',
      `there is no ${folder}`,
      'plug the drive in and mount it, then name the folder',
    );
  const drive = fileSystemOf(folder);
  if (drive) return drive;
  throw new PodError(
    'drive',
    `${folder} lies on no file system with a UUID`,
    'is it on the drive, and the drive mounted? an ordinary user needs udev for this',
  );
}

/** A path as it is below the mount point. */
function below(at: string, path: string): string {
  const found = relative(realpathSync(at), realpathSync(path));
  if (found.startsWith('..')) throw usageError(name, `${path} is not on the drive at ${at}`);
  return found || '.';
}

/** The daemon has another working directory. */
function secret(path: string): string {
  if (!existsSync(path)) throw usageError(name, `there is no file ${path}`);
  return resolve(path);
}

function describe({ uuid, folder, root, identity = [], passphrase, user }: AllowedSession): string {
  const keys = [...identity, ...(passphrase === undefined ? [] : [passphrase])];
  return [
    `${uuid} ${folder}`,
    keys.length > 0 ? `with ${keys.join(', ')}` : 'without a key',
    ...(root === undefined ? [] : [`in ${root}`]),
    ...(user === undefined ? [] : [`as ${user}`]),
  ].join(' ');
}
