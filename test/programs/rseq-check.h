/* How a program tells that a restartable sequence area is registered with the kernel: by errno, and by its work. */
#include <linux/rseq.h>
#include <sched.h>
#include <sys/rseq.h>
#include "pod-test.h"

/* glibc's, on x86_64. */
#define SIGNATURE 0x53053053

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
