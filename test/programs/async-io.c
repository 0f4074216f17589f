/*
 * Input that tells by signal (O_ASYNC): pipe, FIFO, unix sockets, inotify, shared with another process or not; owners
 * that are processes, threads and groups; SIGIO and real-time signals that carry descriptor and events. No signal
 * comes by itself; each comes once there is something to tell.
 */
#include <poll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include "pod-test.h"

enum { PIPE, FIFO, STREAM, DATAGRAM, WATCH, GROUP, CHILD, PLAIN, KINDS };

#define SIGNAL (SIGRTMIN + 3)

static int ends[KINDS][2];
static _Atomic int told[64], told_by[64], plain_told;
static pid_t thread_id;
static _Atomic bool over;

static void take(int signal, siginfo_t *info, void *context) {
	(void)signal, (void)context;
	int fd = info->si_fd;
	if (fd < 0 || fd >= 64) return;
	told_by[fd] = (int)syscall(SYS_gettid);
	told[fd] += info->si_code == POLL_IN;
}

static void take_plain(int signal) {
	(void)signal;
	plain_told++;
}

static void *other_thread(void *argument) {
	(void)argument;
	thread_id = (pid_t)syscall(SYS_gettid);
	pod_mark("thread");
	while (!over) usleep(2000);
	return NULL;
}

static void own(int fd, int type, pid_t pid, int signal) {
	struct f_owner_ex owner = { .type = type, .pid = pid };
	EQUAL(fcntl(fd, F_SETOWN_EX, &owner), 0);
	EQUAL(fcntl(fd, F_SETSIG, signal), 0);
	EQUAL(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC), 0);
}

static void check_own(int fd, int type, pid_t pid, int signal) {
	struct f_owner_ex owner;
	EQUAL(fcntl(fd, F_GETOWN_EX, &owner), 0);
	EQUAL(owner.type, type);
	EQUAL(owner.pid, pid);
	EQUAL(fcntl(fd, F_GETSIG), signal);
	CHECK((fcntl(fd, F_GETFL) & O_ASYNC) != 0);
}

/** The owner of a socket that its parent reads: told by signal, in real time. */
static void own_child(void) {
	CHECKF(told[ends[CHILD][0]] == 0, "the child was told too early");
	pod_mark("child");
	pod_takes_signals = true;
	while (!pod_has("child-input")) {
		CHECK(told[ends[CHILD][0]] == 0 || pod_has("child-input"));
		pod_sleep(5);
	}
	EVENTUALLY(told[ends[CHILD][0]] == 1);
	_exit(0);
}

static void feed(int kind) {
	CHECKF(told[ends[kind][0]] == 0, "kind %d: told %d times before anything came", kind, told[ends[kind][0]]);
	EQUAL(write(ends[kind][1], "x", 1), 1);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pod_takes_signals = true;
	/* Whoever started us must not be told. */
	if (getpgrp() != getpid()) EQUAL(setpgid(0, 0), 0);
	struct sigaction action = { .sa_sigaction = take, .sa_flags = SA_SIGINFO | SA_RESTART };
	EQUAL(sigaction(SIGNAL, &action, NULL), 0);
	action = (struct sigaction){ .sa_handler = take_plain, .sa_flags = SA_RESTART };
	EQUAL(sigaction(SIGIO, &action, NULL), 0);
	pthread_t thread;
	EQUAL(pthread_create(&thread, NULL, other_thread, NULL), 0);
	pod_await("thread");

	pod_path_t path;
	EQUAL(pipe(ends[PIPE]), 0);
	EQUAL(mkfifo(pod_path(path, "fifo"), 0666), 0);
	ends[FIFO][0] = MUST(open(path, O_RDONLY | O_NONBLOCK));
	ends[FIFO][1] = MUST(open(path, O_WRONLY));
	EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends[STREAM]), 0);
	EQUAL(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends[DATAGRAM]), 0);
	EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends[GROUP]), 0);
	EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends[CHILD]), 0);
	EQUAL(pipe(ends[PLAIN]), 0);
	ends[WATCH][0] = MUST(inotify_init());
	ends[WATCH][1] = MUST(open(pod_path(path, "watched"), O_RDWR | O_CREAT, 0666));
	EQUAL(inotify_add_watch(ends[WATCH][0], path, IN_MODIFY), 1);

	pid_t child = MUST(fork());
	if (child == 0) own_child();
	pod_await("child");
	own(ends[PIPE][0], F_OWNER_PID, getpid(), SIGNAL);
	own(ends[FIFO][0], F_OWNER_TID, thread_id, SIGNAL);
	own(ends[STREAM][0], F_OWNER_TID, getpid(), SIGNAL);
	own(ends[DATAGRAM][0], F_OWNER_PID, getpid(), SIGNAL);
	own(ends[WATCH][0], F_OWNER_PID, getpid(), SIGNAL);
	own(ends[GROUP][0], F_OWNER_PGRP, getpgrp(), SIGNAL);
	own(ends[CHILD][0], F_OWNER_PID, child, SIGNAL);
	own(ends[PLAIN][0], F_OWNER_PID, getpid(), 0);
	/* Only the signal, no owner: nobody is told, but the choice is kept. */
	int idle[2];
	EQUAL(pipe(idle), 0);
	EQUAL(fcntl(idle[0], F_SETSIG, SIGNAL), 0);
	pod_ready();

	if (pod_break("silent")) fcntl(ends[STREAM][0], F_SETFL, O_RDWR);
	if (pod_break("early")) feed(PIPE);
	if (pod_break("owner")) own(ends[FIFO][0], F_OWNER_PID, child, SIGNAL);
	if (pod_break("signal")) own(ends[PLAIN][0], F_OWNER_PID, getpid(), SIGNAL);
	while (pod_turn()) {
		for (int fd = 0; fd < 64; fd++) CHECKF(told[fd] == 0, "descriptor %d told %d times", fd, told[fd]);
		EQUAL(plain_told, 0);
	}
	check_own(ends[PIPE][0], F_OWNER_PID, getpid(), SIGNAL);
	check_own(ends[FIFO][0], F_OWNER_TID, thread_id, SIGNAL);
	check_own(ends[STREAM][0], F_OWNER_TID, getpid(), SIGNAL);
	check_own(ends[WATCH][0], F_OWNER_PID, getpid(), SIGNAL);
	check_own(ends[GROUP][0], F_OWNER_PGRP, getpgrp(), SIGNAL);
	check_own(ends[CHILD][0], F_OWNER_PID, child, SIGNAL);
	check_own(ends[PLAIN][0], F_OWNER_PID, getpid(), 0);
	EQUAL(fcntl(idle[0], F_GETSIG), SIGNAL);
	EQUAL(fcntl(idle[0], F_GETOWN), 0);
	for (int kind = PIPE; kind <= GROUP; kind++) {
		feed(kind);
		EVENTUALLY(told[ends[kind][0]] == 1);
	}
	EQUAL(told_by[ends[FIFO][0]], thread_id);
	EQUAL(told_by[ends[STREAM][0]], getpid());
	EQUAL(plain_told, 0);
	EQUAL(write(ends[PLAIN][1], "x", 1), 1);
	EVENTUALLY(plain_told == 1);
	pod_mark("child-input");
	EQUAL(write(ends[CHILD][1], "x", 1), 1);
	pod_reap(child);
	EQUAL(told[ends[CHILD][0]], 0);
	over = true;
	EQUAL(pthread_join(thread, NULL), 0);
	pod_pass();
}
