/*
 * pod-init: makes the namespaces of a pod, its mounts and its console, and stays as its pid 1.
 *
 *   pod-init --folder DIR --name NAME [--user] [--root DIR] [--cwd DIR] [--hostname H] [--domainname D]
 *            [--console N] [--clocks OFFSETS] [--size ROWSxCOLUMNS] [--plain] [--confine CAPABILITIES] [--own-net]
 *            [-- COMMAND ARGUMENTS…]        (status channel on descriptor 3)
 *
 * Order, and why: the name is taken (socket bound, under a lock) while the host's files are still in sight; then
 * the namespaces; then a fork, because only a child enters a new pid namespace; the child mounts, makes the
 * console, says "ready" and waits for the creator's word (server.c), so that the pod is registered before anything
 * runs in it. Lines on the status channel: `pid N`, `network`, `ready`, `started N`, `error STEP ERRNO`; see lib/pod/create.ts.
 */
#define _GNU_SOURCE
#include "pod-init.h"

#include <asm/termbits.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <asm/ioctls.h>
#include <linux/sockios.h>

#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef MOUNT_ATTR_NODEV
#define MOUNT_ATTR_NODEV 4
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

struct options options;
static int have_name;

void *memcpy(void *target, const void *source, size_t length) {
  unsigned char *to = target;
  const unsigned char *from = source;
  while (length--) *to++ = *from++;
  return target;
}

void *memset(void *target, int value, size_t length) {
  unsigned char *to = target;
  while (length--) *to++ = (unsigned char)value;
  return target;
}

void report(const struct text *line) {
  sys(sendto, status_fd, line->bytes, line->length, MSG_NOSIGNAL, 0, 0);
}

static struct text file_name(const char *suffix) {
  struct text path = {0};
  add(&path, options.name);
  add(&path, suffix);
  return path;
}

void remove_files(void) {
  if (!have_name) return;
  have_name = 0;
  struct text entry = file_name(".json"), socket = file_name(".sock");
  sys(unlinkat, folder_fd, entry.bytes, 0);
  sys(unlinkat, folder_fd, socket.bytes, 0);
}

_Noreturn void give_up(const char *step, long error) {
  struct text line = {0};
  add(&line, "error ");
  add(&line, step);
  add(&line, " ");
  add_number(&line, -error);
  add(&line, "\n");
  remove_files();
  report(&line);
  for (;;) sys(exit_group, 1);
}

long must(long result, const char *step) {
  if (result < 0) give_up(step, result);
  return result;
}

/* Move a descriptor to its fixed place. */
static void place(long fd, int wanted) {
  if (fd == wanted) return;
  must(sys(dup3, fd, wanted, O_CLOEXEC), "dup3");
  sys(close, fd);
}

void write_file(const char *path, const char *content) {
  long fd = must(sys(openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC), path);
  must(sys(write, fd, content, length_of(content)), path);
  sys(close, fd);
}

/*
 * Bind NAME.sock. The lock on the folder makes "is anybody there, no, then remove and bind" one step. A relative
 * name keeps long runtime directories within the 108 bytes of a socket address.
 */
static void take_name(void) {
  place(must(sys(openat, AT_FDCWD, options.folder, O_PATH | O_DIRECTORY | O_CLOEXEC), "folder"), folder_fd);
  const int lock = first_viewer_fd;
  place(must(sys(openat, folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "folder"), lock);
  must(sys(fchdir, folder_fd), "folder");
  must(sys(flock, lock, LOCK_EX), "lock");

  struct text socket = file_name(".sock"), entry = file_name(".json");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (socket.length >= sizeof address.sun_path) give_up("name", -ENAMETOOLONG);
  memcpy(address.sun_path, socket.bytes, socket.length);

  long probe = must(sys(socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket");
  long found = sys(connect, probe, &address, sizeof address);
  sys(close, probe);
  /* A full backlog (EAGAIN) has a listener too. */
  if (found == 0 || found == -EAGAIN) give_up("taken", -EEXIST);
  sys(unlinkat, folder_fd, socket.bytes, 0);
  sys(unlinkat, folder_fd, entry.bytes, 0);

  place(must(sys(socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket"), listener_fd);
  long mask = sys(umask, 0177);
  must(sys(bind, listener_fd, &address, sizeof address), "bind");
  sys(umask, mask);
  have_name = 1;
  must(sys(listen, listener_fd, 64), "listen");
  sys(close, lock);
}

/* A new network has one interface, lo, and that is down. */
static void start_loopback(void) {
  struct {
    char name[16];
    short flags;
    char rest[22];
  } request = {"lo", 0, {0}};
  long fd = must(sys(socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "loopback");
  must(sys(ioctl, fd, SIOCGIFFLAGS, &request), "loopback");
  request.flags |= 1; /* IFF_UP */
  must(sys(ioctl, fd, SIOCSIFFLAGS, &request), "loopback");
  sys(close, fd);
}

/*
 * What else is in the network, the creator makes, through a socket that must be of this network and of our rights
 * over it; an ordinary user can't come in. Its word, `made`, or the end of its channel comes when that is done.
 */
static void wait_for_network(void) {
  place(must(sys(socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0), "network"), first_viewer_fd);
  struct text line = {0};
  add(&line, "network\n");
  report(&line);
  char word[8];
  long length;
  do length = sys(recvfrom, status_fd, word, sizeof word, 0, 0, 0);
  while (length == -EINTR);
  if (length <= 0) give_up("creator", -EPIPE);
  sys(close, first_viewer_fd);
}

static void enter_namespaces(void) {
  long uid = sys(geteuid), gid = sys(getegid);
  int spaces = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS;
  if (options.clocks) spaces |= CLONE_NEWTIME;
  if (options.own_net) spaces |= CLONE_NEWNET;
  must(sys(unshare, options.user ? spaces | CLONE_NEWUSER : spaces), "unshare");
  /* Only as long as nobody has entered it: before the fork. */
  if (options.clocks) write_file("/proc/self/timens_offsets", options.clocks);
  if (options.own_net) start_loopback();
  if (!options.user) return;
  struct text users = {0}, groups = {0};
  add_number(&users, uid), add(&users, " "), add_number(&users, uid), add(&users, " 1\n");
  add_number(&groups, gid), add(&groups, " "), add_number(&groups, gid), add(&groups, " 1\n");
  write_file("/proc/self/uid_map", users.bytes);
  /* Without this an ordinary user may not write gid_map: setgroups could otherwise drop a group that denies. */
  write_file("/proc/self/setgroups", "deny");
  write_file("/proc/self/gid_map", groups.bytes);
}

/* Path below the session's root, while that is not yet `/`. */
static struct text below(const char *path) {
  struct text whole = {0};
  if (options.root) add(&whole, options.root);
  add(&whole, path);
  return whole;
}

static void mount_at(const char *type, const char *where, unsigned long flags, const char *data) {
  struct text target = below(where);
  struct text step = {0};
  add(&step, "mount "), add(&step, where);
  must(sys(mount, type, target.bytes, type, flags, data), step.bytes);
}

static void bind_at(const char *source, const char *where) {
  struct text target = below(where), from = below(source);
  struct text step = {0};
  add(&step, "mount "), add(&step, where);
  must(sys(mount, starts_with(source, "/dev/pts") ? from.bytes : source, target.bytes, 0, MS_BIND, 0), step.bytes);
}

static void make_folder(const char *where) {
  struct text target = below(where), step = {0};
  add(&step, "mkdir "), add(&step, where);
  long result = sys(mkdirat, AT_FDCWD, target.bytes, 0755);
  if (result != -EEXIST) must(result, step.bytes);
}

static const char *const devices[] = {"/dev/null", "/dev/zero",    "/dev/full",
                                      "/dev/tty",  "/dev/random", "/dev/urandom"};
static const char *const links[][2] = {{"/proc/self/fd", "/dev/fd"},
                                       {"/proc/self/fd/0", "/dev/stdin"},
                                       {"/proc/self/fd/1", "/dev/stdout"},
                                       {"/proc/self/fd/2", "/dev/stderr"}};

static void make_devices(void) {
  /* Not the default 1777: in a sticky directory the kernel refuses O_CREAT on somebody else's device. */
  mount_at("tmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=0755,size=65536k");
  for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
    struct text target = below(devices[i]);
    long fd = must(sys(openat, AT_FDCWD, target.bytes, O_CREAT | O_WRONLY | O_CLOEXEC, 0666), devices[i]);
    sys(close, fd);
    bind_at(devices[i], devices[i]);
  }
  for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
    struct text target = below(links[i][1]);
    must(sys(symlinkat, links[i][0], AT_FDCWD, target.bytes), links[i][1]);
  }
  struct text ptmx = below("/dev/ptmx");
  long fd = must(sys(openat, AT_FDCWD, ptmx.bytes, O_CREAT | O_WRONLY | O_CLOEXEC, 0666), "/dev/ptmx");
  sys(close, fd);
  make_folder("/dev/pts");
  make_folder("/dev/shm");
  mount_at("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
}

/* Device files in the root's own folders open nothing: what a session may open is in `devices`. */
static void refuse_devices(void) {
  struct {
    uint64_t set, clear, propagation, space;
  } change = {MOUNT_ATTR_NODEV, 0, 0, 0};
  long result = sys(mount_setattr, AT_FDCWD, options.root, AT_RECURSIVE, &change, sizeof change);
  if (result == -ENOSYS) {
    /* Before Linux 5.12 a change says all flags anew; those that are there may be locked. */
    struct statfs found;
    must(sys(statfs, options.root, &found), "statfs");
    const unsigned long kept = (unsigned long)found.f_flags & (MS_RDONLY | MS_NOSUID | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME);
    const unsigned long relative = found.f_flags & 0x1000 /* ST_RELATIME */ ? MS_RELATIME : 0;
    result = sys(mount, 0, options.root, 0, MS_REMOUNT | MS_BIND | MS_NODEV | kept | relative, 0);
  }
  must(result, "nodev");
}

static void make_mounts(void) {
  /* Slave, not private: a drive unmounted outside must not stay mounted in here. Nothing goes the other way. */
  must(sys(mount, 0, "/", 0, MS_REC | MS_SLAVE, 0), "mount /");
  if (options.root) {
    must(sys(mount, options.root, options.root, 0, MS_BIND | MS_REC, 0), "root");
    if (options.confine) refuse_devices();
    make_folder("/proc");
    make_folder("/dev");
    make_devices();
  }
  mount_at("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
  mount_at("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0600");
  bind_at("/dev/pts/ptmx", "/dev/ptmx");
  if (options.root) {
    must(sys(chdir, options.root), "root");
    must(sys(pivot_root, ".", "."), "pivot_root");
    must(sys(umount2, ".", MNT_DETACH), "umount");
  }
  must(sys(chdir, "/"), "chdir /");
}

static void close_from(unsigned first) {
  if (sys(close_range, first, ~0u, 0) == 0) return;
  for (unsigned fd = first; fd < 65536; fd++) sys(close, fd);
}

struct text console_path(void) {
  struct text path = {0};
  add(&path, "/dev/pts/");
  add_number(&path, options.console);
  return path;
}

/* devpts gives out the lowest free number, so those below the wanted one are taken for a moment. */
static void open_master(void) {
  for (long number = 0;; number++) {
    long fd = must(sys(openat, AT_FDCWD, "/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC), "/dev/ptmx");
    if (number == options.console) {
      place(fd, master_fd);
      break;
    }
    if (fd < first_viewer_fd) {
      must(sys(fcntl, fd, F_DUPFD_CLOEXEC, first_viewer_fd), "/dev/ptmx");
      sys(close, fd);
    }
  }
  close_from(first_viewer_fd);
}

static void make_console(void) {
  open_master();
  int unlocked = 0;
  must(sys(ioctl, master_fd, TIOCSPTLCK, &unlocked), "console");
  struct text path = console_path();
  place(must(sys(openat, AT_FDCWD, path.bytes, O_RDWR | O_NOCTTY | O_CLOEXEC), "/dev/pts"), console_fd);
  unsigned short size[4] = {(unsigned short)options.rows, (unsigned short)options.columns, 0, 0};
  must(sys(ioctl, console_fd, TIOCSWINSZ, size), "console");
  if (!options.plain) return;
  struct termios mode;
  must(sys(ioctl, console_fd, TCGETS, &mode), "console");
  /* Lines and end of file are all that is left: bytes go through as they are. */
  mode.c_iflag = IUTF8;
  mode.c_oflag = 0;
  mode.c_lflag = ICANON;
  for (int i = 0; i < NCCS; i++) mode.c_cc[i] = i == VEOF ? 4 : 0;
  must(sys(ioctl, console_fd, TCSETS, &mode), "console");
}

/*
 * Queues that nobody has open are seen nowhere but in a mount of the mqueue file system, which only who owns the IPC
 * namespace can make: now, before the session has lost that right. No path leads to it. A kernel without it has none.
 */
static void open_queues(void) {
  const long context = sys(fsopen, "mqueue", 1 /* FSOPEN_CLOEXEC */);
  if (context < 0) return;
  long folder = sys(fsconfig, context, 6 /* FSCONFIG_CMD_CREATE */, 0, 0, 0);
  if (folder == 0) folder = sys(fsmount, context, 1 /* FSMOUNT_CLOEXEC */, 0);
  /* It may have the very number. */
  sys(close, context);
  if (folder >= 0) place(folder, queues_fd);
}

static void take_signals(void) {
  uint64_t all = ~0ul, wanted = 0;
  const int signals[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) wanted |= 1ul << (signals[i] - 1);
  must(sys(rt_sigprocmask, SIG_SETMASK, &all, 0, 8), "signals");
  /* An ignored SIGCHLD would make the kernel reap behind our back. */
  uint64_t action[4] = {0};
  for (int number = 1; number <= 64; number++) sys(rt_sigaction, number, action, 0, 8);
  place(must(sys(signalfd4, -1, &wanted, 8, SFD_CLOEXEC | SFD_NONBLOCK), "signalfd"), signal_fd);
}

static void use_null(void) {
  long fd = must(sys(openat, AT_FDCWD, "/dev/null", O_RDWR), "/dev/null");
  for (int target = 0; target <= 2; target++)
    if (fd != target) must(sys(dup3, fd, target, 0), "/dev/null");
  if (fd > 2) sys(close, fd);
}

static const char *path_variable(void) {
  for (char **entry = options.environment; *entry; entry++)
    if (starts_with(*entry, "PATH=")) return *entry + 5;
  return "/usr/local/bin:/usr/bin:/bin";
}

/* execvp(3), without the shell for files that are no program: ENOEXEC is told. */
static long execute(void) {
  const char *file = options.command[0];
  if (!*file) return -ENOENT;
  for (const char *at = file; *at; at++)
    if (*at == '/') return sys(execve, file, options.command, options.environment);
  long error = -ENOENT;
  const char *at = path_variable();
  for (;;) {
    struct text candidate = {0};
    while (*at && *at != ':' && candidate.length < 4096) candidate.bytes[candidate.length++] = *at++;
    while (*at && *at != ':') at++;
    if (candidate.length) add(&candidate, "/");
    add(&candidate, file);
    long result = sys(execve, candidate.bytes, options.command, options.environment);
    /* A file that may not be run is worth telling only when no other one is found; a folder that may not be
     * searched never is. */
    if (result == -EACCES) error = sys(faccessat, AT_FDCWD, candidate.bytes, 0) == 0 ? result : error;
    else if (result != -ENOENT && result != -ENOTDIR) return result;
    if (!*at++) return error;
  }
}

struct failure {
  const char *step;
  long error;
};

static _Noreturn void become_command(long pipe) {
  struct failure failure = {"setsid", 0};
  if ((failure.error = sys(setsid)) < 0) goto failed;
  failure.step = "console";
  struct text path = console_path();
  long console = sys(openat, AT_FDCWD, path.bytes, O_RDWR);
  if ((failure.error = console) < 0) goto failed;
  if ((failure.error = sys(ioctl, console, TIOCSCTTY, 0)) < 0) goto failed;
  for (int fd = 0; fd <= 2; fd++)
    if ((failure.error = sys(dup3, console, fd, 0)) < 0) goto failed;
  sys(close, console);
  failure.step = "cwd";
  if (options.cwd && (failure.error = sys(chdir, options.cwd)) < 0) goto failed;
  /* The failure pipe moves to 3 and closes itself at exec; nothing else above 2 remains. */
  if (pipe != 3) sys(dup3, pipe, 3, O_CLOEXEC);
  close_from(4);
  pipe = 3;
  uint64_t none = 0;
  sys(rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
  failure.step = "capabilities";
  if ((failure.error = drop_capabilities()) < 0) goto failed;
  failure.step = "exec";
  failure.error = execute();
failed:
  sys(write, pipe, &failure, sizeof failure);
  for (;;) sys(exit_group, 127);
}

long start_command(const char **step) {
  int pipe[2];
  *step = "pipe";
  long result = sys(pipe2, pipe, O_CLOEXEC);
  if (result < 0) return result;
  *step = "fork";
  long pid = sys(clone, SIGCHLD, 0, 0, 0, 0);
  if (pid == 0) become_command(pipe[1]);
  sys(close, pipe[1]);
  struct failure failure = {0};
  if (pid > 0 && sys(read, pipe[0], &failure, sizeof failure) == sizeof failure) {
    *step = failure.step;
    sys(wait4, pid, 0, 0, 0);
    pid = failure.error;
  }
  sys(close, pipe[0]);
  return pid;
}

static const char *value_of(char **argument) {
  if (!argument[1]) give_up(argument[0], -EINVAL);
  return argument[1];
}

static void read_options(char **argument) {
  options.rows = 24;
  options.columns = 80;
  for (argument++; *argument; argument++) {
    const char *name = *argument;
    if (same(name, "--")) {
      if (argument[1]) options.command = argument + 1;
      break;
    } else if (same(name, "--user")) {
      options.user = 1;
    } else if (same(name, "--plain")) {
      options.plain = 1;
    } else if (same(name, "--own-net")) {
      options.own_net = 1;
    } else if (same(name, "--confine")) {
      const char *rest;
      options.confine = 1;
      options.capabilities = (uint64_t)read_number(value_of(argument++), &rest);
    } else if (same(name, "--folder")) {
      options.folder = value_of(argument++);
    } else if (same(name, "--name")) {
      options.name = value_of(argument++);
    } else if (same(name, "--root")) {
      options.root = value_of(argument++);
    } else if (same(name, "--cwd")) {
      options.cwd = value_of(argument++);
    } else if (same(name, "--hostname")) {
      options.hostname = value_of(argument++);
    } else if (same(name, "--domainname")) {
      options.domainname = value_of(argument++);
    } else if (same(name, "--size")) {
      const char *rest;
      options.rows = read_number(value_of(argument++), &rest);
      options.columns = *rest ? read_number(rest + 1, &rest) : 80;
    } else if (same(name, "--clocks")) {
      options.clocks = value_of(argument++);
    } else if (same(name, "--console")) {
      const char *rest;
      options.console = read_number(value_of(argument++), &rest);
    } else {
      give_up(name, -EINVAL);
    }
  }
  if (options.console < 0 || options.console >= most_consoles) give_up("--console", -EINVAL);
  if (!options.folder || !options.name) give_up("--name", -EINVAL);
}

_Noreturn __attribute__((used)) void start(long *stack) {
  long count = stack[0];
  close_from(4);
  if (count > 3 && same((char *)stack[2], "--view")) view_mounts((char **)(stack + 3));
  options.environment = (char **)(stack + 1 + count + 1);
  read_options((char **)(stack + 1));
  take_name();
  enter_namespaces();

  long pid = must(sys(clone, SIGCHLD, 0, 0, 0, 0), "fork");
  if (pid > 0) {
    struct text line = {0};
    add(&line, "pid "), add_number(&line, pid), add(&line, "\n");
    report(&line);
    for (;;) sys(exit_group, 0);
  }

  sys(setsid);
  sys(prctl, PR_SET_NAME, "pod-init");
  /* Of use to the owner's restart engine, which must trace us. */
  sys(prctl, PR_SET_DUMPABLE, 1);
  sys(prctl, PR_SET_PDEATHSIG, 0);
  make_mounts();
  if (options.hostname) must(sys(sethostname, options.hostname, length_of(options.hostname)), "hostname");
  if (options.domainname) must(sys(setdomainname, options.domainname, length_of(options.domainname)), "domainname");
  make_console();
  open_queues();
  take_signals();
  use_null();
  if (options.own_net) wait_for_network();
  confine_pod();
  struct text ready = {0};
  add(&ready, "ready\n");
  report(&ready);
  serve();
}

__asm__(
    ".globl _start\n"
    "_start:\n"
    "  xor %ebp, %ebp\n"
    "  mov %rsp, %rdi\n"
    "  and $-16, %rsp\n"
    "  call start\n"
    "  hlt\n");
