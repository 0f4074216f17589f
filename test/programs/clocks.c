/*
 * CLOCK_MONOTONIC and CLOCK_BOOTTIME go on from where they were, wherever and whenever the session does: they never
 * go back, and time in which the session did not exist is no time for them. DIR/gap tells by how many milliseconds
 * the wall clock got ahead of them in all; whoever moved the session knows how many these must be. Sleepers until
 * an absolute monotonic time (by nanosleep, by a condition variable, by a timer) wake at that time, not before.
 */
#include <sys/timerfd.h>
#include "pod-test.h"

static int64_t last_monotonic, last_boot, first_lead;
static _Atomic int awake;

static int64_t lead(void) {
	return pod_clock(CLOCK_REALTIME) - pod_clock(CLOCK_MONOTONIC);
}

static void check(void) {
	int64_t monotonic = pod_clock(CLOCK_MONOTONIC), boot = pod_clock(CLOCK_BOOTTIME);
	CHECKF(monotonic >= last_monotonic, "CLOCK_MONOTONIC went back by %lld", (long long)(last_monotonic - monotonic));
	CHECKF(boot >= last_boot, "CLOCK_BOOTTIME went back by %lld", (long long)(last_boot - boot));
	/* The two count alike, as long as the machine does not sleep. */
	if (last_boot) CHECKF(llabs((long long)((boot - monotonic) - (last_boot - last_monotonic))) < SECOND, "clocks part");
	last_monotonic = monotonic;
	last_boot = boot;
}

static void woke(int64_t goal, const char *who) {
	int64_t late = pod_now() - goal;
	CHECKF(late >= 0, "%s woke %lld ns early", who, (long long)-late);
	CHECKF(late < 30 * SECOND, "%s woke %lld ns late", who, (long long)late);
	awake++;
}

static void *sleep_until(void *argument) {
	int64_t goal = *(int64_t *)argument;
	struct timespec time = pod_timespec(goal);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR) continue;
	woke(goal, "clock_nanosleep");
	return NULL;
}

static void *wait_until(void *argument) {
	int64_t goal = *(int64_t *)argument;
	struct timespec time = pod_timespec(goal);
	pthread_condattr_t attributes;
	pthread_cond_t condition;
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&condition, &attributes);
	pthread_mutex_lock(&mutex);
	while (pthread_cond_timedwait(&condition, &mutex, &time) != ETIMEDOUT) continue;
	pthread_mutex_unlock(&mutex);
	woke(goal, "pthread_cond_timedwait");
	return NULL;
}

static void *read_timer(void *argument) {
	int64_t goal = *(int64_t *)argument;
	int timer = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
	struct itimerspec when = { .it_value = pod_timespec(goal) };
	EQUAL(timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL), 0);
	uint64_t expirations;
	EQUAL(read(timer, &expirations, sizeof expirations), sizeof expirations);
	EQUAL(expirations, 1);
	/* A timer goes on with its rest, counted to the nanosecond at the dump and from the restart on. */
	woke(goal - 5 * MILLISECOND, "timerfd");
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	first_lead = lead();
	check();
	pod_ready();
	if (pod_break("back")) last_monotonic += 3600 * SECOND;
	if (pod_break("part")) last_boot -= 10 * SECOND;
	/* New sleepers every time all have woken: at whatever moment the session moves, some sleep. */
	int64_t goals[3];
	pthread_t threads[3];
	void *(*const sleepers[])(void *) = { sleep_until, wait_until, read_timer };
	bool more = true;
	while (more) {
		awake = 0;
		for (size_t i = 0; i < COUNT(threads); i++) {
			goals[i] = pod_now() + 400 * MILLISECOND;
			EQUAL(pthread_create(&threads[i], NULL, sleepers[i], &goals[i]), 0);
		}
		while (more && awake < (int)COUNT(threads)) {
			more = pod_turn();
			check();
		}
		for (size_t i = 0; i < COUNT(threads); i++) pthread_join(threads[i], NULL);
	}
	char text[32];
	snprintf(text, sizeof text, "%lld\n", (long long)((lead() - first_lead) / MILLISECOND));
	pod_write_file("gap", text);
	pod_pass();
}
