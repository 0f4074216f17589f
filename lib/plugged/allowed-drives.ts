/** Which sessions a user of this computer lets go on by themselves: a file of his (schemas/allowed-drives.json). */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import type { AllowedDrives } from '../../schemas/generated/types.ts';
import { validators } from '../../schemas/generated/validators.js';
import { PodError } from '../stream/error.ts';

export type AllowedSession = AllowedDrives['sessions'][number];

/** /etc/podstream/drives.json for root, else $XDG_CONFIG_HOME/podstream/drives.json. */
export function usualList(): string {
  if (process.getuid!() === 0) return '/etc/podstream/drives.json';
  return join(process.env['XDG_CONFIG_HOME'] || join(homedir(), '.config'), 'podstream/drives.json');
}

/** What is allowed; nothing where there is no file. Throws `other` when it cannot be read. */
export function readAllowed(path: string): AllowedSession[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw cause;
  }
  const document = parse(text);
  if (validators['allowed-drives'](document)) return (document as unknown as AllowedDrives).sessions;
  const first = validators['allowed-drives'].errors?.[0];
  throw new PodError(
    'other',
    `${path} is no list of allowed sessions: ${first?.instancePath ?? ''} ${first?.message ?? 'not JSON'}`,
    'mend it, or remove it and allow them anew',
  );
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Put the list in place whole, readable for its owner: it says where keys lie. */
export function writeAllowed(path: string, sessions: readonly AllowedSession[]): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, `${JSON.stringify({ sessions }, undefined, 2)}\n`, { mode: 0o600 });
  renameSync(draft, path);
}

/** The same session: a drive has one of a folder. */
export const isSame = (one: AllowedSession, other: AllowedSession) =>
  one.uuid === other.uuid && one.folder === other.folder;
