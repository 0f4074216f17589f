import { PodError } from '../../stream/error.ts';

/**
 * The session is in a state that cannot be saved and that ends by itself: a connection waits to be accepted, output
 * is on its way to a terminal. Thrown before the first byte is written; dump() tries again before it gives up.
 */
export class PassingState extends PodError {
  constructor(message: string, hint: string) {
    super('cannot-checkpoint', message, hint);
  }
}
