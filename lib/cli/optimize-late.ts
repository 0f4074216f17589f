import { setFlagsFromString } from 'node:v8';

/**
 * For commands that run much code a few hundred times and are done within a second: V8 would optimize it for a third of
 * all they cost, on the processors that the session's tasks need, and most of that too late. Five times the default
 * leaves out what is not hot for long. Not for a library, whose caller has a program of his own; and not at start: Node
 * loads its own modules from a code cache that V8 takes only under the flags that made it.
 */
export function optimizeLate(): void {
  setFlagsFromString('--interrupt-budget=300000');
}
