/*
 * pidfd_open(2): of a child, of itself, of its parent, of a thread, of a zombie, of one that was waited for;
 * non-blocking, shared with a child, under two numbers, in an epoll set; threads blocked in poll and waitid on them.
 */
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include "pod-test.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif
/* Of <linux/pidfd.h>, which older headers lack. */
#define GET_INFO _IOC(_IOC_READ | _IOC_WRITE, 0xff, 11, 64)
#define INFO_EXIT 8ULL

static pid_t worker, waited, dead, gone, killed, sharer;
static int worker_fd, waited_fd, dead_fd, gone_fd, killed_fd, self_fd, nonblocking, duplicate, shared, thread_fd, set;
static bool tells_status;
static _Atomic pid_t thread_tid;
static _Atomic bool poll_over, wait_over, leave;

static int pidfd(pid_t pid, unsigned flags) {
	return (int)syscall(SYS_pidfd_open, pid, flags);
}

static int send_signal(int fd, int number) {
	return (int)syscall(SYS_pidfd_send_signal, fd, number, NULL, 0);
}

static int pid_of(int fd) {
	char path[64], text[64];
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	return atoi(pod_field(path, "Pid", text, sizeof text));
}

static bool ended(int fd) {
	struct pollfd one = { .fd = fd, .events = POLLIN };
	return MUST(poll(&one, 1, 0)) == 1;
}

/** -1 when this kernel does not tell. */
static int status_of(int fd) {
	uint64_t info[8] = { INFO_EXIT };
	if (ioctl(fd, GET_INFO, info) != 0 || !(info[0] & INFO_EXIT)) return -1;
	return (int)(info[7] >> 32);
}

static pid_t spawn_sleeper(void) {
	pid_t child = MUST(fork());
	if (child == 0)
		for (;;) pause();
	return child;
}

static pid_t spawn_ended(int code) {
	pid_t child = MUST(fork());
	if (child == 0) _exit(code);
	return child;
}

static void *block_polling(void *argument) {
	(void)argument;
	struct pollfd one = { .fd = worker_fd, .events = POLLIN };
	EQUAL(poll(&one, 1, -1), 1);
	poll_over = true;
	return NULL;
}

static void *block_waiting(void *argument) {
	(void)argument;
	siginfo_t info;
	EQUAL(waitid(P_PIDFD, (id_t)waited_fd, &info, WEXITED), 0);
	EQUAL(info.si_pid, waited);
	EQUAL(info.si_status, SIGKILL);
	wait_over = true;
	return NULL;
}

static void *idle(void *argument) {
	(void)argument;
	thread_tid = (pid_t)syscall(SYS_gettid);
	while (!leave) pod_sleep(10);
	return NULL;
}

static void check(void) {
	EQUAL(pid_of(worker_fd), worker);
	EQUAL(pid_of(duplicate), worker);
	EQUAL(pid_of(nonblocking), worker);
	EQUAL(pid_of(waited_fd), waited);
	EQUAL(pid_of(dead_fd), dead);
	EQUAL(pid_of(gone_fd), -1);
	EQUAL(pid_of(killed_fd), -1);
	EQUAL(pid_of(self_fd), getpid());
	EQUAL(fcntl(nonblocking, F_GETFL), O_RDWR | O_NONBLOCK);
	EQUAL(fcntl(worker_fd, F_GETFL), O_RDWR);
	EQUAL(fcntl(worker_fd, F_GETFD), FD_CLOEXEC);
	EQUAL(send_signal(worker_fd, 0), 0);
	EQUAL(send_signal(self_fd, 0), 0);
	FAILS(send_signal(gone_fd, 0), ESRCH);
	CHECK(!ended(worker_fd) && !ended(self_fd) && ended(dead_fd) && ended(gone_fd) && ended(killed_fd));
	siginfo_t info = { 0 };
	EQUAL(waitid(P_PIDFD, (id_t)dead_fd, &info, WEXITED | WNOWAIT | WNOHANG), 0);
	EQUAL(info.si_pid, dead);
	EQUAL(info.si_status, 9);
	FAILS(waitid(P_PIDFD, (id_t)nonblocking, &info, WEXITED), EAGAIN);
	FAILS(waitid(P_PIDFD, (id_t)gone_fd, &info, WEXITED), ECHILD);
	if (tells_status) {
		EQUAL(status_of(gone_fd), 7 << 8);
		EQUAL(status_of(killed_fd), SIGKILL);
	}
	if (thread_fd >= 0) {
		EQUAL(pid_of(thread_fd), thread_tid);
		EQUAL(fcntl(thread_fd, F_GETFL), O_RDWR | PIDFD_THREAD);
	}
	struct epoll_event event;
	EQUAL(epoll_wait(set, &event, 1, 0), 0);
	CHECKF(!poll_over, "a blocked poll came back");
	CHECKF(!wait_over, "a blocked waitid came back");
}

static void share(pid_t parent) {
	int up = MUST(pidfd(parent, 0));
	while (pod_child_turn()) {
		EQUAL(pid_of(up), parent);
		EQUAL(pid_of(shared), worker);
		CHECK(!ended(up));
	}
	/* One open file: the flag that the parent sets is seen here. */
	EVENTUALLY(fcntl(shared, F_GETFL) & O_NONBLOCK);
	_exit(0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	worker = spawn_sleeper();
	waited = spawn_sleeper();
	dead = spawn_ended(9);
	gone = spawn_ended(7);
	killed = spawn_sleeper();
	worker_fd = MUST(pidfd(worker, 0));
	duplicate = MUST(fcntl(worker_fd, F_DUPFD, 100));
	nonblocking = MUST(pidfd(worker, O_NONBLOCK));
	shared = MUST(pidfd(worker, 0));
	waited_fd = MUST(pidfd(waited, 0));
	dead_fd = MUST(pidfd(dead, 0));
	gone_fd = MUST(pidfd(gone, 0));
	killed_fd = MUST(pidfd(killed, 0));
	self_fd = MUST(pidfd(getpid(), 0));
	MUST(kill(killed, SIGKILL));
	EQUAL(waitpid(gone, NULL, 0), gone);
	EQUAL(waitpid(killed, NULL, 0), killed);
	tells_status = status_of(gone_fd) >= 0;
	EVENTUALLY(ended(dead_fd));
	sharer = MUST(fork());
	if (sharer == 0) share(getppid());
	pthread_t threads[3];
	EQUAL(pthread_create(&threads[0], NULL, block_polling, NULL), 0);
	EQUAL(pthread_create(&threads[1], NULL, block_waiting, NULL), 0);
	EQUAL(pthread_create(&threads[2], NULL, idle, NULL), 0);
	EVENTUALLY(thread_tid != 0);
	/* Linux 6.9 and later. */
	thread_fd = pidfd(thread_tid, PIDFD_THREAD);
	set = MUST(epoll_create1(0));
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = 4711 };
	MUST(epoll_ctl(set, EPOLL_CTL_ADD, worker_fd, &event));
	pod_sleep(30);
	pod_ready();

	if (pod_break("target")) dup3(waited_fd, duplicate, 0);
	if (pod_break("flags")) fcntl(nonblocking, F_SETFL, 0);
	if (pod_break("gone")) dup2(worker_fd, gone_fd);
	if (pod_break("zombie")) waitpid(dead, NULL, 0);
	if (pod_break("thread")) dup2(self_fd, thread_fd >= 0 ? thread_fd : gone_fd);
	if (pod_break("epoll")) epoll_ctl(set, EPOLL_CTL_DEL, worker_fd, NULL);
	if (pod_break("worker")) send_signal(worker_fd, SIGKILL);
	if (pod_break("sharing")) dup2(MUST(pidfd(worker, 0)), shared);
	while (pod_turn()) check();
	if (!pod_break("sharing")) check();
	fcntl(shared, F_SETFL, O_NONBLOCK);
	int64_t end = pod_now() + 5 * SECOND;
	for (int status; waitpid(sharer, &status, WNOHANG) != sharer; pod_sleep(5))
		CHECKF(pod_now() < end, "the descriptor is not shared with the child any more");
	leave = true;
	EQUAL(pthread_join(threads[2], NULL), 0);
	if (thread_fd >= 0) EVENTUALLY(ended(thread_fd));
	EQUAL(send_signal(worker_fd, SIGKILL), 0);
	EQUAL(pthread_join(threads[0], NULL), 0);
	EQUAL(epoll_wait(set, &event, 1, 1000), 1);
	EQUAL(event.data.u64, 4711);
	siginfo_t info;
	EQUAL(waitid(P_PIDFD, (id_t)duplicate, &info, WEXITED), 0);
	EQUAL(info.si_pid, worker);
	EQUAL(send_signal(waited_fd, SIGKILL), 0);
	EQUAL(pthread_join(threads[1], NULL), 0);
	EQUAL(waitid(P_PIDFD, (id_t)dead_fd, &info, WEXITED), 0);
	EQUAL(info.si_status, 9);
	pod_pass();
}
