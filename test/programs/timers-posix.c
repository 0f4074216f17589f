/*
 * POSIX timers: several clocks, told by a signal to the process, to one thread, or not at all; ids with gaps, which
 * must be kept; a pending expiry with its overruns; overruns that were told with the last signal; disarmed, periodic, relative and absolute ones.
 */
#include "pod-test.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

typedef int kernel_timer;

static struct {
	const char *what;
	clockid_t clock;
	int notify, signal;
	int64_t value, interval; /* ns; 0 is disarmed */
	bool absolute;
	kernel_timer id;
	bool exists;
	int64_t last;
} timers[] = {
	{ .what = "hour, realtime", .clock = CLOCK_REALTIME, .notify = SIGEV_SIGNAL, .signal = 40, .value = 3600 * SECOND },
	{ .what = "deleted 0", .clock = CLOCK_REALTIME, .notify = SIGEV_NONE },
	{ .what = "hour, monotonic, nobody told", .clock = CLOCK_MONOTONIC, .notify = SIGEV_NONE, .value = 3600 * SECOND,
	  .interval = 5 * SECOND },
	{ .what = "hour, boottime", .clock = CLOCK_BOOTTIME, .notify = SIGEV_SIGNAL, .signal = 41, .value = 3600 * SECOND,
	  .interval = 7 * SECOND + 1 },
	{ .what = "deleted 1", .clock = CLOCK_MONOTONIC, .notify = SIGEV_NONE },
	{ .what = "deleted 2", .clock = CLOCK_MONOTONIC, .notify = SIGEV_NONE },
	{ .what = "process cpu", .clock = CLOCK_PROCESS_CPUTIME_ID, .notify = SIGEV_SIGNAL, .signal = 42,
	  .value = 3600 * SECOND },
	{ .what = "disarmed", .clock = CLOCK_MONOTONIC, .notify = SIGEV_SIGNAL, .signal = 43 },
	{ .what = "absolute hour", .clock = CLOCK_MONOTONIC, .notify = SIGEV_SIGNAL, .signal = 44, .value = 3600 * SECOND,
	  .absolute = true },
	{ .what = "to a thread", .clock = CLOCK_MONOTONIC, .notify = SIGEV_THREAD_ID, .signal = 45, .value = 20 * MILLISECOND,
	  .interval = 20 * MILLISECOND },
	{ .what = "periodic", .clock = CLOCK_REALTIME, .notify = SIGEV_SIGNAL, .signal = 46, .value = 20 * MILLISECOND,
	  .interval = 20 * MILLISECOND },
	{ .what = "overrunning", .clock = CLOCK_MONOTONIC, .notify = SIGEV_SIGNAL, .signal = 47, .value = MILLISECOND,
	  .interval = MILLISECOND },
	{ .what = "burning", .clock = CLOCK_PROCESS_CPUTIME_ID, .notify = SIGEV_SIGNAL, .signal = 48,
	  .value = 20 * MILLISECOND, .interval = 20 * MILLISECOND },
};

static _Atomic int ticks[65];
static _Atomic pid_t ticked_in[65], told;
static _Atomic bool over;
static _Atomic int64_t values[65];

static void count(int signal, siginfo_t *info, void *context) {
	(void)context;
	if (info->si_code == SI_TIMER) ticks[signal]++;
	ticked_in[signal] = (pid_t)syscall(SYS_gettid);
	values[signal] = (int64_t)info->si_value.sival_ptr;
}

static void *be_told(void *argument) {
	(void)argument;
	told = (pid_t)syscall(SYS_gettid);
	while (!over) pod_sleep(5);
	return NULL;
}

static void create(size_t i) {
	struct sigevent event;
	memset(&event, 0, sizeof event);
	event.sigev_notify = timers[i].notify;
	event.sigev_signo = timers[i].signal;
	event.sigev_value.sival_ptr = (void *)(0x1000000000 + i);
	if (timers[i].notify == SIGEV_THREAD_ID) event.sigev_notify_thread_id = told;
	EQUAL(syscall(SYS_timer_create, timers[i].clock, &event, &timers[i].id), 0);
	timers[i].exists = true;
}

static void arm(size_t i, int64_t value) {
	struct itimerspec when = { pod_timespec(timers[i].interval),
		                       pod_timespec(value + (timers[i].absolute ? pod_clock(timers[i].clock) : 0)) };
	EQUAL(syscall(SYS_timer_settime, timers[i].id, timers[i].absolute ? TIMER_ABSTIME : 0, &when, NULL), 0);
	timers[i].last = value;
}

static int64_t nanoseconds(struct timespec time) {
	return time.tv_sec * SECOND + time.tv_nsec;
}

/* Has run out so often since its last signal was taken: armed as if long ago, its signal taken at once. */
#define OVERRUNS 3
static struct {
	int notify;
	int64_t rest, period;
	kernel_timer id;
} overrun[] = {
	{ .notify = SIGEV_SIGNAL, .rest = 500 * SECOND, .period = 1000 * SECOND },
	{ .notify = SIGEV_THREAD_ID, .rest = 700 * SECOND, .period = 2000 * SECOND },
};

static void make_overrun(size_t i) {
	struct sigevent event;
	memset(&event, 0, sizeof event);
	event.sigev_notify = overrun[i].notify;
	event.sigev_signo = 49;
	event.sigev_notify_thread_id = getpid();
	EQUAL(syscall(SYS_timer_create, CLOCK_REALTIME, &event, &overrun[i].id), 0);
	sigset_t mine;
	sigemptyset(&mine);
	sigaddset(&mine, 49);
	int64_t first = pod_clock(CLOCK_REALTIME) + overrun[i].rest - (OVERRUNS + 1) * overrun[i].period;
	struct itimerspec when = { pod_timespec(overrun[i].period), pod_timespec(first) };
	EQUAL(syscall(SYS_timer_settime, overrun[i].id, TIMER_ABSTIME, &when, NULL), 0);
	siginfo_t info;
	int signal;
	while ((signal = sigwaitinfo(&mine, &info)) == -1 && errno == EINTR) continue;
	EQUAL(signal, 49);
	EQUAL(info.si_overrun, OVERRUNS);
}

static int64_t set_up;

static void check(size_t i) {
	struct itimerspec now;
	if (!timers[i].exists) {
		FAILS(syscall(SYS_timer_gettime, timers[i].id, &now), EINVAL);
		return;
	}
	CHECKF(syscall(SYS_timer_gettime, timers[i].id, &now) == 0, "timer %d (%s) is gone", timers[i].id, timers[i].what);
	int64_t value = nanoseconds(now.it_value), interval = nanoseconds(now.it_interval);
	CHECKF(interval == timers[i].interval, "the interval of '%s' is %ld ns", timers[i].what, (long)interval);
	if (timers[i].value == 0) {
		EQUAL(value, 0);
	} else if (timers[i].value > SECOND) {
		CHECKF(value <= timers[i].last + 20 * MILLISECOND, "'%s' went back from %ld to %ld ns", timers[i].what,
		       (long)timers[i].last, (long)value);
		CHECKF(value >= timers[i].value - (pod_now() - set_up) - 2 * SECOND, "'%s' lost time: %ld ns left",
		       timers[i].what, (long)value);
		timers[i].last = value;
	} else {
		CHECKF(value > 0 && value <= timers[i].interval, "'%s' is not running: %ld ns left", timers[i].what, (long)value);
	}
}

static void check_overrun(size_t i) {
	EQUAL(syscall(SYS_timer_getoverrun, overrun[i].id), OVERRUNS);
	struct itimerspec now;
	EQUAL(syscall(SYS_timer_gettime, overrun[i].id, &now), 0);
	EQUAL(nanoseconds(now.it_interval), overrun[i].period);
	int64_t rest = nanoseconds(now.it_value);
	CHECKF(rest <= overrun[i].rest && rest > overrun[i].rest - (pod_now() - set_up) - 2 * SECOND,
	       "a timer with overruns has %ld ns left", (long)rest);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pod_takes_signals = true;
	for (int signal = 40; signal <= 48; signal++) {
		struct sigaction action = { .sa_sigaction = count, .sa_flags = SA_RESTART | SA_SIGINFO };
		EQUAL(sigaction(signal, &action, NULL), 0);
	}
	pthread_t thread;
	EQUAL(pthread_create(&thread, NULL, be_told, NULL), 0);
	EVENTUALLY(told);
	sigset_t blocked;
	sigemptyset(&blocked);
	sigaddset(&blocked, 47);
	/* Blocked everywhere: its expiry stays pending, the rest are overruns. */
	EQUAL(pthread_cancel(thread), 0);
	EQUAL(pthread_join(thread, NULL), 0);
	sigaddset(&blocked, 49);
	EQUAL(pthread_sigmask(SIG_BLOCK, &blocked, NULL), 0);
	sigdelset(&blocked, 49);
	told = 0;
	EQUAL(pthread_create(&thread, NULL, be_told, NULL), 0);
	EVENTUALLY(told);

	for (size_t i = 0; i < COUNT(timers); i++) create(i);
	for (size_t i = 0; i < COUNT(timers); i++)
		if (strncmp(timers[i].what, "deleted", 7) == 0) {
			EQUAL(syscall(SYS_timer_delete, timers[i].id), 0);
			timers[i].exists = false;
		}
	set_up = pod_now();
	for (size_t i = 0; i < COUNT(timers); i++)
		if (timers[i].exists && timers[i].value) arm(i, timers[i].value);
	for (size_t i = 0; i < COUNT(overrun); i++) make_overrun(i);
	pod_sleep(50);
	sigset_t pending;
	sigpending(&pending);
	CHECK(sigismember(&pending, 47));
	pod_ready();

	if (pod_break("id")) {
		syscall(SYS_timer_delete, timers[3].id);
		int id = timers[3].id;
		create(3);
		arm(3, timers[3].value);
		CHECK(timers[3].id != id);
		timers[3].id = id;
	}
	if (pod_break("value")) arm(0, 1800 * SECOND), timers[0].last = timers[0].value;
	if (pod_break("later")) arm(2, 3700 * SECOND), timers[2].last = timers[2].value;
	if (pod_break("interval")) {
		timers[2].interval++;
		arm(2, timers[2].value);
		timers[2].interval--;
	}
	if (pod_break("disarmed")) arm(7, 100 * SECOND);
	if (pod_break("stopped")) arm(10, 0);
	if (pod_break("cpu-stopped")) arm(12, 0);
	if (pod_break("thread")) told = getpid();
	if (pod_break("pending")) signal(47, SIG_IGN);
	if (pod_break("overrun")) {
		struct itimerspec when = { pod_timespec(overrun[0].period), pod_timespec(overrun[0].rest) };
		EQUAL(syscall(SYS_timer_settime, overrun[0].id, 0, &when, NULL), 0);
	}

	while (pod_turn()) {
		for (size_t i = 0; i < COUNT(timers); i++) check(i);
		for (size_t i = 0; i < COUNT(overrun); i++) check_overrun(i);
		sigpending(&pending);
		CHECKF(sigismember(&pending, 47), "the pending expiry is lost");
	}
	for (size_t i = 0; i < COUNT(timers); i++) check(i);
	for (size_t i = 0; i < COUNT(overrun); i++) check_overrun(i);
	for (int signal = 40; signal <= 44; signal++) EQUAL(ticks[signal], 0);
	EQUAL(ticks[47], 0);

	/* The periodic ones tick on, each with its value, and in its thread. */
	int before[65];
	for (int signal = 45; signal <= 48; signal++) before[signal] = ticks[signal];
	for (int64_t end = pod_now() + 10 * SECOND;
	     ticks[45] < before[45] + 3 || ticks[46] < before[46] + 3 || ticks[48] < before[48] + 3;)
		CHECKF(pod_now() < end, "ticks: to the thread %d, periodic %d, burning %d", ticks[45] - before[45],
		       ticks[46] - before[46], ticks[48] - before[48]);
	EQUAL(ticked_in[45], told);
	EQUAL(values[45], 0x1000000000 + 9);
	EQUAL(values[46], 0x1000000000 + 10);
	EQUAL(values[48], 0x1000000000 + 12);

	/* The pending expiry, then more of them. */
	siginfo_t info;
	EQUAL(sigwaitinfo(&blocked, &info), 47);
	EQUAL(info.si_code, SI_TIMER);
	EQUAL((int64_t)info.si_value.sival_ptr, 0x1000000000 + 11);
	CHECK(syscall(SYS_timer_getoverrun, timers[11].id) >= 0);
	struct timespec limit = pod_timespec(5 * SECOND);
	int signal;
	for (int i = 0; i < 3; i++) {
		while ((signal = sigtimedwait(&blocked, &info, &limit)) == -1 && errno == EINTR) continue;
		EQUAL(signal, 47);
	}

	/* The next id is a fresh one, and the kept ones can be deleted. */
	kernel_timer fresh;
	EQUAL(syscall(SYS_timer_create, CLOCK_MONOTONIC, NULL, &fresh), 0);
	for (size_t i = 0; i < COUNT(timers); i++)
		if (timers[i].exists) {
			CHECK(fresh != timers[i].id);
			EQUAL(syscall(SYS_timer_delete, timers[i].id), 0);
		}
	over = true;
	EQUAL(pthread_join(thread, NULL), 0);
	pod_pass();
}
