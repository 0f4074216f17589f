/**
 * How bytes move inside podstream: pushed, synchronously, downstream.
 *
 * A Sink takes chunks. A chunk belongs to the caller again as soon as write() returns, so whoever keeps bytes
 * copies them, and whoever only passes them on copies nothing. Back-pressure is the blocking write(2) at the
 * bottom; parallel stages wait on Atomics, never on the event loop. The same Sink therefore serves a command
 * on raw descriptors, a chain in one process and, wrapped, a Node stream.
 *
 * end() says that the input is complete as bytes (end of file); whether it was a complete *stream* is for the
 * parser to know. abort() says that upstream failed: a stage that can still write a well-formed ERROR frame
 * does so, frees what it holds and passes the abort on. After end() or abort() nothing else is called.
 */
export interface Sink {
  write(chunk: Uint8Array): void;
  end(): void;
  abort(cause: unknown): void;
}
