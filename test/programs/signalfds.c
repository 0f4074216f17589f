/*
 * signalfd: two with different masks, one shared under two numbers; signals that are pending come out of the right
 * one with their siginfo; a thread blocked in read.
 */
#include <sys/signalfd.h>
#include "pod-test.h"

static int first, second, changed, duplicate, blocking;
static _Atomic bool read_over;
static struct signalfd_siginfo got;

static uint64_t mask_of(int fd) {
	char path[64], text[64];
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	return strtoull(pod_field(path, "sigmask", text, sizeof text), NULL, 16);
}

static sigset_t set_of(int a, int b) {
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, a);
	if (b) sigaddset(&set, b);
	return set;
}

#define BIT(signal) (1UL << ((signal)-1))

static void check(void) {
	EQUAL(mask_of(first), BIT(SIGUSR1) | BIT(40));
	EQUAL(mask_of(second), BIT(SIGUSR2));
	EQUAL(mask_of(changed), BIT(SIGHUP) | BIT(SIGTERM));
	EQUAL(mask_of(duplicate), BIT(SIGUSR2));
	EQUAL(mask_of(blocking), BIT(50));
	CHECKF(!read_over, "a blocked read came back");
}

static void *block(void *argument) {
	(void)argument;
	EQUAL(read(blocking, &got, sizeof got), sizeof got);
	read_over = true;
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	sigset_t all, set;
	sigfillset(&all);
	EQUAL(sigprocmask(SIG_BLOCK, &all, NULL), 0);
	set = set_of(SIGUSR1, 40);
	first = MUST(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
	set = set_of(SIGUSR2, 0);
	second = MUST(signalfd(-1, &set, SFD_NONBLOCK));
	duplicate = MUST(dup(second));
	set = set_of(SIGINT, 0);
	changed = MUST(signalfd(-1, &set, 0));
	set = set_of(SIGHUP, SIGTERM);
	EQUAL(signalfd(changed, &set, 0), changed);
	set = set_of(50, 0);
	blocking = MUST(signalfd(-1, &set, 0));
	pthread_t thread;
	EQUAL(pthread_create(&thread, NULL, block, NULL), 0);
	for (int i = 0; i < 5; i++) EQUAL(sigqueue(getpid(), 40, (union sigval){ .sival_int = i * 11 }), 0);
	EQUAL(kill(getpid(), SIGUSR1), 0);
	EQUAL(kill(getpid(), SIGTERM), 0);
	pod_sleep(30);
	pod_ready();

	if (pod_break("mask")) {
		set = set_of(SIGUSR2, SIGINT);
		EQUAL(signalfd(second, &set, 0), second);
	}
	if (pod_break("flags")) fcntl(first, F_SETFL, 0);
	if (pod_break("lost")) CHECK(read(first, &got, sizeof got) > 0);
	if (pod_break("blocked-read")) kill(getpid(), 50);
	if (pod_break("sharing")) {
		set = set_of(SIGUSR2, 0);
		dup2(MUST(signalfd(-1, &set, SFD_NONBLOCK)), duplicate);
	}
	while (pod_turn()) check();
	check();
	EQUAL(fcntl(first, F_GETFD), FD_CLOEXEC);
	EQUAL(fcntl(first, F_GETFL), O_RDWR | O_NONBLOCK);
	EQUAL(fcntl(changed, F_GETFL), O_RDWR);
	struct signalfd_siginfo infos[10];
	EQUAL(read(first, infos, sizeof infos), 6 * sizeof infos[0]);
	EQUAL(infos[0].ssi_signo, SIGUSR1);
	EQUAL(infos[0].ssi_code, SI_USER);
	EQUAL(infos[0].ssi_pid, getpid());
	for (int i = 0; i < 5; i++) {
		EQUAL(infos[i + 1].ssi_signo, 40);
		EQUAL(infos[i + 1].ssi_code, SI_QUEUE);
		EQUAL(infos[i + 1].ssi_int, i * 11);
	}
	FAILS(read(first, infos, sizeof infos), EAGAIN);
	FAILS(read(second, infos, sizeof infos), EAGAIN);
	EQUAL(read(changed, infos, sizeof infos), sizeof infos[0]);
	EQUAL(infos[0].ssi_signo, SIGTERM);
	/* One object under two numbers: a new mask is there for both. */
	set = set_of(SIGINT, 0);
	EQUAL(signalfd(second, &set, 0), second);
	EQUAL(mask_of(duplicate), BIT(SIGINT));
	EQUAL(kill(getpid(), SIGINT), 0);
	EQUAL(read(duplicate, infos, sizeof infos), sizeof infos[0]);
	CHECK(!read_over);
	EQUAL(sigqueue(getpid(), 50, (union sigval){ .sival_int = 4 }), 0);
	EQUAL(pthread_join(thread, NULL), 0);
	EQUAL(got.ssi_signo, 50);
	EQUAL(got.ssi_int, 4);
	pod_pass();
}
