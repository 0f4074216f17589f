/** Results as a table: a row a program, a column a machine or a pair of them. */
import type { Result } from './matrix.ts';

const column = ({ step, from, on }: Result) =>
  step === 'restart' ? `${from}→${on}` : step === 'dump' ? `dump ${on}` : `in ${on}`;

/** Of a test file that passed, what it skipped is no pass. */
const cell = ({ step, status, story }: Result) => {
  if (status !== 0) return String(status);
  const skipped = step === 'tests' ? story.split('\n').filter(Boolean).length : 0;
  return skipped === 0 ? 'ok' : `ok, ${skipped} skipped`;
};

export function formatTable(results: readonly Result[]): string {
  const columns = [...new Set(results.map(column))];
  const rows = [
    ...new Set(results.map(({ program, as }) => (as === 'nobody' ? `${program} (user)` : program))),
  ];
  const lines = [
    ['', ...columns],
    ...rows.map((row) => [
      row,
      ...columns.map((name) => {
        const found = results.find(
          (each) =>
            column(each) === name && (each.as === 'nobody' ? `${each.program} (user)` : each.program) === row,
        );
        return found ? cell(found) : '-';
      }),
    ]),
  ];
  const widths = lines[0]!.map((_, index) => Math.max(...lines.map((line) => line[index]!.length)));
  return lines
    .map((line) =>
      line
        .map((text, index) => text.padEnd(widths[index]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
