/** What the module handles of what the programs of test/programs/ hold; all others it refuses by name. */
import { listPrograms } from '../tools/programs.ts';

/** Whoever teaches the module one puts the program here. */
export const handled: readonly string[] = [
  'pipes',
  'registers',
  'regular-files',
  'memory-shared',
  'signal-pending',
  'signal-handlers',
];

/** Those of each kind of state that are tried when time is short. */
export const fewHandled: readonly string[] = ['pipes', 'memory-shared'];
export const fewRefused: readonly string[] = ['epolls', 'memfds', 'unix-pairs'];

/**
 * Not tried: `Via: pod` means a pod with a console, which is refused for that; a processor that lacks what a program
 * needs; what changes the whole computer.
 */
export const refused = (): string[] =>
  listPrograms()
    .filter(({ name, podOnly, lacking }) => !handled.includes(name) && !podOnly && lacking === undefined)
    .map(({ name }) => name);

/** What the other parts of the harness work with. */
export const alwaysNeeded: readonly string[] = [
  'memory-private',
  'memory-shared',
  'pipes',
  'registers',
  'signal-pending',
];
