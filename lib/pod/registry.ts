/**
 * The registry: pods/NAME.json in the runtime directory, one a live pod.
 *
 * An entry is written before the session's first instruction and removed by the pod's pid 1 at its end. pid 1 can
 * be killed, so an entry counts only while the process it names, told by pid and start time, is alive; what is
 * stale is removed by whoever sees it first. Names are taken by pod-init (native/pod-init/setup.c), under the same
 * lock on the folder.
 */
import { closeSync, openSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { native } from '../../native/index.ts';
import type { PodEntry } from '../../schemas/generated/types.ts';
import { checkRecord } from '../image/record.ts';
import { runtimeDirectory } from '../runtime/runtime-dir.ts';
import { PodError } from '../stream/error.ts';
import { isAlive, pidNamespace, readStat } from './proc.ts';

export type { PodEntry };

const namePattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;

/** Whether this can be the name of a pod. */
export function isName(name: string): boolean {
  return namePattern.test(name);
}

/** Throw `usage` when this cannot be the name of a pod. */
export function checkName(name: string): void {
  if (isName(name)) return;
  throw new PodError(
    'usage',
    `${JSON.stringify(name)} cannot name a pod`,
    'use up to 64 letters, digits, dots, dashes and underscores, a letter or digit first',
  );
}

/** Where a pod's socket is. */
export function socketPath(name: string): string {
  return join(runtimeDirectory('pods'), `${name}.sock`);
}

const entryPath = (name: string) => join(runtimeDirectory('pods'), `${name}.json`);

/** Put an entry into the registry, in one step. */
export function writeEntry(entry: PodEntry): void {
  const path = entryPath(entry.name);
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, `${JSON.stringify(entry)}\n`, { mode: 0o600 });
  renameSync(draft, path);
}

/** The live pod of this name; undefined when there is none. Removes a stale entry. */
export function findPod(name: string): PodEntry | undefined {
  const entry = readEntry(name);
  if (!entry) return undefined;
  if (isAlive(entry.init, entry.initStart)) return entry;
  sweep(name);
  return undefined;
}

/** All live pods, by name. Removes what dead ones left. */
export function listPods(): PodEntry[] {
  const files = readdirSync(runtimeDirectory('pods'));
  sweepDrafts(files);
  return files
    .filter((file) => file.endsWith('.json') && namePattern.test(file.slice(0, -5)))
    .sort()
    .flatMap((file) => findPod(file.slice(0, -5)) ?? []);
}

/**
 * The pod a user means: its name, or the host pid of any of its processes (a name of digits is looked up as a
 * name first). Throws when there is none.
 */
export function resolvePod(nameOrPid: string | number): PodEntry {
  const text = String(nameOrPid);
  checkName(text);
  const found = findPod(text) ?? (/^[1-9]\d*$/.test(text) ? podOfProcess(Number(text)) : undefined);
  if (found) return found;
  throw new PodError('other', `no pod is named ${text}`, 'pod-ps lists the pods that run');
}

/** The pod that holds a process, by the process's host pid; undefined when it is in none. */
export function podOfProcess(pid: number): PodEntry | undefined {
  const space = pidNamespace(pid);
  if (space === undefined) return undefined;
  return listPods().find((entry) => pidNamespace(entry.init) === space);
}

/** Remove the files of a pod that is gone. A pod that took the name meanwhile is left alone. */
export function sweep(name: string): void {
  withLock(() => {
    const entry = readEntry(name);
    // No entry: a pod of this name may just be starting.
    if (!entry || isAlive(entry.init, entry.initStart)) return;
    rmSync(socketPath(name), { force: true });
    rmSync(entryPath(name), { force: true });
  });
}

/** Who was killed while it wrote an entry left its draft, NAME.json.PID. */
function sweepDrafts(files: readonly string[]): void {
  for (const file of files) {
    const writer = /\.json\.(\d+)$/.exec(file)?.[1];
    if (writer !== undefined && readStat(Number(writer)) === undefined)
      rmSync(join(runtimeDirectory('pods'), file), { force: true });
  }
}

function readEntry(name: string): PodEntry | undefined {
  const path = entryPath(name);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw cause;
  }
  let entry: unknown;
  try {
    entry = JSON.parse(text);
  } catch (cause) {
    throw new PodError('damaged', `${path} is not JSON`, 'remove it', { cause });
  }
  checkRecord('pod-registry', entry, path);
  return entry as PodEntry;
}

const lockExclusively = 2;
const flockNumber = 73;

function withLock(body: () => void): void {
  const fd = openSync(runtimeDirectory('pods'), 'r');
  try {
    native().syscall(flockNumber, fd, lockExclusively);
    body();
  } finally {
    closeSync(fd);
  }
}
