/*
 * Processor time used: of threads, of one that has ended, of the process, of its children. What a clock has shown once it
 * never falls below again. After a restart only the module gives that back (docs/kmod.md).
 * Restart: kmod
 */
#include <sys/resource.h>
#include "pod-test.h"

/* More than a restart costs: lost time shows. */
#define SPENT (700 * MILLISECOND)
#define SPENT_ASIDE (300 * MILLISECOND)

static void spend(int64_t much) {
	for (int64_t end = pod_clock(CLOCK_THREAD_CPUTIME_ID) + much; pod_clock(CLOCK_THREAD_CPUTIME_ID) < end;) continue;
}

static void *end_soon(void *argument) {
	(void)argument;
	spend(SPENT_ASIDE);
	return NULL;
}

static _Atomic bool over, spent;

static void *stay(void *argument) {
	(void)argument;
	spend(SPENT_ASIDE);
	spent = true;
	while (!over) pod_sleep(5);
	return NULL;
}

static int64_t usage(int who) {
	struct rusage found;
	EQUAL(getrusage(who, &found), 0);
	return (found.ru_utime.tv_sec + found.ru_stime.tv_sec) * SECOND +
	       (found.ru_utime.tv_usec + found.ru_stime.tv_usec) * 1000;
}

enum { MAIN, STAYING, PROCESS, SELF, CHILDREN, CLOCKS };
static const char *const names[CLOCKS] = { "the first thread", "the other thread", "the process", "RUSAGE_SELF",
	                                       "RUSAGE_CHILDREN" };
static int64_t seen[CLOCKS];

static void look(pthread_t staying) {
	clockid_t clock;
	EQUAL(pthread_getcpuclockid(staying, &clock), 0);
	const int64_t now[CLOCKS] = { pod_clock(CLOCK_THREAD_CPUTIME_ID), pod_clock(clock),
		                          pod_clock(CLOCK_PROCESS_CPUTIME_ID), usage(RUSAGE_SELF), usage(RUSAGE_CHILDREN) };
	for (int i = 0; i < CLOCKS; i++) {
		CHECKF(now[i] >= seen[i], "%s has used %ld us, and had used %ld us before", names[i], (long)(now[i] / 1000),
		       (long)(seen[i] / 1000));
		seen[i] = now[i];
	}
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pthread_t ending, staying;
	EQUAL(pthread_create(&ending, NULL, end_soon, NULL), 0);
	EQUAL(pthread_create(&staying, NULL, stay, NULL), 0);
	pid_t child = MUST(fork());
	if (child == 0) {
		spend(SPENT_ASIDE);
		_exit(0);
	}
	spend(SPENT);
	EQUAL(waitpid(child, NULL, 0), child);
	EQUAL(pthread_join(ending, NULL), 0);
	while (!spent) pod_sleep(5);
	look(staying);
	CHECK(seen[MAIN] >= SPENT && seen[STAYING] >= SPENT_ASIDE);
	CHECK(seen[PROCESS] >= SPENT + 2 * SPENT_ASIDE && seen[CHILDREN] > 0);
	pod_ready();
	if (pod_break("back"))
		for (int i = 0; i < CLOCKS; i++) seen[i] += POD_PATIENCE;
	while (pod_turn()) look(staying);
	look(staying);
	over = true;
	EQUAL(pthread_join(staying, NULL), 0);
	pod_pass();
}
