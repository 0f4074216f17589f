/*
 * The life of pid 1: reap, keep the console drained, serve viewers.
 *
 * Buffering: console output goes into one ring of 64 KiB, and each viewer is a position in it, so a session never
 * waits for a viewer that is slow (it loses the oldest output), unless the viewer asked for that (pod-run in the
 * foreground, whose output may be a file). Input is taken from a viewer one frame at a time and kept until the
 * console accepts it, so a session that does not read makes only its own viewer wait. All of it is static memory.
 */
#define _GNU_SOURCE
#include "pod-init.h"
#include "protocol.h"

#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#define RING 65536u

struct viewer {
  int fd; /* 0: free */
  unsigned char attached, waits, once, told_exit;
  /* Next byte of output to send, and (once) where to stop. */
  uint64_t position, stop;
  size_t in_length, in_used;
  size_t out_length, out_sent;
  unsigned char in[header_size + most_payload];
  unsigned char out[2 * most_payload];
};

static unsigned char ring[RING];
static uint64_t head; /* bytes of output ever */
static struct viewer viewers[most_viewers];
static int state = state_held;
static int creator = 1; /* the status channel is open */
static long main_pid;
static int main_status;
static int console_dry, console_gone, children_gone;
static uint64_t farewell; /* when the exit frames went out; 0 before */
static int last_input = '\n';
static int overflow_uid;

static uint64_t now_ms(void) {
  struct timespec time;
  sys(clock_gettime, CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

static uint64_t oldest(void) { return head > RING ? head - RING : 0; }

static void put16(unsigned char *to, unsigned value) { to[0] = (unsigned char)value, to[1] = (unsigned char)(value >> 8); }
static void put32(unsigned char *to, uint32_t value) { put16(to, value & 0xffff), put16(to + 2, value >> 16); }
static unsigned get16(const unsigned char *from) { return from[0] | (unsigned)from[1] << 8; }
static uint32_t get32(const unsigned char *from) { return get16(from) | (uint32_t)get16(from + 2) << 16; }

/* --- viewers: output --- */

static void drop(struct viewer *viewer) {
  sys(close, viewer->fd);
  viewer->fd = 0;
}

static int has_room(const struct viewer *viewer) { return sizeof viewer->out - viewer->out_length >= 64; }

/* Queue a small frame; the caller saw has_room(). */
static void queue(struct viewer *viewer, int type, const unsigned char *payload, size_t length) {
  unsigned char *out = viewer->out + viewer->out_length;
  out[0] = (unsigned char)type, out[1] = 0;
  put16(out + 2, (unsigned)length);
  memcpy(out + header_size, payload, length);
  viewer->out_length += header_size + length;
}

static void queue_result(struct viewer *viewer, long result) {
  unsigned char payload[4];
  put32(payload, (uint32_t)result);
  queue(viewer, frame_result, payload, sizeof payload);
}

static uint64_t wanted_end(const struct viewer *viewer) {
  return viewer->once && viewer->stop < head ? viewer->stop : head;
}

static int has_output(const struct viewer *viewer) {
  return viewer->attached && viewer->position < wanted_end(viewer);
}

/* All output is with the viewer's kernel buffer. */
static int is_flushed(const struct viewer *viewer) {
  return viewer->out_sent == viewer->out_length && !has_output(viewer);
}

static void queue_output(struct viewer *viewer) {
  size_t room = sizeof viewer->out - viewer->out_length;
  if (!has_output(viewer) || room < 64 + header_size) return;
  if (viewer->position < oldest()) viewer->position = oldest();
  size_t length = room - 64 - header_size;
  uint64_t left = wanted_end(viewer) - viewer->position;
  if (length > left) length = (size_t)left;
  size_t straight = RING - (size_t)(viewer->position % RING);
  if (length > straight) length = straight;
  unsigned char *out = viewer->out + viewer->out_length;
  out[0] = frame_output, out[1] = 0;
  put16(out + 2, (unsigned)length);
  memcpy(out + header_size, ring + viewer->position % RING, length);
  viewer->out_length += header_size + length;
  viewer->position += length;
}

/* Send until the socket is full or nothing is left. */
static void flush(struct viewer *viewer) {
  for (;;) {
    if (viewer->out_sent == viewer->out_length) viewer->out_sent = viewer->out_length = 0;
    queue_output(viewer);
    if (viewer->once && viewer->attached && !has_output(viewer) && has_room(viewer)) {
      viewer->attached = 0;
      queue_result(viewer, 0);
    }
    if (farewell && !has_output(viewer) && !viewer->told_exit && has_room(viewer)) {
      unsigned char payload[4];
      put32(payload, (uint32_t)main_status);
      queue(viewer, frame_exit, payload, sizeof payload);
      viewer->told_exit = 1;
    }
    if (viewer->out_length == 0) return;
    long sent = sys(sendto, viewer->fd, viewer->out + viewer->out_sent, viewer->out_length - viewer->out_sent,
                    MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0);
    if (sent == -EAGAIN || sent == -EINTR) return;
    if (sent < 0) {
      drop(viewer);
      return;
    }
    viewer->out_sent += (size_t)sent;
  }
}

/* --- the console --- */

/* How much output may be taken before a viewer that is waited for would lose some. */
static size_t ring_room(void) {
  size_t room = RING;
  for (int i = 0; i < most_viewers; i++) {
    const struct viewer *viewer = &viewers[i];
    if (!viewer->fd || !viewer->attached || !viewer->waits) continue;
    uint64_t behind = head - viewer->position;
    size_t left = behind < RING ? RING - (size_t)behind : 0;
    if (left < room) room = left;
  }
  return room;
}

static void drain_console(void) {
  console_dry = 0;
  for (int turn = 0; turn < 16; turn++) {
    size_t room = ring_room();
    size_t straight = RING - (size_t)(head % RING);
    if (room > straight) room = straight;
    if (room == 0) return;
    long length = sys(read, master_fd, ring + head % RING, room);
    if (length <= 0) {
      /* EIO: somebody inside called vhangup(2); the console works again when it is opened next. */
      console_gone = length != -EAGAIN && length != -EINTR;
      console_dry = 1;
      return;
    }
    head += (size_t)length;
    console_gone = 0;
  }
}

static void resize(unsigned rows, unsigned columns, int redraw) {
  if (rows == 0 || columns == 0) return;
  unsigned short size[4] = {0};
  sys(ioctl, master_fd, TIOCGWINSZ, size);
  if (size[0] != rows || size[1] != columns) {
    unsigned short wanted[4] = {(unsigned short)rows, (unsigned short)columns, 0, 0};
    sys(ioctl, master_fd, TIOCSWINSZ, wanted); /* signals the foreground group itself */
  } else if (redraw) {
    int group = 0;
    if (sys(ioctl, master_fd, TIOCGPGRP, &group) == 0 && group > 1) sys(kill, -group, SIGWINCH);
  }
}

/* End of input: the terminal's own end-of-file character, twice when a line is begun. */
static long console_eof(void) {
  struct termios mode;
  long result = sys(ioctl, master_fd, TCGETS, &mode);
  if (result < 0 || !(mode.c_lflag & ICANON) || mode.c_cc[VEOF] == 0) return 0;
  unsigned char ends[2] = {mode.c_cc[VEOF], mode.c_cc[VEOF]};
  result = sys(write, master_fd, ends, last_input == '\n' ? 1 : 2);
  if (result == -EAGAIN) return result;
  last_input = '\n';
  return 0;
}

static long signal_main(int number) {
  if (main_pid == 0 || state == state_ending) return -ESRCH;
  long group = sys(getpgid, main_pid);
  long result = group > 1 ? sys(kill, -group, number) : -ESRCH;
  return result < 0 ? sys(kill, main_pid, number) : result;
}

/* --- viewers: input --- */

static void attach(struct viewer *viewer, const unsigned char *payload) {
  unsigned flags = payload[0];
  viewer->attached = 1;
  viewer->waits = !!(flags & ATTACH_WAIT);
  viewer->once = !!(flags & ATTACH_ONCE);
  viewer->position = flags & ATTACH_REPLAY ? oldest() : head;
  viewer->stop = head;
  resize(get16(payload + 2), get16(payload + 4), 1);
}

static void queue_status(struct viewer *viewer) {
  unsigned char payload[24];
  unsigned short size[4] = {0};
  uint32_t attached = 0;
  for (int i = 0; i < most_viewers; i++) attached += viewers[i].fd && viewers[i].attached;
  sys(ioctl, master_fd, TIOCGWINSZ, size);
  put32(payload, (uint32_t)state);
  put32(payload + 4, (uint32_t)main_pid);
  put16(payload + 8, size[0]), put16(payload + 10, size[1]);
  put32(payload + 12, attached);
  put32(payload + 16, (uint32_t)head), put32(payload + 20, (uint32_t)(head >> 32));
  queue(viewer, frame_status, payload, sizeof payload);
}

/* Act on a whole frame. 0: done; -EAGAIN: the console is full, the frame stays; other: the client is no client. */
static long act(struct viewer *viewer, int type, const unsigned char *payload, size_t length) {
  if (type == frame_input) {
    while (viewer->in_used < length) {
      long written = sys(write, master_fd, payload + viewer->in_used, length - viewer->in_used);
      if (written == -EIO) break; /* hung up: as if typed at a dead terminal */
      if (written <= 0) return -EAGAIN;
      viewer->in_used += (size_t)written;
      last_input = payload[viewer->in_used - 1];
    }
    return 0;
  }
  if (type == frame_eof && length == 0) return console_eof();
  if (type == frame_attach && length == 6) return attach(viewer, payload), 0;
  if (type == frame_window && length == 4) return resize(get16(payload), get16(payload + 2), 0), 0;
  if (!has_room(viewer)) return -EAGAIN;
  if (type == frame_query && length == 0) return queue_status(viewer), 0;
  if (type == frame_signal && length == 4) {
    uint32_t number = get32(payload);
    queue_result(viewer, number > 64 ? -EINVAL : signal_main((int)number));
    return 0;
  }
  return -EPROTO;
}

/* Length of the frame at the start of the input; 0 when it is not whole yet. */
static size_t whole_frame(const struct viewer *viewer) {
  if (viewer->in_length < header_size) return 0;
  size_t length = header_size + get16(viewer->in + 2);
  return viewer->in_length >= length ? length : 0;
}

/* Act on the whole frames that came in; what waits for the console stays. */
static void use_input(struct viewer *viewer) {
  size_t length;
  while (viewer->fd && (length = whole_frame(viewer))) {
    long result = act(viewer, viewer->in[0], viewer->in + header_size, length - header_size);
    if (result == -EAGAIN) return;
    if (result < 0) {
      drop(viewer);
      return;
    }
    viewer->in_used = 0;
    viewer->in_length -= length;
    for (size_t i = 0; i < viewer->in_length; i++) viewer->in[i] = viewer->in[length + i];
  }
  if (viewer->fd && viewer->in_length >= header_size && get16(viewer->in + 2) > most_payload) drop(viewer);
}

static void receive(struct viewer *viewer) {
  long length = sys(recvfrom, viewer->fd, viewer->in + viewer->in_length, sizeof viewer->in - viewer->in_length,
                    MSG_DONTWAIT, 0, 0);
  if (length == -EAGAIN || length == -EINTR) return;
  if (length <= 0) {
    drop(viewer);
    return;
  }
  viewer->in_length += (size_t)length;
  use_input(viewer);
}

/* The folder's and the socket's mode already keep others out; this holds when somebody opened them up. */
static int is_allowed(long fd) {
  struct ucred peer;
  unsigned size = sizeof peer;
  if (sys(getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) return 0;
  /* In a user namespace everybody but the owner, root too, looks like the overflow user. */
  return (long)peer.uid == sys(geteuid) || peer.uid == 0 || (options.user && (int)peer.uid == overflow_uid);
}

static struct viewer *free_viewer(void) {
  for (int i = 0; i < most_viewers; i++)
    if (!viewers[i].fd) return &viewers[i];
  return 0;
}

/* 0: nobody waits, or all places are taken. */
static int accept_viewer(void) {
  struct viewer *viewer = free_viewer();
  if (!viewer) return 0;
  long accepted = sys(accept4, listener_fd, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (accepted < 0) return 0;
  long fd = is_allowed(accepted) ? sys(fcntl, accepted, F_DUPFD_CLOEXEC, first_viewer_fd) : -EPERM;
  sys(close, accepted);
  if (fd < 0) return 1;
  /* Not one memset over the buffers: memory that was never used stays untouched. */
  viewer->attached = viewer->waits = viewer->once = viewer->told_exit = 0;
  viewer->in_length = viewer->in_used = viewer->out_length = viewer->out_sent = 0;
  viewer->fd = (int)fd;
  return 1;
}

/* --- processes --- */

static void reap(void) {
  /* Held: the engine builds the tree; who ends now keeps its status until the main process is known. */
  if (state == state_held) return;
  for (;;) {
    int status;
    long pid = sys(wait4, -1, &status, WNOHANG | __WALL, 0);
    if (pid == -ECHILD) children_gone = state == state_ending;
    if (pid <= 0) return;
    if (pid == main_pid && state == state_running) {
      main_status = status;
      state = state_ending;
      /* As in a container: with its main process the session is over. */
      sys(kill, -1, SIGKILL);
    }
  }
}

/*
 * The pod's end, asked for by its owner (lib/pod/kill.ts). Were we just killed, the console would hang up before the
 * kernel kills the rest: what runs on SIGHUP (traps that remove files, editors) would still run. One kill of all
 * leaves no such moment.
 */
static _Noreturn void end_all(void) {
  sys(kill, -1, SIGKILL);
  for (;;) sys(exit_group, 0);
}

static void read_signals(void) {
  struct signalfd_siginfo info;
  while (sys(read, signal_fd, &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGCHLD) continue;
    /* A sender outside has no pid in here; the session itself may send SIGQUIT to its pid 1 as it likes. */
    if (info.ssi_signo == SIGQUIT && info.ssi_pid == 0) end_all();
    if (info.ssi_signo != SIGQUIT) signal_main((int)info.ssi_signo);
  }
  reap();
}

static void close_creator(void) {
  sys(close, status_fd);
  creator = 0;
}

static void run(long pid) {
  struct text line = {0};
  main_pid = pid;
  state = state_running;
  add(&line, "started "), add_number(&line, pid), add(&line, "\n");
  report(&line);
  close_creator();
  reap();
}

/*
 * The creator's word: `go` starts the command, `main N` names the process the engine made. Its end of the channel
 * closed before that: nobody knows this pod, so it ends.
 */
static void read_creator(void) {
  char word[32];
  long length = sys(recvfrom, status_fd, word, sizeof word - 1, MSG_DONTWAIT, 0, 0);
  if (length == -EAGAIN || length == -EINTR) return;
  if (length <= 0) give_up("creator", -EPIPE);
  word[length] = 0;
  if (starts_with(word, "go") && options.command) {
    seal();
    const char *step;
    long pid = start_command(&step);
    if (pid < 0) give_up(step, pid);
    run(pid);
  } else if (starts_with(word, "main ")) {
    long pid = read_number(word + 5, 0);
    long result = pid > 1 ? sys(kill, pid, 0) : -ESRCH;
    if (result < 0) give_up("main", result);
    seal();
    run(pid);
  } else {
    give_up("creator", -EPROTO);
  }
}

/* --- the loop --- */

/* Nothing runs and all output is with those who asked to get it all: free the name, then say good-bye. */
static void begin_farewell(void) {
  if (farewell || state != state_ending || !children_gone || !console_dry) return;
  for (int i = 0; i < most_viewers; i++)
    if (viewers[i].fd && viewers[i].attached && viewers[i].waits && !is_flushed(&viewers[i])) return;
  /* First: who learns of the end may take the name at once. */
  remove_files();
  farewell = now_ms();
  for (int i = 0; i < most_viewers; i++)
    if (viewers[i].fd) flush(&viewers[i]);
}

/* Clients close when they have read the end. Closing first could meet their last input with a reset. */
static int is_over(void) {
  if (!farewell) return 0;
  if (now_ms() - farewell > 1000) return 1;
  for (int i = 0; i < most_viewers; i++)
    if (viewers[i].fd) return 0;
  return 1;
}

_Noreturn static void leave(void) {
  for (;;) sys(exit_group, main_status & 0x7f ? 128 + (main_status & 0x7f) : main_status >> 8 & 0xff);
}

static int read_overflow_uid(void) {
  char text[16] = {0};
  long fd = sys(openat, AT_FDCWD, "/proc/sys/kernel/overflowuid", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 65534;
  sys(read, fd, text, sizeof text - 1);
  sys(close, fd);
  return (int)read_number(text, 0);
}

_Noreturn void serve(void) {
  overflow_uid = read_overflow_uid();
  for (;;) {
    struct pollfd polls[4 + most_viewers];
    int stuck = 0;
    for (int i = 0; i < most_viewers; i++) {
      struct viewer *viewer = &viewers[i];
      struct pollfd *poll = &polls[4 + i];
      int waiting = viewer->fd && whole_frame(viewer) > 0;
      stuck |= waiting;
      poll->fd = viewer->fd ? viewer->fd : -1;
      poll->events = (short)((waiting ? 0 : POLLIN) | (viewer->fd && !is_flushed(viewer) ? POLLOUT : 0));
    }
    polls[0] = (struct pollfd){signal_fd, POLLIN, 0};
    polls[1] = (struct pollfd){creator ? status_fd : -1, POLLIN, 0};
    polls[2] = (struct pollfd){free_viewer() ? listener_fd : -1, POLLIN, 0};
    polls[3] = (struct pollfd){console_gone || ring_room() == 0 ? -1 : master_fd, POLLIN, 0};

    /* A full console does not say reliably when it has room again, a hung-up one when it was opened. */
    int timeout = stuck || console_gone || state == state_ending ? 50 : -1;
    struct timespec wait = {timeout / 1000, timeout % 1000 * 1000000l};
    sys(ppoll, polls, 4 + most_viewers, timeout < 0 ? 0 : &wait, 0, 8);

    read_signals();
    if (creator && polls[1].revents) read_creator();
    drain_console();
    for (int i = 0; i < most_viewers; i++) {
      struct viewer *viewer = &viewers[i];
      if (!viewer->fd) continue;
      if (polls[4 + i].revents & POLLIN) receive(viewer);
      else if (polls[4 + i].revents & (POLLHUP | POLLERR)) drop(viewer);
      else use_input(viewer);
      if (viewer->fd) flush(viewer);
    }
    while (polls[2].revents && accept_viewer());
    begin_farewell();
    if (is_over()) leave();
  }
}
