/* What the two halves of pod-init share: setup.c makes the pod, server.c is its life. */
#ifndef POD_INIT_H
#define POD_INIT_H

#include "system.h"

/*
 * pid 1's descriptors, and no others (docs/pods.md): the engine leaves them alone and puts its own at 64 and up.
 * 0, 1 and 2 are /dev/null.
 */
enum {
  status_fd = 3,    /* to the creator; closed once the command runs */
  folder_fd = 4,    /* O_PATH of the runtime directory's pods/, to remove NAME.json and NAME.sock at the end */
  listener_fd = 5,  /* NAME.sock */
  signal_fd = 6,    /* signalfd */
  master_fd = 7,    /* console, master side */
  console_fd = 8,   /* console, slave side: held so that the master never hangs up */
  queues_fd = 9,    /* the POSIX message queues of the pod, as a folder: a dump looks whether there are any */
  first_viewer_fd = 10,
  most_viewers = 16,
  most_consoles = 512,  /* numbers below it are held open for a moment, within the usual limit of 1024 */
};

struct options {
  const char *folder, *name, *root, *cwd, *hostname, *domainname;
  const char *clocks;  /* for /proc/self/timens_offsets, time_namespaces(7) */
  int user;    /* in a user namespace of its own */
  int plain;   /* the console does not echo and translates nothing */
  int own_net; /* in a network of its own */
  int confine; /* confine.c; `capabilities`: those that the session keeps */
  uint64_t capabilities;
  long rows, columns;
  long console;  /* the N of the console's /dev/pts/N */
  char **command;  /* NULL: hold, the creator names the main process */
  char **environment;
};

extern struct options options;
/* /dev/pts/N of the console. */
struct text console_path(void);

/* Tell the creator what failed, remove what was made, exit. */
_Noreturn void give_up(const char *step, long error);
/* `result`, or give up when it is an error. */
long must(long result, const char *step);
void write_file(const char *path, const char *content);
/* One line on the status channel. */
void report(const struct text *line);
/* Remove the registry entry and the socket. The entry first: while the socket answers, the name is taken. */
void remove_files(void);
/* Start the command on the console. Its pid, or -errno with the failed step in `*step`. */
long start_command(const char **step);

/* confine.c: for all that is forked out of pid 1; just before the session runs; in its first process. */
void confine_pod(void);
void seal(void);
long drop_capabilities(void);

/* view.c: what is said after --view. */
_Noreturn void view_mounts(char **argument);

/* The poll loop; never returns. */
_Noreturn void serve(void);

#endif
