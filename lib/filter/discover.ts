/**
 * Filters that are programs: executables `pod-filter-NAME` in the folders of $POD_FILTER_PATH, then the package's
 * own, then $PATH. Only absolute folders count: an empty or relative entry would mean the current directory, and
 * what lies there may be anybody's.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, readdirSync, statSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { packageRoot } from '../../native/package-root.ts';
import { type FilterDescription, readDescription } from './describe.ts';
import { filterNamePattern } from './options.ts';

export type Source = 'POD_FILTER_PATH' | 'package' | 'PATH';

export interface Program {
  name: string;
  path: string;
  source: Source;
}

/** What `pod-filter --list` shows of one program. */
export interface Listed extends Program {
  description?: FilterDescription;
  /** Why it does not run. */
  broken?: string;
  /** Path of the program of the same name that runs in its place. */
  shadowedBy?: string;
}

const prefix = 'pod-filter-';

/** A description has to come in 500 ms; a busy machine alone does not make a filter unusable. */
export const describeLimit = 500;
const patience = 5000;

function folders(): { folder: string; source: Source }[] {
  const split = (source: 'POD_FILTER_PATH' | 'PATH') =>
    (process.env[source] ?? '')
      .split(':')
      .filter(isAbsolute)
      .map((folder) => ({ folder, source }));
  const own = { folder: join(packageRoot(), 'dist/filters'), source: 'package' as const };
  const seen = new Set<string>();
  return [...split('POD_FILTER_PATH'), own, ...split('PATH')].filter(
    ({ folder }) => !seen.has(folder) && seen.add(folder),
  );
}

/** Why a path is no program; undefined when it is one. */
function notExecutable(path: string): string | undefined {
  try {
    if (!statSync(path).isFile()) return 'it is not a file';
    accessSync(path, constants.X_OK);
    return undefined;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === 'EACCES' ? 'it is not executable' : 'it cannot be read';
  }
}

/** The program that runs for a name. `sources` limits where to look. */
export function locate(name: string, sources?: readonly Source[]): Program | undefined {
  if (!filterNamePattern.test(name)) return undefined;
  for (const { folder, source } of folders()) {
    if (sources && !sources.includes(source)) continue;
    const path = join(folder, prefix + name);
    if (notExecutable(path) === undefined) return { name, path, source };
  }
  return undefined;
}

/** Ask a program for its description; a string says why there is none. */
export function describeProgram(program: Pick<Program, 'name' | 'path'>): FilterDescription | string {
  const result = spawnSync(program.path, ['--describe'], {
    stdio: ['ignore', 'pipe', 'ignore'],
    timeout: patience,
    killSignal: 'SIGKILL',
    maxBuffer: 64 << 10,
  });
  const code = (result.error as NodeJS.ErrnoException | undefined)?.code;
  if (code === 'ETIMEDOUT') return `--describe took more than ${patience} ms`;
  if (code === 'ENOBUFS') return '--describe wrote more than 64 KiB';
  if (code) return `it cannot be started: ${code}`;
  if (result.status !== 0) return `--describe ended with ${result.status ?? result.signal}`;
  const description = readDescription(result.stdout.toString('utf8'));
  if (typeof description !== 'string' && description.name !== program.name) {
    return `it describes itself as ${description.name}`;
  }
  return description;
}

/** All programs on the search path, in the order they are found, each with what is wrong with it. */
export function listPrograms(): Listed[] {
  const winners = new Map<string, string>();
  const found: Listed[] = [];
  for (const { folder, source } of folders()) {
    let entries: string[];
    try {
      entries = readdirSync(folder).sort();
    } catch {
      continue;
    }
    for (const entry of entries) {
      if (!entry.startsWith(prefix)) continue;
      const name = entry.slice(prefix.length);
      const program: Listed = { name, path: join(folder, entry), source };
      found.push(program);
      const broken = filterNamePattern.test(name)
        ? notExecutable(program.path)
        : 'its name is not a filter name';
      const winner = winners.get(name);
      if (broken) {
        program.broken = broken;
      } else if (winner) {
        program.shadowedBy = winner;
      } else {
        winners.set(name, program.path);
        const description = describeProgram(program);
        if (typeof description === 'string') program.broken = description;
        else program.description = description;
      }
    }
  }
  return found;
}
