/** Words on a disk: its image read byte by byte, whatever file system there is, what was deleted too. */
import { closeSync, openSync, readSync } from 'node:fs';

const step = 8 << 20;

/** How often each word is there, as it stands or in UTF-16. */
export function countWords(image: string, words: readonly string[]): Map<string, number> {
  const forms = words.flatMap((word) => [
    { word, bytes: Buffer.from(word) },
    { word, bytes: Buffer.from(word, 'utf16le') },
  ]);
  // A word may lie across two steps.
  const overlap = Math.max(...forms.map(({ bytes }) => bytes.length)) - 1;
  const found = new Map(words.map((word) => [word, 0]));
  const buffer = Buffer.alloc(overlap + step);
  const fd = openSync(image, 'r');
  try {
    for (let kept = 0, read: number; (read = readSync(fd, buffer, kept, step, null)) > 0; ) {
      const whole = buffer.subarray(0, kept + read);
      for (const { word, bytes } of forms) {
        for (let at = whole.indexOf(bytes); at >= 0; at = whole.indexOf(bytes, at + 1)) {
          // What ends in the part that was kept was counted before.
          if (at + bytes.length > kept) found.set(word, found.get(word)! + 1);
        }
      }
      const next = Math.min(overlap, whole.length);
      whole.copy(buffer, 0, whole.length - next);
      kept = next;
    }
  } finally {
    closeSync(fd);
  }
  return found;
}
