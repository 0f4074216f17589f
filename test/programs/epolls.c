/*
 * epoll(7): entries of every kind (pipe, eventfd, timerfd, signalfd, socket, terminal-less device, another epoll),
 * level, edge, one-shot (armed and fired) and exclusive, with their data; an entry whose descriptor has been closed
 * while its file lives on under another number; one epoll shared by fork; a blocked epoll_wait.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include "pod-test.h"

#ifndef EPOLLEXCLUSIVE
#define EPOLLEXCLUSIVE (1u << 28)
#endif

static int poller, inner, shared, waited, tube[2], quiet[2], event, shot, fired, timer, signals, pair[2], exclusive,
    moved_from, moved_to, woken;

#define DATA(n) (0xabcd000000000000 | (uint64_t)(n))

static void add(int epoll, int fd, uint32_t events, uint64_t data) {
	struct epoll_event entry = { .events = events, .data.u64 = data };
	EQUAL(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &entry), 0);
}

struct entry {
	int fd;
	unsigned events;
	unsigned long data;
};

/* The interest list as /proc/self/fdinfo tells it. */
static size_t list(int epoll, struct entry entries[32]) {
	char path[64], text[8192];
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", epoll);
	pod_read_text(path, text, sizeof text);
	size_t count = 0;
	for (char *line = strstr(text, "tfd:"); line && count < 32; line = strstr(line + 4, "tfd:"), count++)
		CHECK(sscanf(line, "tfd: %d events: %x data: %lx", &entries[count].fd, &entries[count].events,
		             &entries[count].data) == 3);
	return count;
}

static struct entry expected[32], expected_inner[32];
static size_t expected_count, expected_inner_count;

static void check_list(int epoll, const struct entry *entries, size_t count) {
	struct entry now[32];
	size_t found = list(epoll, now);
	CHECKF(found == count, "%zu entries, should be %zu", found, count);
	for (size_t i = 0; i < count; i++) {
		size_t at = 0;
		while (at < found && (now[at].fd != entries[i].fd || now[at].data != entries[i].data)) at++;
		CHECKF(at < found, "the entry of descriptor %d is gone", entries[i].fd);
		CHECKF(now[at].events == entries[i].events, "the entry of descriptor %d has events %x, should be %x",
		       entries[i].fd, now[at].events, entries[i].events);
	}
}

/* The events of one entry in one look; 0 when it reports nothing. */
static uint32_t look(int epoll, uint64_t data) {
	struct epoll_event events[32];
	int count = MUST(epoll_wait(epoll, events, 32, 0));
	for (int i = 0; i < count; i++)
		if (events[i].data.u64 == data) return events[i].events;
	return 0;
}

static void check(void) {
	check_list(poller, expected, expected_count);
	check_list(inner, expected_inner, expected_inner_count);
}

static _Atomic bool wait_over;
static struct epoll_event got;

static void *block(void *argument) {
	(void)argument;
	/* The kernel interrupts it at every stop of the task (signal(7)). */
	int result;
	while ((result = epoll_wait(waited, &got, 1, -1)) == -1 && errno == EINTR) continue;
	EQUAL(result, 1);
	wait_over = true;
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	poller = MUST(epoll_create1(EPOLL_CLOEXEC));
	inner = MUST(epoll_create1(0));
	shared = MUST(epoll_create1(0));
	waited = MUST(epoll_create1(0));
	EQUAL(pipe2(tube, O_NONBLOCK), 0);
	EQUAL(pipe2(quiet, O_NONBLOCK), 0);
	event = MUST(eventfd(5, EFD_NONBLOCK));
	shot = MUST(eventfd(0, EFD_NONBLOCK));
	fired = MUST(eventfd(9, EFD_NONBLOCK));
	exclusive = MUST(eventfd(0, EFD_NONBLOCK));
	woken = MUST(eventfd(0, EFD_NONBLOCK));
	timer = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = MUST(signalfd(-1, &set, SFD_NONBLOCK));
	EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	moved_from = MUST(eventfd(0, EFD_NONBLOCK));

	add(poller, tube[0], EPOLLIN, DATA(1));
	add(poller, tube[1], EPOLLOUT | EPOLLET, DATA(2));
	add(poller, event, EPOLLIN | EPOLLET, DATA(3));
	add(poller, shot, EPOLLIN | EPOLLONESHOT, DATA(4));
	add(poller, fired, EPOLLIN | EPOLLONESHOT, DATA(5));
	add(poller, timer, EPOLLIN, DATA(6));
	add(poller, signals, EPOLLIN, DATA(7));
	add(poller, pair[0], EPOLLIN | EPOLLRDHUP | EPOLLPRI, DATA(8));
	add(poller, exclusive, EPOLLIN | EPOLLEXCLUSIVE, DATA(9));
	add(poller, inner, EPOLLIN, DATA(10));
	add(inner, quiet[0], EPOLLIN, DATA(11));
	add(poller, quiet[0], EPOLLIN | EPOLLET, DATA(12));
	/* The entry keeps the number under which it was made. */
	add(poller, moved_from, EPOLLIN, DATA(13));
	moved_to = MUST(dup2(moved_from, 222));
	close(moved_from);
	add(shared, quiet[0], EPOLLIN, 0xffffffffffffffff);
	add(waited, woken, EPOLLIN, 0);
	CHECK(look(poller, DATA(5)) == EPOLLIN);
	CHECK(look(poller, DATA(5)) == 0);
	expected_count = list(poller, expected);
	expected_inner_count = list(inner, expected_inner);
	EQUAL(expected_count, 12);
	EQUAL(expected_inner_count, 1);
	pid_t child = MUST(fork());
	if (child == 0) {
		close(pair[1]);
		while (pod_child_turn()) continue;
		pod_await("ask-child");
		struct epoll_event one;
		EQUAL(epoll_wait(shared, &one, 1, 10000), 1);
		EQUAL(one.data.u64, 0xffffffffffffffff);
		EQUAL(one.events, EPOLLIN);
		_exit(0);
	}
	pthread_t thread;
	EQUAL(pthread_create(&thread, NULL, block, NULL), 0);
	pod_sleep(30);
	pod_ready();

	struct epoll_event entry = { .events = EPOLLIN, .data.u64 = DATA(1) };
	if (pod_break("gone")) EQUAL(epoll_ctl(poller, EPOLL_CTL_DEL, tube[0], NULL), 0);
	if (pod_break("events")) entry.events = EPOLLOUT, epoll_ctl(poller, EPOLL_CTL_MOD, tube[0], &entry);
	if (pod_break("data")) entry.data.u64 = 1, epoll_ctl(poller, EPOLL_CTL_MOD, tube[0], &entry);
	if (pod_break("rearmed")) {
		entry.events = EPOLLIN | EPOLLONESHOT;
		entry.data.u64 = DATA(5);
		epoll_ctl(poller, EPOLL_CTL_MOD, fired, &entry);
	}
	if (pod_break("inner")) EQUAL(epoll_ctl(inner, EPOLL_CTL_DEL, quiet[0], NULL), 0);
	if (pod_break("blocked-wait")) eventfd_write(woken, 1);
	if (pod_break("moved")) close(moved_to);

	while (pod_turn()) {
		check();
		CHECKF(!wait_over, "a blocked epoll_wait came back");
	}
	check();
	CHECKF(!wait_over, "a blocked epoll_wait came back");
	EQUAL(fcntl(poller, F_GETFD), FD_CLOEXEC);
	/* Nothing is ready that should not be. (An edge may be told once more.) */
	static const int silent[] = { 1, 4, 5, 6, 7, 8, 9, 10, 13 };
	for (size_t i = 0; i < COUNT(silent); i++)
		CHECKF(look(poller, DATA(silent[i])) == 0, "entry %d is ready, which it is not", silent[i]);
	/* Level: as long as there is something; edge: once for each arrival. */
	EQUAL(write(tube[1], "x", 1), 1);
	CHECK(look(poller, DATA(1)) == EPOLLIN);
	CHECK(look(poller, DATA(1)) == EPOLLIN);
	for (int i = 0; i < 5; i++) look(poller, 0);
	CHECK(look(poller, DATA(3)) == 0);
	EQUAL(eventfd_write(event, 1), 0);
	CHECK(look(poller, DATA(3)) == EPOLLIN);
	CHECK(look(poller, DATA(3)) == 0);
	EQUAL(eventfd_write(shot, 1), 0);
	CHECK(look(poller, DATA(4)) == EPOLLIN);
	CHECK(look(poller, DATA(4)) == 0);
	EQUAL(eventfd_write(fired, 1), 0);
	CHECK(look(poller, DATA(5)) == 0);
	entry = (struct epoll_event){ .events = EPOLLIN | EPOLLONESHOT, .data.u64 = DATA(50) };
	EQUAL(epoll_ctl(poller, EPOLL_CTL_MOD, fired, &entry), 0);
	CHECK(look(poller, DATA(50)) == EPOLLIN);
	struct itimerspec soon = { .it_value = { .tv_nsec = 1 } };
	EQUAL(timerfd_settime(timer, 0, &soon, NULL), 0);
	EVENTUALLY(look(poller, DATA(6)) == EPOLLIN);
	EQUAL(kill(getpid(), SIGUSR1), 0);
	CHECK(look(poller, DATA(7)) == EPOLLIN);
	EQUAL(write(pair[1], "x", 1), 1);
	CHECK(look(poller, DATA(8)) == EPOLLIN);
	close(pair[1]);
	CHECK(look(poller, DATA(8)) & EPOLLRDHUP);
	EQUAL(eventfd_write(exclusive, 1), 0);
	CHECK(look(poller, DATA(9)) == EPOLLIN);
	EQUAL(write(quiet[1], "x", 1), 1);
	CHECK(look(poller, DATA(10)) == EPOLLIN);
	CHECK(look(inner, DATA(11)) == EPOLLIN);
	EQUAL(eventfd_write(moved_to, 1), 0);
	CHECK(look(poller, DATA(13)) == EPOLLIN);
	pod_mark("ask-child");
	pod_reap(child);
	CHECK(!wait_over);
	EQUAL(eventfd_write(woken, 1), 0);
	EQUAL(pthread_join(thread, NULL), 0);
	EQUAL(got.data.u64, 0);
	EQUAL(got.events, EPOLLIN);
	/* Entries can still be changed by number. */
	EQUAL(epoll_ctl(poller, EPOLL_CTL_DEL, tube[0], NULL), 0);
	FAILS(epoll_ctl(poller, EPOLL_CTL_ADD, event, &entry), EEXIST);
	pod_pass();
}
