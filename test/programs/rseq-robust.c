/*
 * What a thread has registered with the kernel: restartable sequences (glibc's; rseq-own.c has one's own), the
 * robust futex list, and the address cleared at its end. Each is compared as the kernel reports it, and used: a
 * sequence that was interrupted must be aborted, a robust mutex whose owner ends must say so, a join must return.
 */
#include <linux/futex.h>
#include "rseq-check.h"

struct view {
	void *robust;
	size_t robust_size;
	struct rseq *rseq;
	pid_t tid;
};

static _Atomic bool over;
static pthread_mutex_t robust, *shared_robust;

static struct rseq *glibc_rseq(void) {
	return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

static void look(struct view *view) {
	EQUAL(syscall(SYS_get_robust_list, 0, &view->robust, &view->robust_size), 0);
	view->rseq = glibc_rseq();
	view->tid = (pid_t)syscall(SYS_gettid);
}

static void check_view(const struct view *before) {
	struct view now;
	look(&now);
	CHECK(now.robust == before->robust);
	EQUAL(now.robust_size, before->robust_size);
	EQUAL(now.tid, before->tid);
	/* glibc registers the size it reports, but never less than the first version's 32 bytes. */
	check_registered(before->rseq, 32, SIGNATURE);
}

static void *hold_glibc_rseq(void *argument) {
	(void)argument;
	struct view view;
	look(&view);
	while (!over) {
		check_view(&view);
		pod_sleep(5);
	}
	if (pod_break("rseq")) syscall(SYS_rseq, glibc_rseq(), 32, RSEQ_FLAG_UNREGISTER, SIGNATURE);
	check_view(&view);
	check_follows_processor(glibc_rseq());
	return NULL;
}

static _Atomic uint64_t committed, aborted;

/*
 * A long critical section. It reads the clock at its start and commits the time it took. Whoever interrupts it for
 * longer than a moment (a dump does, a restart all the more) must have aborted it, so no section that committed
 * can have taken long.
 */
static uint64_t run_sequence(void) {
	uint64_t took = 0;
	struct rseq *area = glibc_rseq();
	__asm__ goto volatile(
	    ".pushsection __rseq_cs, \"aw\"\n"
	    ".balign 32\n"
	    "9: .long 0, 0\n .quad 1f, 2f - 1f, 4f\n"
	    ".popsection\n"
	    "lea 9b(%%rip), %%rax\n"
	    "mov %%rax, %c[cs](%[area])\n"
	    "1: rdtsc\n shl $32, %%rdx\n or %%rdx, %%rax\n mov %%rax, %%r8\n"
	    "mov $20000, %%ecx\n"
	    "5: dec %%ecx\n jnz 5b\n"
	    "rdtsc\n shl $32, %%rdx\n or %%rdx, %%rax\n sub %%r8, %%rax\n"
	    "mov %%rax, (%[took])\n" /* the commit */
	    "2: jmp 3f\n"
	    ".long 0x53053053\n"
	    "4: jmp %l[abort]\n"
	    "3:\n"
	    :
	    : [area] "r"(area), [cs] "i"(offsetof(struct rseq, rseq_cs)), [took] "r"(&took)
	    : "rax", "rcx", "rdx", "r8", "memory", "cc"
	    : abort);
	committed++;
	return took;
abort:
	aborted++;
	return 0;
}

static uint64_t ticks_per_millisecond;

static void *hold_sequence(void *argument) {
	(void)argument;
	uint64_t rounds = 0;
	while (!over) {
		uint64_t took = run_sequence();
		if (pod_break("sequence") && ++rounds > 1000) took = ticks_per_millisecond * 1000;
		CHECKF(took < 120 * ticks_per_millisecond, "a restartable sequence went on after an interruption of %lu ms",
		       took / ticks_per_millisecond);
	}
	return NULL;
}

static _Atomic int locked_by;

static void *hold_robust(void *argument) {
	(void)argument;
	struct view view;
	look(&view);
	EQUAL(pthread_mutex_lock(&robust), 0);
	locked_by = (int)syscall(SYS_gettid);
	while (!over) pod_sleep(5);
	static struct robust_list_head empty = { .list = { &empty.list } };
	if (pod_break("robust")) syscall(SYS_set_robust_list, &empty, sizeof empty);
	check_view(&view);
	/* Ends with the mutex held. */
	return NULL;
}

static void *hold_own_robust_list(void *argument) {
	(void)argument;
	static struct robust_list_head head;
	head.list.next = &head.list;
	EQUAL(syscall(SYS_set_robust_list, &head, sizeof head), 0);
	while (!over) pod_sleep(5);
	void *found;
	size_t size;
	if (pod_break("own-robust")) syscall(SYS_set_robust_list, &robust, sizeof head);
	EQUAL(syscall(SYS_get_robust_list, 0, &found, &size), 0);
	CHECK(found == &head);
	return NULL;
}

static void *hold_nothing(void *argument) {
	(void)argument;
	while (!over) pod_sleep(5);
	/* A thread whose end nobody is told of never joins. */
	if (pod_break("clear-child-tid")) {
		static int nowhere;
		syscall(SYS_set_tid_address, &nowhere);
	}
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	CHECKF(__rseq_size > 0, "glibc has not registered rseq");
	uint64_t start = __builtin_ia32_rdtsc();
	pod_sleep(20);
	ticks_per_millisecond = (__builtin_ia32_rdtsc() - start) / 20;

	pthread_mutexattr_t attributes;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&robust, &attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	shared_robust = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared_robust != MAP_FAILED);
	pthread_mutex_init(shared_robust, &attributes);
	pid_t child = MUST(fork());
	if (child == 0) {
		struct view view;
		look(&view);
		EQUAL(pthread_mutex_lock(shared_robust), 0);
		pod_mark("child");
		while (pod_child_turn()) check_view(&view);
		check_view(&view);
		_exit(0);
	}
	pod_await("child");

	struct view view;
	look(&view);
	void *(*const bodies[])(void *) = { hold_glibc_rseq, hold_sequence, hold_robust, hold_own_robust_list,
		                                hold_nothing };
	pthread_t threads[COUNT(bodies)];
	for (size_t i = 0; i < COUNT(bodies); i++) EQUAL(pthread_create(&threads[i], NULL, bodies[i], NULL), 0);
	EVENTUALLY(locked_by != 0 && committed > 0);
	pod_ready();
	while (pod_turn()) check_view(&view);
	check_view(&view);
	check_follows_processor(glibc_rseq());
	uint64_t before = committed;
	EVENTUALLY(committed > before + 1000);
	EQUAL(pthread_mutex_trylock(&robust), EBUSY);
	over = true;
	struct timespec end = pod_timespec(pod_clock(CLOCK_REALTIME) + 5 * SECOND);
	EQUAL(pthread_mutex_timedlock(&robust, &end), EOWNERDEAD);
	for (size_t i = 0; i < COUNT(bodies); i++) EQUAL(pthread_timedjoin_np(threads[i], NULL, &end), 0);
	pod_reap(child);
	EQUAL(pthread_mutex_timedlock(shared_robust, &end), EOWNERDEAD);
	pod_pass();
}
