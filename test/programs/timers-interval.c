/*
 * Interval timers (setitimer) of all three kinds: the main process has periodic ones that keep ticking, one child
 * long ones whose rest must go down but no faster than time itself, one child a one-shot that rings exactly once.
 */
#include <sys/time.h>
#include "pod-test.h"

#define PERIOD_US 20000

static _Atomic int ticks[65];

static void count(int signal) {
	ticks[signal]++;
}

static struct itimerval timer(int64_t value_us, int64_t interval_us) {
	return (struct itimerval){ .it_value = { value_us / 1000000, value_us % 1000000 },
		                       .it_interval = { interval_us / 1000000, interval_us % 1000000 } };
}

static int64_t microseconds(struct timeval time) {
	return time.tv_sec * 1000000LL + time.tv_usec;
}

static void set(int which, int64_t value_us, int64_t interval_us) {
	struct itimerval value = timer(value_us, interval_us);
	EQUAL(setitimer(which, &value, NULL), 0);
}

static void burn(int64_t milliseconds) {
	for (int64_t end = pod_clock(CLOCK_PROCESS_CPUTIME_ID) + milliseconds * MILLISECOND;
	     pod_clock(CLOCK_PROCESS_CPUTIME_ID) < end;)
		for (volatile int i = 0; i < 10000; i++) continue;
}

static const int kinds[] = { ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF };
static const int signals[] = { SIGALRM, SIGVTALRM, SIGPROF };
/* Hours: none of them rings during a test. */
static const int64_t long_values[] = { 3600500000, 7200250000, 10800125000 };
static const int64_t long_intervals[] = { 0, 33000000, 55000001 };

static void run_long(void) {
	int64_t last[3], start = pod_now();
	for (int i = 0; i < 3; i++) set(kinds[i], long_values[i], long_intervals[i]), last[i] = long_values[i];
	pod_mark("long");
	if (pod_break("interval")) set(ITIMER_VIRTUAL, long_values[1], 34000000);
	if (pod_break("value")) set(ITIMER_REAL, 600500000, 0);
	if (pod_break("disarmed")) set(ITIMER_PROF, 0, 0);
	if (pod_break("started-again")) pod_sleep(200), set(ITIMER_REAL, long_values[0] + 5000000, 0);
	do {
		/* CPU time is counted in ticks of the scheduler. */
		const int64_t slack = 20000;
		int64_t elapsed = (pod_now() - start) / 1000;
		for (int i = 0; i < 3; i++) {
			struct itimerval now;
			EQUAL(getitimer(kinds[i], &now), 0);
			/* The kernel may round an interval of CPU time up to its tick. */
			CHECKF(llabs(microseconds(now.it_interval) - long_intervals[i]) <= 10000, "interval of timer %d is %ld us", i,
			       (long)microseconds(now.it_interval));
			int64_t value = microseconds(now.it_value);
			CHECKF(value <= last[i] + slack, "timer %d went back from %ld to %ld us", i, (long)last[i], (long)value);
			CHECKF(value >= long_values[i] - elapsed - 2 * SECOND / 1000, "timer %d has %ld us left, lost time", i,
			       (long)value);
			last[i] = value;
		}
	} while (pod_child_turn());
	for (int i = 0; i < 3; i++) EQUAL(ticks[signals[i]], 0);
	_exit(0);
}

static void run_once(void) {
	int64_t start = pod_now();
	set(ITIMER_REAL, 1500000, 0);
	pod_mark("once");
	if (pod_break("once")) set(ITIMER_REAL, 0, 0);
	while (pod_child_turn())
		if (ticks[SIGALRM]) CHECKF(pod_now() - start > 1490 * MILLISECOND, "rang too early");
	/* Whether it was due before, while it was an image, or is yet to come. */
	int64_t end = pod_now() + 10 * SECOND;
	while (!ticks[SIGALRM]) {
		CHECKF(pod_now() < end, "the one-shot never rang");
		pod_sleep(2);
	}
	CHECKF(pod_now() - start > 1490 * MILLISECOND, "rang too early");
	pod_sleep(50);
	EQUAL(ticks[SIGALRM], 1);
	_exit(0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pod_takes_signals = true;
	for (int i = 0; i < 3; i++) {
		struct sigaction action = { .sa_handler = count, .sa_flags = SA_RESTART };
		EQUAL(sigaction(signals[i], &action, NULL), 0);
	}
	pid_t children[2];
	void (*const bodies[])(void) = { run_long, run_once };
	for (size_t i = 0; i < 2; i++) {
		children[i] = MUST(fork());
		if (children[i] == 0) bodies[i]();
	}
	pod_await("long");
	pod_await("once");
	for (int i = 0; i < 3; i++) set(kinds[i], PERIOD_US + i * 1000, PERIOD_US + i * 1000);
	int64_t start = pod_now();
	pod_ready();
	if (pod_break("real")) set(ITIMER_REAL, 0, 0);
	if (pod_break("virtual")) set(ITIMER_VIRTUAL, 0, 0);
	if (pod_break("prof")) set(ITIMER_PROF, 0, 0);
	if (pod_break("fast")) set(ITIMER_REAL, 1000, PERIOD_US / 10);
	while (pod_turn()) {
		/* Never more than time allows: no burst for the time in the image. */
		int64_t most = (pod_now() - start) / (PERIOD_US * 1000) + 3;
		CHECKF(ticks[SIGALRM] <= most, "%d ticks, at most %ld are possible", ticks[SIGALRM], (long)most);
	}
	for (int i = 0; i < 3; i++) {
		struct itimerval now;
		EQUAL(getitimer(kinds[i], &now), 0);
		CHECKF(llabs(microseconds(now.it_interval) - (PERIOD_US + i * 1000)) <= 10000, "interval of timer %d is %ld us", i,
		       (long)microseconds(now.it_interval));
		int before = ticks[signals[i]];
		for (int64_t end = pod_now() + 10 * SECOND; ticks[signals[i]] < before + 3;) {
			CHECKF(pod_now() < end, "timer %d does not tick", i);
			burn(10);
		}
	}
	for (size_t i = 0; i < 2; i++) pod_reap(children[i]);
	pod_pass();
}
