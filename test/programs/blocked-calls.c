/*
 * Blocked system calls, each in a thread of its own. Two kinds. Those that wait for something: they must go on
 * waiting, and come back with the right result when it comes, after go. And those with a time-out, called again and
 * again: each must come back exactly by its time-out, not before, and never with EINTR.
 *
 * epoll_wait and sigtimedwait are the exception: the kernel itself interrupts them at every stop of their task, by
 * a debugger or SIGSTOP, with no signal handler at all (signal(7)). A dumper that is killed in that moment cannot
 * prevent it, so they are called again, with the rest of their time.
 */
#include <linux/futex.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include "pod-test.h"

static _Atomic bool over;
static _Atomic int returned;
static const char *volatile returned_first = "";

static int pipe_read[2], pipe_write[2], pipe_poll[2], pipe_select[2], pipe_silent[2], pair[2], event;
static int poller, silent_poller;
static _Atomic uint32_t futex_word, futex_timed_word, futex_bitset_word, silent_word;
static pid_t child;
static uint64_t waited_signals;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static bool condition_holds;

static void read_pipe(void) {
	char byte;
	EQUAL(read(pipe_read[0], &byte, 1), 1);
	EQUAL(byte, 'r');
}

static void write_full_pipe(void) {
	EQUAL(write(pipe_write[1], "0123456789", 10), 10);
}

static void receive(void) {
	char text[8];
	EQUAL(recv(pair[0], text, 8, 0), 3);
}

static void wait_futex(void) {
	EQUAL(syscall(SYS_futex, &futex_word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, NULL), 0);
	EQUAL(futex_word, 1);
}

static void wait_futex_timed(void) {
	struct timespec hour = { .tv_sec = 3600 };
	EQUAL(syscall(SYS_futex, &futex_timed_word, FUTEX_WAIT, 0, &hour), 0);
}

static void wait_futex_bitset(void) {
	struct timespec due = pod_timespec(pod_now() + 3600 * SECOND);
	EQUAL(syscall(SYS_futex, &futex_bitset_word, FUTEX_WAIT_BITSET, 0, &due, NULL, 4), 0);
}

static void poll_for_ever(void) {
	struct pollfd entry = { .fd = pipe_poll[0], .events = POLLIN };
	EQUAL(poll(&entry, 1, -1), 1);
	EQUAL(entry.revents, POLLIN);
}

static void poll_an_hour(void) {
	struct pollfd entries[2] = { { .fd = pipe_silent[0], .events = POLLIN }, { .fd = pipe_poll[0], .events = POLLIN } };
	EQUAL(poll(entries, 2, 3600000), 1);
	EQUAL(entries[0].revents, 0);
	EQUAL(entries[1].revents, POLLIN);
}

static void select_an_hour(void) {
	fd_set set;
	FD_ZERO(&set);
	FD_SET(pipe_select[0], &set);
	struct timeval hour = { .tv_sec = 3600 };
	EQUAL(select(pipe_select[0] + 1, &set, NULL, NULL, &hour), 1);
	CHECK(FD_ISSET(pipe_select[0], &set));
	CHECK(hour.tv_sec < 3600 && hour.tv_sec > 3300);
}

static void wait_epoll(void) {
	struct epoll_event got;
	int result;
	while ((result = epoll_wait(poller, &got, 1, 3600000)) == -1 && errno == EINTR) continue;
	EQUAL(result, 1);
	EQUAL(got.data.u64, 88);
}

static void wait_child(void) {
	int status;
	EQUAL(waitpid(child, &status, 0), child);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 33);
}

static void wait_signal(void) {
	siginfo_t info;
	struct timespec hour = { .tv_sec = 3600 };
	long result;
	while ((result = syscall(SYS_rt_sigtimedwait, &waited_signals, &info, &hour, 8)) == -1 && errno == EINTR) continue;
	EQUAL(result, SIGUSR1);
	EQUAL(info.si_value.sival_int, 5);
}

static void read_event(void) {
	uint64_t value;
	EQUAL(read(event, &value, 8), 8);
	EQUAL(value, 6);
}

static void wait_condition(void) {
	pthread_mutex_lock(&mutex);
	while (!condition_holds) pthread_cond_wait(&condition, &mutex);
	pthread_mutex_unlock(&mutex);
}

/* Sleeps until an absolute time some seconds ahead: before or after go, but not before its time. */
static int64_t sleep_due;

static struct {
	const char *what;
	void (*body)(void);
	pthread_t thread;
	_Atomic pid_t tid;
} waits[] = {
	{ .what = "read", .body = read_pipe },
	{ .what = "write", .body = write_full_pipe },
	{ .what = "recv", .body = receive },
	{ .what = "futex", .body = wait_futex },
	{ .what = "futex with a time-out", .body = wait_futex_timed },
	{ .what = "futex bitset, absolute", .body = wait_futex_bitset },
	{ .what = "poll", .body = poll_for_ever },
	{ .what = "poll with a time-out", .body = poll_an_hour },
	{ .what = "select", .body = select_an_hour },
	{ .what = "epoll_wait", .body = wait_epoll },
	{ .what = "waitpid", .body = wait_child },
	{ .what = "sigtimedwait", .body = wait_signal },
	{ .what = "read of an eventfd", .body = read_event },
	{ .what = "pthread_cond_wait", .body = wait_condition },
};

static void *run_wait(void *argument) {
	size_t i = (size_t)argument;
	waits[i].tid = (pid_t)syscall(SYS_gettid);
	waits[i].body();
	CHECKF(over, "%s came back by itself", waits[i].what);
	returned++;
	return NULL;
}

#define SHORT (170 * MILLISECOND)

static void nanosleep_short(void) {
	struct timespec time = pod_timespec(SHORT), rest = { 77, 77 };
	EQUAL(nanosleep(&time, &rest), 0);
}

static void clock_nanosleep_absolute(void) {
	struct timespec due = pod_timespec(pod_now() + SHORT);
	EQUAL(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL), 0);
}

static void clock_nanosleep_relative(void) {
	struct timespec time = pod_timespec(SHORT);
	EQUAL(clock_nanosleep(CLOCK_REALTIME, 0, &time, NULL), 0);
}

static void poll_short(void) {
	struct pollfd entry = { .fd = pipe_silent[0], .events = POLLIN };
	EQUAL(poll(&entry, 1, SHORT / MILLISECOND), 0);
}

static void ppoll_short(void) {
	struct pollfd entry = { .fd = pipe_silent[0], .events = POLLIN };
	struct timespec time = pod_timespec(SHORT);
	sigset_t none;
	sigfillset(&none);
	EQUAL(ppoll(&entry, 1, &time, &none), 0);
}

static void select_short(void) {
	struct timeval time = { .tv_usec = SHORT / 1000 };
	EQUAL(select(0, NULL, NULL, NULL, &time), 0);
}

static void epoll_short(void) {
	struct epoll_event got;
	int result;
	int64_t end = pod_now() + SHORT;
	do {
		int64_t rest = (end - pod_now() + MILLISECOND) / MILLISECOND;
		result = epoll_wait(silent_poller, &got, 1, rest > 0 ? (int)rest : 0);
	} while (result == -1 && errno == EINTR);
	EQUAL(result, 0);
}

static void futex_short(void) {
	struct timespec time = pod_timespec(SHORT);
	FAILS(syscall(SYS_futex, &silent_word, FUTEX_WAIT, 0, &time), ETIMEDOUT);
}

static void sigtimedwait_short(void) {
	uint64_t set = 1UL << (SIGUSR2 - 1);
	int64_t end = pod_now() + SHORT;
	do {
		int64_t rest = end - pod_now();
		struct timespec time = pod_timespec(rest > 0 ? rest : 0);
		EQUAL(syscall(SYS_rt_sigtimedwait, &set, NULL, &time, 8), -1);
	} while (errno == EINTR);
	EQUAL(errno, EAGAIN);
}

static struct {
	const char *what;
	void (*body)(void);
	pthread_t thread;
	_Atomic int rounds;
} sleeps[] = {
	{ .what = "nanosleep", .body = nanosleep_short },
	{ .what = "clock_nanosleep, absolute", .body = clock_nanosleep_absolute },
	{ .what = "clock_nanosleep, relative", .body = clock_nanosleep_relative },
	{ .what = "poll", .body = poll_short },
	{ .what = "ppoll", .body = ppoll_short },
	{ .what = "select", .body = select_short },
	{ .what = "epoll_wait", .body = epoll_short },
	{ .what = "futex", .body = futex_short },
	{ .what = "sigtimedwait", .body = sigtimedwait_short },
};

static void *run_sleep(void *argument) {
	size_t i = (size_t)argument;
	while (!over) {
		int64_t start = pod_now();
		sleeps[i].body();
		int64_t took = pod_now() - start;
		if (i == 0 && pod_break("early") && pod_has("ready")) took /= 2;
		CHECKF(took >= SHORT - 2 * MILLISECOND, "%s came back after %ld ms, its time-out is %ld ms", sleeps[i].what,
		       (long)(took / MILLISECOND), (long)(SHORT / MILLISECOND));
		CHECKF(took < POD_PATIENCE, "%s came back after %ld ms", sleeps[i].what, (long)(took / MILLISECOND));
		sleeps[i].rounds++;
	}
	return NULL;
}

static _Atomic bool slept;

static void *run_long_sleep(void *argument) {
	(void)argument;
	struct timespec due = pod_timespec(sleep_due);
	EQUAL(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL), 0);
	CHECKF(pod_now() >= sleep_due, "an absolute sleep ended %ld ms early", (long)((sleep_due - pod_now()) / MILLISECOND));
	slept = true;
	return NULL;
}

/* Nothing but a signal ends it, and only one with a handler. */
static _Atomic int handled;
static _Atomic pid_t pausing;
static _Atomic bool pause_over;

static void handle(int signal) {
	(void)signal;
	handled++;
}

static void *run_pause(void *argument) {
	uint64_t mask = ~(1UL << (SIGTERM - 1));
	EQUAL(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8), 0);
	pausing = (pid_t)syscall(SYS_gettid);
	if (argument == NULL) FAILS(pause(), EINTR);
	CHECKF(over, "pause came back by itself");
	EQUAL(handled, 1);
	pause_over = true;
	return NULL;
}

static void *run_suspend(void *argument) {
	_Atomic pid_t *tid = argument;
	*tid = (pid_t)syscall(SYS_gettid);
	uint64_t mask = ~(1UL << (SIGHUP - 1)), now;
	FAILS(syscall(SYS_rt_sigsuspend, &mask, 8), EINTR);
	CHECKF(over, "sigsuspend came back by itself");
	/* The mask of before is back. */
	EQUAL(syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &now, 8), 0);
	CHECK(now & 1UL << (SIGHUP - 1));
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	sigset_t all;
	sigfillset(&all);
	EQUAL(pthread_sigmask(SIG_BLOCK, &all, NULL), 0);
	signal(SIGTERM, handle);
	signal(SIGHUP, handle);
	waited_signals = 1UL << (SIGUSR1 - 1);
	int *const pipes[] = { pipe_read, pipe_write, pipe_poll, pipe_select, pipe_silent };
	for (size_t i = 0; i < COUNT(pipes); i++) EQUAL(pipe(pipes[i]), 0);
	EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	static char zeros[65536];
	EQUAL(write(pipe_write[1], zeros, sizeof zeros), sizeof zeros);
	event = MUST(eventfd(0, 0));
	poller = MUST(epoll_create1(0));
	silent_poller = MUST(epoll_create1(0));
	struct epoll_event entry = { .events = EPOLLIN, .data.u64 = 88 };
	EQUAL(epoll_ctl(poller, EPOLL_CTL_ADD, pipe_select[0], &entry), 0);
	EQUAL(epoll_ctl(silent_poller, EPOLL_CTL_ADD, pipe_silent[0], &entry), 0);
	child = MUST(fork());
	if (child == 0) {
		while (pod_child_turn()) continue;
		pod_await("end");
		_exit(33);
	}
	sleep_due = pod_now() + 2500 * MILLISECOND;
	pthread_t long_sleep, pauser, suspender;
	_Atomic pid_t suspended = 0;
	EQUAL(pthread_create(&long_sleep, NULL, run_long_sleep, NULL), 0);
	EQUAL(pthread_create(&pauser, NULL, run_pause, NULL), 0);
	EQUAL(pthread_create(&suspender, NULL, run_suspend, &suspended), 0);
	for (size_t i = 0; i < COUNT(waits); i++) EQUAL(pthread_create(&waits[i].thread, NULL, run_wait, (void *)i), 0);
	for (size_t i = 0; i < COUNT(sleeps); i++)
		EQUAL(pthread_create(&sleeps[i].thread, NULL, run_sleep, (void *)i), 0);
	for (size_t i = 0; i < COUNT(waits); i++) EVENTUALLY(waits[i].tid);
	EVENTUALLY(pausing && suspended);
	pod_sleep(50);
	pod_ready();

	if (pod_break("read")) EQUAL(write(pipe_read[1], "r", 1), 1);
	if (pod_break("interrupted")) {
		/* A handler that runs cuts a sleep short: EINTR. */
		kill(getpid(), SIGTERM);
	}
	if (pod_break("futex")) syscall(SYS_futex, &futex_word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
	if (pod_break("child")) kill(child, SIGKILL);
	while (pod_turn()) {
		EQUAL(returned, 0);
		CHECK(!pause_over);
		for (size_t i = 0; i < COUNT(sleeps); i++) CHECK(sleeps[i].rounds >= 0);
	}
	EQUAL(returned, 0);
	EQUAL(handled, 0);
	for (size_t i = 0; i < COUNT(sleeps); i++) {
		int before = sleeps[i].rounds;
		EVENTUALLY(sleeps[i].rounds >= before + 2);
	}
	EQUAL(returned, 0);
	CHECK(!pause_over);

	over = true;
	EQUAL(write(pipe_read[1], "r", 1), 1);
	EQUAL(read(pipe_write[0], zeros, sizeof zeros), sizeof zeros);
	EQUAL(send(pair[1], "abc", 3, 0), 3);
	futex_word = 1;
	EQUAL(syscall(SYS_futex, &futex_word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 10), 1);
	EQUAL(syscall(SYS_futex, &futex_timed_word, FUTEX_WAKE, 10), 1);
	/* Other bits do not wake it. */
	EQUAL(syscall(SYS_futex, &futex_bitset_word, FUTEX_WAKE_BITSET, 10, NULL, NULL, 3), 0);
	EQUAL(syscall(SYS_futex, &futex_bitset_word, FUTEX_WAKE_BITSET, 10, NULL, NULL, 4), 1);
	EQUAL(write(pipe_poll[1], "x", 1), 1);
	EQUAL(write(pipe_select[1], "x", 1), 1);
	pod_mark("end");
	EQUAL(sigqueue(getpid(), SIGUSR1, (union sigval){ .sival_int = 5 }), 0);
	EQUAL(eventfd_write(event, 6), 0);
	pthread_mutex_lock(&mutex);
	condition_holds = true;
	pthread_cond_signal(&condition);
	pthread_mutex_unlock(&mutex);
	for (size_t i = 0; i < COUNT(waits); i++) {
		struct timespec end = pod_timespec(pod_clock(CLOCK_REALTIME) + 10 * SECOND);
		CHECKF(pthread_timedjoin_np(waits[i].thread, NULL, &end) == 0, "%s never came back", waits[i].what);
	}
	for (size_t i = 0; i < COUNT(sleeps); i++) EQUAL(pthread_join(sleeps[i].thread, NULL), 0);
	EQUAL(syscall(SYS_tgkill, getpid(), pausing, SIGTERM), 0);
	EQUAL(pthread_join(pauser, NULL), 0);
	EQUAL(syscall(SYS_tgkill, getpid(), suspended, SIGHUP), 0);
	EQUAL(pthread_join(suspender, NULL), 0);
	EQUAL(handled, 2);
	EQUAL(pthread_join(long_sleep, NULL), 0);
	CHECK(slept);
	EQUAL(read(pipe_write[0], zeros, sizeof zeros), 10);
	pod_pass();
}
