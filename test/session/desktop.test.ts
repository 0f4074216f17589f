/**
 * A whole desktop in a pod: X server, window manager, terminal window, a game half played. The picture is the same
 * after the move to the last pixel, and what is typed and clicked then goes where it went before.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../native/package-root.ts';
import { users } from '../pod/house.ts';
import { lacking, makeShell, short, waitFor } from './session-house.ts';

t.setTimeout(300_000);

const needs = ['Xvnc', 'openbox', 'xterm', 'xdemineur', 'xwd', 'xdpyinfo', 'xdotool'];

/** A number that no display of this computer has. */
function freeDisplay(): number {
  let number = 60 + (process.pid % 900);
  while (existsSync(`/tmp/.X${number}-lock`) || existsSync(`/tmp/.X11-unix/X${number}`)) number += 1;
  return number;
}

/** X11/XWDFile.h: a header in big-endian words, colours of 12 bytes, pixels of which one byte in four means nothing. */
function digestPixels(file: Buffer): string {
  const word = (index: number) => file.readUInt32BE(4 * index);
  const [headerSize, height, byteOrder, bitsPerPixel, bytesPerLine, colours] = [0, 5, 7, 11, 12, 19].map(
    word,
  );
  if (bitsPerPixel !== 32) throw new Error(`pixels of ${bitsPerPixel} bits`);
  const pixels = Buffer.from(file.subarray(headerSize! + 12 * colours!));
  if (pixels.length !== bytesPerLine! * height!) return '';
  for (let at = byteOrder === 0 ? 3 : 0; at < pixels.length; at += 4) pixels[at] = 0;
  return createHash('sha256').update(pixels).digest('hex');
}

for (const user of short ? users.slice(-1) : users) {
  const { skip, fail } = lacking(needs);
  t.test(`a desktop with a game, as ${user}`, { skip }, async (t) => {
    if (fail) return t.fail(fail);
    const number = freeDisplay();
    const display = { NUMBER: String(number), DISPLAY: `:${number}` };
    const shell = makeShell(t, user, { ...display, REAL: join(packageRoot(), 'test/session/real') });
    t.teardown(() => {
      for (const path of [`/tmp/.X${number}-lock`, `/tmp/.X11-unix/X${number}`])
        rmSync(path, { force: true });
    });
    const must = (line: string) => {
      const { status, stdout, stderr } = shell.sh(line);
      t.same([status, stderr], [0, ''], line);
      return stdout;
    };
    /** The root window as it is shown, every pixel of it. */
    const picture = () => {
      const { status } = shell.sh('xwd -root -silent > $F/screen.xwd');
      return status === 0 ? digestPixels(readFileSync(join(shell.folder, 'screen.xwd'))) : '';
    };
    /** Until nothing changes any more: five looks in a row, because a busy computer draws late. */
    const settled = async () => {
      let last = '';
      let same = 0;
      await waitFor(
        'a picture that stays',
        () => {
          const now = picture();
          same = now !== '' && now === last ? same + 1 : 0;
          last = now;
          return same === 4;
        },
        60_000,
        300,
      );
      return last;
    };
    const windows = (name: string) => shell.sh(`xdotool search --name '${name}'`).stdout.trim();

    must('pod-run --name desktop -d -- bash $REAL/desktop.sh');
    await waitFor('its windows', () => windows('bash') !== '' && /\d/.test(windows('mineur')));
    const empty = await settled();
    must('xdotool mousemove 80 60 click 1');
    must(`xdotool type --delay 20 'PS1="ready> "; clear; echo be'`);
    const typed = await settled();
    t.not(typed, empty, 'one sees what is typed');

    must('pod-dump desktop > $F/image');
    // Something on it may blink: to the last pixel, in its time.
    await waitFor('the same picture after a dump', () => picture() === typed);
    must('pod-dump --then kill desktop > $F/image');
    t.equal(picture(), '', 'it is gone');
    must('pod-restart -d < $F/image');
    await waitFor('the same picture to the last pixel after the move', () => picture() === typed);

    must(`xdotool type --delay 20 'fore > $F/said; echo after'`);
    must('xdotool key Return');
    await waitFor('what was typed in two halves', () => existsSync(join(shell.folder, 'said')));
    await waitFor('its text', () => readFileSync(join(shell.folder, 'said'), 'utf8') === 'before\n');
    const answered = await settled();
    t.not(answered, typed);
    const game = windows('mineur').split('\n').at(-1)!;
    must(`xdotool mousemove --window ${game} 300 300 click 1`);
    await waitFor('a move in the game', () => picture() !== answered);
    must('pod-kill desktop');
  });
}
