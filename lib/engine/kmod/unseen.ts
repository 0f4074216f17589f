/**
 * What no module can see of a session, and a dump would lose: structures that are the kernel's own. Looked at when
 * the module has stopped the session, before the first byte is written.
 */

import { readMounts } from '../../runtime/mount-list.ts';
import { PodError } from '../../stream/error.ts';
import type { DumpOptions, DumpTarget } from '../engine.ts';
import { changedMounts, hostMounts } from '../user/places/changed-mounts.ts';
import { describeProcess, listChildren } from '../user/proc.ts';
import { readAutogroup } from '../user/scheduling.ts';

const hint = 'use --engine user';
const refuse = (what: string): never => {
  throw new PodError('cannot-checkpoint', `${what}, which the module does not handle yet`, hint);
};

/** Before the module is asked at all. */
export function refuseTarget(
  { name, rooted, net, init, roots }: DumpTarget,
  options: Partial<DumpOptions>,
): void {
  if (rooted) refuse(`${name} has a root directory of its own`);
  if (net !== undefined && net !== 'host') refuse(`${name} has a network of its own`);
  if (init === undefined && roots.length !== 1) refuse(`${name} is several trees of processes`);
  if (options.withFiles && options.withFiles.length > 0) refuse('files shall go along (--with-files)');
  if (options.tcp === 'keep') refuse('connections shall be kept (--tcp keep)');
}

/** The session stands. */
export function refuseUnseen(target: DumpTarget): void {
  if (target.mounts && target.init !== undefined) refuseMounts(target.init, target.mounts, target.confined);
  for (const pid of processesOf(target)) {
    if (readAutogroup(pid) !== undefined)
      refuse(`${describeProcess(pid)} has a priority for its session as a group (autogroup)`);
  }
}

function refuseMounts(
  init: number,
  { before, root }: NonNullable<DumpTarget['mounts']>,
  confined: boolean | undefined,
): void {
  const { made, changed, gone } = changedMounts(readMounts(init), before, hostMounts(root));
  // pid 1 of a confined pod covers parts of /proc after its mounts were listed, and nobody else can.
  const places = [...made, ...changed]
    .map(({ where }) => where)
    .filter((where) => !confined || !/^\/proc(\/|$)/.test(where));
  const [place] = [...places, ...gone];
  if (place !== undefined) refuse(`the session has mounted, changed or unmounted ${place}`);
}

function processesOf({ init, roots }: DumpTarget): number[] {
  const found: number[] = init === undefined ? [...roots] : listChildren(init);
  for (let index = 0; index < found.length; index++) found.push(...listChildren(found[index]!));
  return found;
}
