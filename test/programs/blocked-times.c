/*
 * Calls that wait with a relative time-out, which the program gives no place for the rest of: poll, a futex, sleeps. Each
 * waits on until it is woken. That it waits no longer than the rest test/kmod/guest/rests.ts sees in images.
 */
#include <linux/futex.h>
#include <poll.h>
#include "pod-test.h"

#define HOUR 3600

static int silent[2];
static _Atomic uint32_t word;
static _Atomic int returned, blocked;
static _Atomic bool over;

static void wait_poll(void) {
	struct pollfd entry = { .fd = silent[0], .events = POLLIN };
	EQUAL(poll(&entry, 1, HOUR * 1000), 1);
	EQUAL(entry.revents, POLLIN);
}

static void wait_futex(void) {
	struct timespec time = { .tv_sec = HOUR };
	EQUAL(syscall(SYS_futex, &word, FUTEX_WAIT, 0, &time), 0);
	EQUAL(time.tv_sec, HOUR);
}

static void wait_sleep(void) {
	struct timespec time = { .tv_sec = HOUR };
	FAILS(nanosleep(&time, NULL), EINTR);
	EQUAL(time.tv_sec, HOUR);
}

static void wait_clock(void) {
	struct timespec time = { .tv_sec = HOUR };
	EQUAL(clock_nanosleep(CLOCK_BOOTTIME, 0, &time, NULL), EINTR);
	EQUAL(time.tv_sec, HOUR);
}

static void (*const waits[])(void) = { wait_poll, wait_futex, wait_sleep, wait_clock };
static const char *const names[] = { "poll", "futex", "nanosleep", "clock_nanosleep" };
static pthread_t threads[COUNT(waits)];

static void *run(void *argument) {
	size_t i = (size_t)argument;
	blocked++;
	waits[i]();
	CHECKF(over, "%s came back by itself", names[i]);
	returned++;
	return NULL;
}

static void handle(int signal) {
	(void)signal;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	struct sigaction action = { .sa_handler = handle };
	EQUAL(sigaction(SIGUSR1, &action, NULL), 0);
	EQUAL(pipe(silent), 0);
	for (size_t i = 0; i < COUNT(waits); i++) EQUAL(pthread_create(&threads[i], NULL, run, (void *)i), 0);
	EVENTUALLY(blocked == COUNT(waits));
	pod_sleep(50);
	pod_ready();
	if (pod_break("poll")) EQUAL(write(silent[1], "x", 1), 1);
	if (pod_break("futex")) syscall(SYS_futex, &word, FUTEX_WAKE, 1);
	if (pod_break("sleep")) EQUAL(pthread_kill(threads[2], SIGUSR1), 0);
	while (pod_turn()) EQUAL(returned, 0);
	EQUAL(returned, 0);
	over = true;
	EQUAL(write(silent[1], "x", 1), 1);
	EQUAL(syscall(SYS_futex, &word, FUTEX_WAKE, 1), 1);
	for (size_t i = 2; i < COUNT(waits); i++) EQUAL(pthread_kill(threads[i], SIGUSR1), 0);
	for (size_t i = 0; i < COUNT(waits); i++) {
		struct timespec end = pod_timespec(pod_clock(CLOCK_REALTIME) + POD_PATIENCE);
		CHECKF(pthread_timedjoin_np(threads[i], NULL, &end) == 0, "%s never came back", names[i]);
	}
	pod_pass();
}
