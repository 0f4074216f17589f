/*
 * What is spoken on NAME.sock, in both directions: u8 type, u8 zero, u16 length, then `length` bytes;
 * little-endian. lib/pod/console.ts is the other end, docs/pods.md the description.
 */
#ifndef POD_INIT_PROTOCOL_H
#define POD_INIT_PROTOCOL_H

enum {
  header_size = 4,
  /* A longer frame from a client closes its connection. */
  most_payload = 4096,
};

/* Client to pid 1. */
enum {
  frame_attach = 'A', /* u8 flags, u8 zero, u16 rows, u16 columns (0: leave the size) */
  frame_input = 'I',  /* bytes for the console */
  frame_eof = 'E',    /* end of input */
  frame_window = 'W', /* u16 rows, u16 columns */
  frame_signal = 'S', /* u32 signal, for the main process's group; answered */
  frame_query = 'Q',  /* answered with a status */
};

/* frame_attach: send what the ring holds first. */
#define ATTACH_REPLAY 1
/* The session's output waits for this viewer; others that fall behind lose the oldest output. */
#define ATTACH_WAIT 2
/* Only the ring: a frame_result follows it, and no more output. */
#define ATTACH_ONCE 4

/* pid 1 to client. */
enum {
  frame_output = 'O', /* console output */
  frame_exit = 'X',   /* u32 wait status of the main process; the last frame */
  frame_result = 'R', /* i32: 0 or -errno */
  frame_status = 'T', /* u32 state, u32 main pid, u16 rows, u16 columns, u32 viewers, u64 bytes of output so far */
};

enum { state_held = 0, state_running = 1, state_ending = 2 };

#endif
