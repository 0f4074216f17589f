/*
 * eventfd(2): counters (zero, small, the largest), semaphores, non-blocking and blocking ones, shared with a child
 * and under two numbers, with a blocked reader and a blocked writer.
 */
#include <sys/eventfd.h>
#include "pod-test.h"

#define LARGEST 0xfffffffffffffffe

static int zero, some, largest, semaphore, shared, duplicate, waited, full;
static _Atomic bool read_over, write_over;
static _Atomic uint64_t read_value;

static uint64_t count_of(int fd) {
	char path[64], text[64];
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	return strtoull(pod_field(path, "eventfd-count", text, sizeof text), NULL, 16);
}

static void add(int fd, uint64_t value) {
	EQUAL(write(fd, &value, 8), 8);
}

static uint64_t take(int fd) {
	uint64_t value;
	EQUAL(read(fd, &value, 8), 8);
	return value;
}

static void *block_reading(void *argument) {
	(void)argument;
	read_value = take(waited);
	read_over = true;
	return NULL;
}

static void *block_writing(void *argument) {
	(void)argument;
	add(full, 5);
	write_over = true;
	return NULL;
}

static void check(void) {
	EQUAL(count_of(zero), 0);
	EQUAL(count_of(some), 123456789012);
	EQUAL(count_of(largest), LARGEST);
	EQUAL(count_of(semaphore), 3);
	/* The child may see first that it is over, and has added then. */
	uint64_t both = count_of(shared);
	if (both != 42) EQUAL(both, 40);
	EQUAL(count_of(duplicate), 123456789012);
	EQUAL(count_of(full), LARGEST - 2);
	CHECKF(!read_over, "a blocked read came back");
	CHECKF(!write_over, "a blocked write came back");
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	zero = MUST(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
	some = MUST(eventfd(0, 0));
	add(some, 123456789012);
	largest = MUST(eventfd(0, EFD_NONBLOCK));
	add(largest, LARGEST);
	semaphore = MUST(eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK));
	shared = MUST(eventfd(40, 0));
	waited = MUST(eventfd(0, 0));
	full = MUST(eventfd(0, 0));
	add(full, LARGEST - 2);
	duplicate = MUST(fcntl(some, F_DUPFD_CLOEXEC, 100));
	pid_t child = MUST(fork());
	if (child == 0) {
		while (pod_child_turn()) EQUAL(count_of(shared), 40);
		add(shared, 2);
		_exit(0);
	}
	pthread_t threads[2];
	EQUAL(pthread_create(&threads[0], NULL, block_reading, NULL), 0);
	EQUAL(pthread_create(&threads[1], NULL, block_writing, NULL), 0);
	pod_sleep(30);
	pod_ready();

	if (pod_break("count")) add(some, 1);
	if (pod_break("mode")) dup2(MUST(eventfd(3, EFD_NONBLOCK)), semaphore);
	if (pod_break("flags")) fcntl(largest, F_SETFL, 0);
	if (pod_break("blocked-read")) add(waited, 1);
	if (pod_break("blocked-write")) take(full);
	if (pod_break("sharing")) dup2(MUST(eventfd(40, 0)), shared);
	if (pod_break("dup")) {
		dup3(MUST(eventfd(0, 0)), duplicate, O_CLOEXEC);
		add(duplicate, 123456789012);
	}
	while (pod_turn()) check();
	/* The child adds to its own after go. */
	int64_t end = pod_now() + 10 * SECOND;
	while (count_of(shared) != 42) {
		CHECKF(pod_now() < end, "what the child added never came");
		pod_sleep(2);
	}
	EQUAL(take(shared), 42);
	uint64_t value;
	FAILS(read(zero, &value, 8), EAGAIN);
	EQUAL(fcntl(zero, F_GETFD), FD_CLOEXEC);
	EQUAL(fcntl(zero, F_GETFL), O_RDWR | O_NONBLOCK);
	EQUAL(fcntl(some, F_GETFL), O_RDWR);
	EQUAL(fcntl(largest, F_GETFL), O_RDWR | O_NONBLOCK);
	value = 1;
	FAILS(write(largest, &value, 8), EAGAIN);
	EQUAL(take(largest), LARGEST);
	for (int i = 0; i < 3; i++) EQUAL(take(semaphore), 1);
	FAILS(read(semaphore, &value, 8), EAGAIN);
	EQUAL(take(duplicate), 123456789012);
	EQUAL(count_of(some), 0);
	CHECK(!read_over && !write_over);
	add(waited, 77);
	EQUAL(pthread_join(threads[0], NULL), 0);
	EQUAL(read_value, 77);
	EQUAL(take(full), LARGEST - 2);
	EQUAL(pthread_join(threads[1], NULL), 0);
	EQUAL(take(full), 5);
	pod_reap(child);
	pod_pass();
}
