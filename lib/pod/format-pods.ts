/** The table of pod-ps. */
import type { PodSummary } from './list.ts';

/** Lines of aligned columns, a heading first; the command comes last, so it may be long. */
export function formatPods(pods: readonly PodSummary[]): string {
  const rows = [
    ['NAME', 'INIT', 'MAIN', 'STATE', 'PROCS', 'MEMORY', 'AGE', 'COMMAND'],
    ...pods.map((pod) => [
      pod.name,
      String(pod.init),
      String(pod.main),
      pod.state,
      String(pod.processes),
      formatBytes(pod.memory),
      formatAge(pod.age),
      pod.command.length > 0 ? printable(pod.command.join(' ')) : '(restarted)',
    ]),
  ];
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, column) => cell.padEnd(widths[column]!))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}

/** Arguments may hold anything; a listing must not move the cursor. */
function printable(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}

/** 1536 → `1.5K`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'K', 'M', 'G', 'T'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 10 || unit === 0 ? Math.round(value) : value.toFixed(1)}${units[unit]}`;
}

/** Seconds → `42s`, `3m`, `5h`, `2d`. */
export function formatAge(seconds: number): string {
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}
