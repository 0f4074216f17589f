/*
 * The functions of the vdso, called by libc and by pointers that were looked up long ago, from several threads at
 * all times: clocks do not go back, agree with the system calls, and the symbols stand where they stood. All of it
 * must hold also where the kernel has another vdso.
 */
#include <elf.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/time.h>
#include "pod-test.h"

typedef int (*clock_function)(clockid_t, struct timespec *);
typedef int (*day_function)(struct timeval *, void *);
typedef time_t (*time_function)(time_t *);
typedef int (*cpu_function)(unsigned *, unsigned *, void *);

static const Elf64_Ehdr *header;
static clock_function read_clock;
static day_function read_day;
static time_function read_time;
static cpu_function read_cpu;
static _Atomic bool stop;
static _Atomic unsigned long calls;

/** By the dynamic symbols: they lie right before their names. */
static void *look_up(const char *name) {
	const char *base = (const char *)header;
	const Elf64_Phdr *program = (const void *)(base + header->e_phoff);
	const Elf64_Dyn *dynamic = NULL;
	for (int i = 0; i < header->e_phnum; i++)
		if (program[i].p_type == PT_DYNAMIC) dynamic = (const void *)(base + program[i].p_offset);
	CHECK(dynamic != NULL);
	const char *strings = NULL;
	const Elf64_Sym *symbols = NULL;
	for (; dynamic->d_tag != DT_NULL; dynamic++) {
		if (dynamic->d_tag == DT_STRTAB) strings = base + dynamic->d_un.d_ptr;
		if (dynamic->d_tag == DT_SYMTAB) symbols = (const void *)(base + dynamic->d_un.d_ptr);
	}
	CHECK(strings && symbols);
	for (; (const char *)(symbols + 1) <= strings; symbols++)
		if (strcmp(strings + symbols->st_name, name) == 0) return (void *)(base + symbols->st_value);
	FAIL("the vdso has no %s", name);
}

static int64_t nanoseconds(const struct timespec *time) {
	return time->tv_sec * SECOND + time->tv_nsec;
}

static int64_t by_call(clockid_t clock) {
	struct timespec now;
	EQUAL(syscall(SYS_clock_gettime, clock, &now), 0);
	return nanoseconds(&now);
}

/** The vdso's clock lies between two readings of the kernel's. */
static void check_clock(clockid_t clock) {
	struct timespec now;
	int64_t before = by_call(clock);
	EQUAL(read_clock(clock, &now), 0);
	int64_t after = by_call(clock);
	/* Coarse clocks are as of the last tick. */
	int64_t slack = clock == CLOCK_MONOTONIC_COARSE ? 100 * MILLISECOND : 0;
	CHECKF(before - slack <= nanoseconds(&now) && nanoseconds(&now) <= after, "clock %d: %lld not in %lld to %lld", clock,
	       (long long)nanoseconds(&now), (long long)before, (long long)after);
}

static void *call_all(void *unused) {
	int64_t last = pod_now();
	while (!stop) {
		for (int i = 0; i < 2000; i++) {
			int64_t now = pod_now();
			CHECKF(now >= last, "the clock went back by %lld ns", (long long)(last - now));
			last = now;
		}
		calls++;
		sched_yield();
	}
	return unused;
}

static void check(void) {
	check_clock(CLOCK_MONOTONIC);
	check_clock(CLOCK_REALTIME);
	check_clock(CLOCK_MONOTONIC_COARSE);
	check_clock(CLOCK_BOOTTIME);
	struct timeval day;
	int64_t before = by_call(CLOCK_REALTIME) / 1000;
	EQUAL(read_day(&day, NULL), 0);
	int64_t at = day.tv_sec * 1000000LL + day.tv_usec;
	CHECK(before <= at && at <= by_call(CLOCK_REALTIME) / 1000);
	CHECK(llabs((long long)(read_time(NULL) - day.tv_sec)) <= 30);
	unsigned cpu = ~0U;
	EQUAL(read_cpu(&cpu, NULL, NULL), 0);
	CHECK(cpu < 4096);
	CHECK(look_up("__vdso_clock_gettime") == (void *)read_clock);
	CHECK(look_up("__vdso_getcpu") == (void *)read_cpu);
	struct timespec unit;
	EQUAL(clock_getres(CLOCK_MONOTONIC, &unit), 0);
	CHECK(unit.tv_sec == 0 && unit.tv_nsec > 0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	header = (const void *)getauxval(AT_SYSINFO_EHDR);
	CHECK(header && memcmp(header->e_ident, ELFMAG, SELFMAG) == 0);
	read_clock = (clock_function)look_up("__vdso_clock_gettime");
	read_day = (day_function)look_up("__vdso_gettimeofday");
	read_time = (time_function)look_up("__vdso_time");
	read_cpu = (cpu_function)look_up("__vdso_getcpu");
	pthread_t threads[2];
	for (size_t i = 0; i < COUNT(threads); i++) EQUAL(pthread_create(&threads[i], NULL, call_all, NULL), 0);
	check();
	pod_ready();
	if (pod_break("pointer")) read_cpu = (cpu_function)(uintptr_t)((uintptr_t)read_cpu + 16);
	if (pod_break("stop")) stop = true;
	while (pod_turn()) check();
	CHECKF(!stop, "the callers stopped");
	unsigned long last = calls;
	EVENTUALLY(calls > last + 2);
	stop = true;
	for (size_t i = 0; i < COUNT(threads); i++) pthread_join(threads[i], NULL);
	check();
	pod_pass();
}
