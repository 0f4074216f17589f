/** Generations for a person's eye. */
import { formatBytes } from '../cli/progress.ts';
import { exitCodes } from '../stream/error.ts';
import type { GenerationReport } from './load.ts';

/** A table, newest first, the current one marked with a star; the reason under each damaged one. */
export function formatGenerations(reports: GenerationReport[]): string {
  const rows = [
    ['', 'GENERATION', 'STORED', 'SIZE', 'LAYERS', 'POD', 'STATE', 'IMAGE'],
    ...reports.map((each) => [
      each.current ? '*' : '',
      String(each.generation),
      each.created?.replace(/\.\d+Z$/, 'Z') ?? '-',
      each.bytes === null ? '-' : formatBytes(each.bytes),
      each.layers === null ? '-' : each.layers.join(',') || 'none',
      each.pod === null ? '-' : printable(each.pod),
      each.problem === null ? each.state : `${each.state}: ${printable(each.problem)}`,
      each.imageId ?? '-',
    ]),
  ];
  const widths = rows[0]!.map((_head, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('');
}

/** Exit status of a verification. Leftovers of a store that died are no damage, unless HEAD names them. */
export function reportStatus(reports: GenerationReport[]): number {
  const bad = reports.some(({ state, current }) => state === 'damaged' || (current && state !== 'complete'));
  return bad ? exitCodes.damaged : exitCodes.done;
}

/** What a drive says, for a terminal: no control characters. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?');
}
