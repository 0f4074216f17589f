/** What `pod-filter --list` prints. */
import type { FilterDefinition } from './define.ts';
import { describe, type FilterDescription } from './describe.ts';
import { listPrograms, type Source } from './discover.ts';

export interface Row {
  name: string;
  class: FilterDescription['class'] | undefined;
  version: string | undefined;
  summary: string | undefined;
  source: Source | 'built in';
  /** Empty for a built-in one. */
  path: string;
  state: 'ok' | 'broken' | 'shadowed';
  /** Why it is broken, or what stands in its place. */
  reason: string | undefined;
}

/** All filters: built-in ones and every program on the search path. */
export function listFilters(builtIn: readonly FilterDefinition[]): Row[] {
  const names = new Set(builtIn.map(({ name }) => name));
  // The package's own programs are the built-in filters again.
  const programs = listPrograms().filter(({ name, source }) => !(source === 'package' && names.has(name)));
  const rows = programs.map((program): Row => {
    const { name, source, path, description, broken } = program;
    const hidden = source === 'PATH' && names.has(name) ? 'the built-in filter' : program.shadowedBy;
    return {
      name,
      class: description?.class,
      version: description?.version,
      summary: description?.summary,
      source,
      path,
      state: broken ? 'broken' : hidden ? 'shadowed' : 'ok',
      reason: broken ?? (hidden && `${hidden} runs in its place`),
    };
  });
  const preferred = programs.filter(({ source, broken }) => source === 'POD_FILTER_PATH' && !broken);
  const own = builtIn.map((definition): Row => {
    const { name, version, summary } = describe(definition);
    const winner = preferred.find((program) => program.name === name);
    return {
      name,
      class: definition.class,
      version,
      summary,
      source: 'built in',
      path: '',
      state: winner ? 'shadowed' : 'ok',
      reason: winner && `${winner.path} runs in its place`,
    };
  });
  return [...own, ...rows];
}

// A stranger's text goes to a terminal: printable only.
const clean = (text: string): string => text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?');

export function formatFilters(rows: readonly Row[]): string {
  const lines = rows.map((row) => [
    row.name,
    row.class ?? '-',
    row.version ?? '-',
    row.state,
    row.state === 'ok'
      ? `${row.summary ?? ''}${row.path ? ` (${row.path})` : ''}`
      : `${row.path || 'built in'}: ${row.reason}`,
  ]);
  const table = [['NAME', 'CLASS', 'VERSION', 'STATE', ''], ...lines].map((line) => line.map(clean));
  const widths = [0, 1, 2, 3].map((column) => Math.max(...table.map((line) => line[column]!.length)));
  return `${table
    .map((line) => line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  '))
    .map((line) => line.trimEnd())
    .join('\n')}\n`;
}
