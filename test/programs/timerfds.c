/*
 * timerfd: relative and absolute, one-shot and periodic, on several clocks; expired with unread ticks, disarmed,
 * with TFD_TIMER_CANCEL_ON_SET; a periodic one that a thread reads all the time, blocked between the ticks.
 */
#include <sys/timerfd.h>
#include "pod-test.h"

static struct {
	const char *what;
	clockid_t clock;
	int create, set;
	int64_t value, interval;
	int fd;
	int64_t last;
} timers[] = {
	{ "hour", CLOCK_MONOTONIC, TFD_CLOEXEC, 0, 3600 * SECOND, 0, -1, 0 },
	{ "hour, periodic", CLOCK_REALTIME, TFD_NONBLOCK, 0, 3600 * SECOND, 61 * SECOND + 5, -1, 0 },
	{ "absolute hour", CLOCK_MONOTONIC, 0, TFD_TIMER_ABSTIME, 3600 * SECOND, 9 * SECOND, -1, 0 },
	{ "absolute wall clock", CLOCK_REALTIME, 0, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, 3600 * SECOND, 0, -1, 0 },
	{ "boot time", CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC, 0, 7200 * SECOND, 0, -1, 0 },
	{ "disarmed", CLOCK_MONOTONIC, TFD_NONBLOCK, 0, 0, 0, -1, 0 },
};

static int expired, unread, ticking, soon;
static int64_t set_up, set_up_wall, wall_due, soon_due;
static _Atomic uint64_t ticks;
static _Atomic bool over;

static int64_t nanoseconds(struct timespec time) {
	return time.tv_sec * SECOND + time.tv_nsec;
}

static void set(int fd, int flags, int64_t value, int64_t interval) {
	struct itimerspec when = { pod_timespec(interval), pod_timespec(value) };
	EQUAL(timerfd_settime(fd, flags, &when, NULL), 0);
}

static void check(void) {
	for (size_t i = 0; i < COUNT(timers); i++) {
		struct itimerspec now;
		CHECKF(timerfd_gettime(timers[i].fd, &now) == 0, "'%s' is gone", timers[i].what);
		int64_t value = nanoseconds(now.it_value);
		CHECKF(nanoseconds(now.it_interval) == timers[i].interval, "the interval of '%s' is %ld ns", timers[i].what,
		       (long)nanoseconds(now.it_interval));
		if (timers[i].value == 0) {
			EQUAL(value, 0);
			continue;
		}
		CHECKF(value <= timers[i].last + 20 * MILLISECOND, "'%s' went back from %ld to %ld ns", timers[i].what,
		       (long)timers[i].last, (long)value);
		/* For a moment of the wall clock time passes also while the session does not exist. */
		bool moment = timers[i].clock == CLOCK_REALTIME && (timers[i].set & TFD_TIMER_ABSTIME);
		int64_t passed = moment ? pod_clock(CLOCK_REALTIME) - set_up_wall : pod_now() - set_up;
		CHECKF(value >= timers[i].value - passed - 2 * SECOND, "'%s' lost time: %ld ns left", timers[i].what,
		       (long)value);
		timers[i].last = value;
	}
}

static uint64_t unread_ticks(int fd) {
	char path[64], text[64];
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	return strtoull(pod_field(path, "ticks", text, sizeof text), NULL, 10);
}

static void *read_ticks(void *argument) {
	(void)argument;
	while (!over) {
		uint64_t count;
		EQUAL(read(ticking, &count, 8), 8);
		CHECK(count > 0);
		ticks += count;
	}
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	set_up = pod_now();
	set_up_wall = pod_clock(CLOCK_REALTIME);
	for (size_t i = 0; i < COUNT(timers); i++) {
		timers[i].fd = MUST(timerfd_create(timers[i].clock, timers[i].create));
		bool absolute = timers[i].set & TFD_TIMER_ABSTIME;
		int64_t value = timers[i].value + (absolute ? pod_clock(timers[i].clock) : 0);
		if (timers[i].value) set(timers[i].fd, timers[i].set, value, timers[i].interval);
		timers[i].last = timers[i].value;
		if (timers[i].clock == CLOCK_REALTIME && absolute) wall_due = value;
	}
	expired = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	set(expired, 0, 1, 0);
	unread = MUST(timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK));
	set(unread, 0, 5 * MILLISECOND, 5 * MILLISECOND);
	ticking = MUST(timerfd_create(CLOCK_MONOTONIC, 0));
	int64_t started = pod_now();
	set(ticking, 0, 20 * MILLISECOND, 20 * MILLISECOND);
	soon = MUST(timerfd_create(CLOCK_MONOTONIC, 0));
	soon_due = pod_now() + 1500 * MILLISECOND;
	set(soon, TFD_TIMER_ABSTIME, soon_due, 0);
	pthread_t thread;
	EQUAL(pthread_create(&thread, NULL, read_ticks, NULL), 0);
	EVENTUALLY(ticks > 2);
	/* Many unread ones, so that an image without them shows. */
	pod_sleep(300);
	pod_ready();

	uint64_t count;
	if (pod_break("value")) set(timers[0].fd, 0, 1800 * SECOND, 0);
	if (pod_break("later")) set(timers[4].fd, 0, 7300 * SECOND, 0);
	if (pod_break("interval")) set(timers[1].fd, 0, 3600 * SECOND, 60 * SECOND);
	if (pod_break("armed")) set(timers[5].fd, 0, 100 * SECOND, 0);
	if (pod_break("expired")) EQUAL(read(expired, &count, 8), 8);
	if (pod_break("unread")) EQUAL(read(unread, &count, 8), 8);
	if (pod_break("stopped")) set(ticking, 0, 100 * SECOND, 0);
	if (pod_break("wall-clock")) set(timers[3].fd, TFD_TIMER_ABSTIME, wall_due + 5 * SECOND, 0);
	if (pod_break("early")) set(soon, 0, 1, 0);
	if (pod_break("absolute")) set(timers[2].fd, 0, 3600 * SECOND, 9 * SECOND);

	while (pod_turn()) {
		check();
		/* The kernel counts the others when it is asked for them. */
		CHECKF(unread_ticks(unread) >= 1, "the unread ticks are gone");
		EQUAL(unread_ticks(expired), 1);
		CHECKF(ticks <= (uint64_t)((pod_now() - started) / (20 * MILLISECOND) + 2), "too many ticks");
	}
	check();
	EQUAL(fcntl(timers[0].fd, F_GETFD), FD_CLOEXEC);
	EQUAL(fcntl(timers[1].fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	EQUAL(fcntl(timers[0].fd, F_GETFL) & O_NONBLOCK, 0);
	/* An absolute time on the wall clock is that time, however long the image lay. */
	struct itimerspec now;
	EQUAL(timerfd_gettime(timers[3].fd, &now), 0);
	int64_t off = pod_clock(CLOCK_REALTIME) + nanoseconds(now.it_value) - wall_due;
	CHECKF(llabs(off) < 300 * MILLISECOND, "the wall clock timer is off by %ld ms", (long)(off / MILLISECOND));
	static const int flags[] = { 0, 0, 1, 3, 0, 0 };
	for (size_t i = 0; i < COUNT(timers); i++) {
		char path[64], text[64];
		snprintf(path, sizeof path, "/proc/self/fdinfo/%d", timers[i].fd);
		if (timers[i].value) EQUAL(strtol(pod_field(path, "settime flags", text, sizeof text), NULL, 8), flags[i]);
		EQUAL(atoi(pod_field(path, "clockid", text, sizeof text)), timers[i].clock);
	}
	EQUAL(read(expired, &count, 8), 8);
	EQUAL(count, 1);
	FAILS(read(expired, &count, 8), EAGAIN);
	EQUAL(read(unread, &count, 8), 8);
	CHECKF(count >= 50, "%lu unread ticks, there were at least 50", count);
	FAILS(read(timers[5].fd, &count, 8), EAGAIN);
	EQUAL(read(soon, &count, 8), 8);
	EQUAL(count, 1);
	CHECKF(pod_now() >= soon_due - 5 * MILLISECOND, "an absolute timer rang %ld ms early",
	       (long)((soon_due - pod_now()) / MILLISECOND));
	uint64_t seen = ticks;
	int64_t end = pod_now() + 10 * SECOND;
	while (ticks < seen + 3) {
		CHECKF(pod_now() < end, "no more ticks");
		pod_sleep(5);
	}
	over = true;
	EQUAL(pthread_join(thread, NULL), 0);
	pod_pass();
}
