/**
 * A stranger's text for a person's eyes: one line, bounded, well-formed, and without control or format characters
 * (escape sequences that would command the terminal, marks that would turn the line's direction).
 */
export function printable(text: unknown, most = 512): string {
  if (typeof text !== 'string') return '';
  const line = text.slice(0, most).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, '?');
  return text.length > most ? `${line}…` : line;
}
