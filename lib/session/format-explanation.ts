import type { Explanation } from '../engine/engine.ts';
import { printable } from '../stream/printable.ts';

/** Longer than any sentence but one with a hostile path in it. */
const mostText = 4096;

/** The explanation for a person, a line for each thing. */
export function formatExplanation(pod: string, { obstacles, losses }: Explanation): string {
  const lines = [
    ...obstacles.map(({ message, hint }) => `cannot go: ${message}${hint === null ? '' : ` (${hint})`}`),
    ...losses.map((loss) => `will be lost: ${loss}`),
    obstacles.length === 0 ? `${pod} can be dumped` : `${pod} cannot be dumped`,
  ];
  return `${lines.map((line) => printable(line, mostText)).join('\n')}\n`;
}
