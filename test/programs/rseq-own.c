/*
 * A restartable sequence area that is the program's own: in its data, not near the thread pointer, and with a
 * signature of its own. Linux before 5.13 has no way to tell it: there the session must be refused by name.
 */
#include <linux/rseq.h>
#include <sched.h>
#include <sys/rseq.h>
#include "pod-test.h"

#define SIGNATURE 0x53053053
#define OWN_SIGNATURE 0x77aa55cc

/* The kernel tells a registered area from any other by the errno of a second registration. */
static void check_registered(struct rseq *area, uint32_t size, uint32_t signature) {
	static struct rseq other __attribute__((aligned(32)));
	FAILS(syscall(SYS_rseq, area, size, 0, signature), EBUSY);
	FAILS(syscall(SYS_rseq, area, size, 0, signature + 1), EPERM);
	FAILS(syscall(SYS_rseq, &other, size, 0, signature), EINVAL);
}

/* The kernel keeps the current processor in the area, but only in a registered one. */
static void check_follows_processor(struct rseq *area) {
	cpu_set_t all, one;
	EQUAL(sched_getaffinity(0, sizeof all, &all), 0);
	for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all)) continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		EQUAL(sched_setaffinity(0, sizeof one, &one), 0);
		EQUAL(*(volatile uint32_t *)&area->cpu_id, cpu);
	}
	EQUAL(sched_setaffinity(0, sizeof all, &all), 0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	CHECKF(__rseq_size > 0, "glibc has not registered rseq");
	static struct rseq area __attribute__((aligned(32)));
	struct rseq *glibc = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
	EQUAL(syscall(SYS_rseq, glibc, 32, RSEQ_FLAG_UNREGISTER, SIGNATURE), 0);
	EQUAL(syscall(SYS_rseq, &area, 32, 0, OWN_SIGNATURE), 0);
	pod_ready();
	while (pod_turn()) check_registered(&area, 32, OWN_SIGNATURE);
	if (pod_break("own-rseq")) {
		EQUAL(syscall(SYS_rseq, &area, 32, RSEQ_FLAG_UNREGISTER, OWN_SIGNATURE), 0);
		EQUAL(syscall(SYS_rseq, &area, 32, 0, OWN_SIGNATURE + 1), 0);
	}
	check_registered(&area, 32, OWN_SIGNATURE);
	check_follows_processor(&area);
	pod_pass();
}
