/**
 * The self-checking programs of test/programs: what they are, and how they are compiled. Compiled on demand into
 * build/programs, again only when the source or the shared header is newer.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { cpuFlags } from '../../lib/engine/user/preflight.ts';
import { packageRoot } from '../../native/package-root.ts';

/** One program, as its source describes itself. */
export interface Program {
  name: string;
  source: string;
  /** More compiler flags: `Build:` in the head comment. */
  flags: string[];
  /** `As: root`: an ordinary user cannot set it up. */
  rootOnly: boolean;
  /** `Via: pod`: only makes sense inside a pod. */
  podOnly: boolean;
  /** `Restart: kmod`: only the module restores it whole. */
  needsModule: boolean;
  /** Why the program can't work here: `Needs: FLAG`, of /proc/cpuinfo, or `Since: VERSION`, of the kernel. */
  lacking: string | undefined;
  /** Names of the damages that --break can do. */
  breaks: string[];
}

const folder = () => join(packageRoot(), 'test/programs');

/** Read what a program's source says of itself. */
export function readProgram(name: string): Program {
  const source = join(folder(), `${name}.c`);
  const text = readFileSync(source, 'utf8');
  const head = text.slice(0, text.indexOf('*/'));
  const included = [...text.matchAll(/^#include "(.+)"$/gm)].map((match) => join(folder(), match[1]!));
  const whole = [text, ...included.map((path) => readFileSync(path, 'utf8'))].join('\n');
  const field = (key: string) => new RegExp(`^ \\* ${key}: (.*)$`, 'm').exec(head)?.[1]?.trim();
  return {
    name,
    source,
    flags: field('Build')?.split(/\s+/) ?? [],
    rootOnly: field('As') === 'root',
    podOnly: field('Via') === 'pod',
    needsModule: field('Restart') === 'kmod',
    lacking: lackingFlag(field('Needs')) ?? lackingKernel(field('Since')),
    breaks: [...new Set([...whole.matchAll(/pod_break\("([a-z0-9-]+)"\)/g)].map((match) => match[1]!))],
  };
}

function lackingFlag(flag: string | undefined): string | undefined {
  if (flag === undefined || cpuFlags().includes(flag)) return undefined;
  return `this processor has no ${flag}`;
}

function lackingKernel(since: string | undefined): string | undefined {
  const [major, minor] = release().split('.').map(Number) as [number, number];
  const [wantedMajor, wantedMinor] = (since ?? '0.0').split('.').map(Number) as [number, number];
  if (major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)) return undefined;
  return `this kernel is older than ${since}`;
}

/** All programs, by name. */
export function listPrograms(): Program[] {
  return readdirSync(folder())
    .filter((file) => file.endsWith('.c'))
    .map((file) => readProgram(file.slice(0, -2)))
    .sort((a, b) => a.name.localeCompare(b.name));
}

const headers = () =>
  readdirSync(folder())
    .filter((file) => file.endsWith('.h'))
    .map((file) => join(folder(), file));

/** Compile a program unless it is up to date; the path of the executable. */
export async function buildProgram(program: Program): Promise<string> {
  const target = join(packageRoot(), 'build/programs', program.name);
  const newest = Math.max(...[program.source, ...headers()].map((path) => statSync(path).mtimeMs));
  if (existsSync(target) && statSync(target).mtimeMs >= newest) return target;
  mkdirSync(join(packageRoot(), 'build/programs'), { recursive: true });
  // Tests run in parallel processes: each writes its own file, the last one wins with the same bytes.
  const temporary = `${target}.${process.pid}`;
  const flags = [
    '-std=gnu11',
    '-D_GNU_SOURCE',
    '-Wall',
    '-Wextra',
    '-Werror',
    '-O2',
    '-g',
    '-pthread',
    ...program.flags,
  ];
  await promisify(execFile)(process.env['CC'] ?? 'gcc', [...flags, program.source, '-o', temporary]);
  renameSync(temporary, target);
  return target;
}
