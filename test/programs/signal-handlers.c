/*
 * Signal handlers with every flag, ignored signals, masks (one a thread), alternate stacks (one a thread, one of
 * them in use: its thread is inside a handler, another inside two nested ones), and all of it still at work.
 */
#include <ucontext.h>
#include "pod-test.h"

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

struct kernel_action {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

static struct kernel_action actions[65];
static _Atomic int delivered[65];
static _Atomic uintptr_t last_stack;
static _Atomic int last_code, last_value;
static char stack_main[64 << 10], stack_inside[64 << 10], stack_nested[64 << 10];
static _Atomic bool inside_handler, inside_nested;
static _Atomic bool leave;

static void get_action(int signal, struct kernel_action *action) {
	memset(action, 0, sizeof *action);
	EQUAL(syscall(SYS_rt_sigaction, signal, NULL, action, 8), 0);
}

static uint64_t get_mask(void) {
	uint64_t mask = 0;
	EQUAL(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8), 0);
	return mask;
}

static void set_mask(uint64_t mask) {
	EQUAL(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8), 0);
}

static void count(int signal) {
	delivered[signal]++;
}

static void count_with_info(int signal, siginfo_t *info, void *context) {
	(void)context;
	last_stack = (uintptr_t)&info;
	char here;
	last_stack = (uintptr_t)&here;
	last_code = info->si_code;
	last_value = info->si_value.sival_int;
	delivered[signal]++;
}

static bool is_on(const char *stack, size_t size, uintptr_t address) {
	return address >= (uintptr_t)stack && address < (uintptr_t)stack + size;
}

/* Stays inside until go, on its alternate stack. */
static void stay_inside(int signal, siginfo_t *info, void *context) {
	ucontext_t *frame = context;
	char here;
	CHECK(is_on(stack_inside, sizeof stack_inside, (uintptr_t)&here));
	EQUAL(info->si_value.sival_int, 321);
	EQUAL(signal, SIGRTMIN + 3);
	uint64_t mask = get_mask();
	CHECK(mask & (1UL << (signal - 1)));
	void *saved_ip = (void *)frame->uc_mcontext.gregs[REG_RIP];
	inside_handler = true;
	while (!leave) {
		pod_sleep(5);
		EQUAL(get_mask(), mask);
		stack_t stack;
		EQUAL(sigaltstack(NULL, &stack), 0);
		EQUAL(stack.ss_flags & SS_ONSTACK, SS_ONSTACK);
		CHECK(stack.ss_sp == stack_inside);
		CHECK((void *)frame->uc_mcontext.gregs[REG_RIP] == saved_ip);
	}
	delivered[signal]++;
}

static void nest_inner(int signal) {
	char here;
	CHECK(is_on(stack_nested, sizeof stack_nested, (uintptr_t)&here));
	inside_nested = true;
	while (!leave) pod_sleep(5);
	delivered[signal]++;
}

static void nest_outer(int signal) {
	char pattern[2000];
	pod_fill(pattern, sizeof pattern, 5);
	raise(SIGRTMIN + 5);
	CHECK_PATTERN(pattern, sizeof pattern, 5);
	EQUAL(delivered[SIGRTMIN + 5], 1);
	delivered[signal]++;
}

static void handle(int signal, void (*handler)(int, siginfo_t *, void *), int flags, int blocked) {
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO };
	sigemptyset(&action.sa_mask);
	if (blocked) sigaddset(&action.sa_mask, blocked);
	EQUAL(sigaction(signal, &action, NULL), 0);
}

static void check_actions(void) {
	for (int signal = 1; signal <= 64; signal++) {
		struct kernel_action now;
		get_action(signal, &now);
		CHECKF(memcmp(&now, &actions[signal], sizeof now) == 0,
		       "the action of signal %d is {%p %lx %p %lx}, should be {%p %lx %p %lx}", signal, now.handler, now.flags,
		       now.restorer, now.mask, actions[signal].handler, actions[signal].flags, actions[signal].restorer,
		       actions[signal].mask);
	}
}

static void use_stack(char *memory, size_t size, int flags) {
	stack_t stack = { .ss_sp = memory, .ss_size = size, .ss_flags = flags };
	EQUAL(sigaltstack(&stack, NULL), 0);
}

static void check_stack(char *memory, size_t size, int flags) {
	stack_t stack;
	EQUAL(sigaltstack(NULL, &stack), 0);
	CHECK(stack.ss_sp == memory);
	EQUAL(stack.ss_size, size);
	EQUAL(stack.ss_flags, flags);
}

static _Atomic pid_t tids[8];
static _Atomic bool over;

static void *run_inside(void *argument) {
	(void)argument;
	use_stack(stack_inside, sizeof stack_inside, 0);
	union sigval value = { .sival_int = 321 };
	uint64_t mask = get_mask();
	register uint64_t kept __asm__("r14") = 0x1122334455667788;
	__asm__ volatile("" : "+r"(kept));
	pthread_sigqueue(pthread_self(), SIGRTMIN + 3, value);
	__asm__ volatile("" : "+r"(kept));
	CHECKF(kept == 0x1122334455667788, "a register changed over the handler");
	EQUAL(delivered[SIGRTMIN + 3], 1);
	EQUAL(get_mask(), mask);
	check_stack(stack_inside, sizeof stack_inside, 0);
	return NULL;
}

static void *run_nested(void *argument) {
	(void)argument;
	use_stack(stack_nested, sizeof stack_nested, 0);
	raise(SIGRTMIN + 4);
	EQUAL(delivered[SIGRTMIN + 4], 1);
	check_stack(stack_nested, sizeof stack_nested, 0);
	return NULL;
}

/* Threads that only differ in mask and alternate stack. */
static void *run_masked(void *argument) {
	size_t index = (size_t)argument;
	static char stacks[4][32 << 10];
	uint64_t mask = 0x5555ul << (index * 3) & ~(1ul << 8 | 1ul << 18);
	set_mask(mask | 1ul << (SIGUSR1 - 1));
	use_stack(stacks[index], sizeof stacks[index] - index * 16, index == 2 ? (int)SS_AUTODISARM : 0);
	tids[index] = (pid_t)syscall(SYS_gettid);
	while (!over) {
		pod_sleep(5);
		EQUAL(get_mask(), mask | 1ul << (SIGUSR1 - 1));
		check_stack(stacks[index], sizeof stacks[index] - index * 16, index == 2 ? (int)SS_AUTODISARM : 0);
		if (pod_break("thread-mask") && index == 3 && pod_has("ready")) set_mask(mask ^ 2);
		if (pod_break("thread-stack") && index == 1 && pod_has("ready")) use_stack(stacks[index], 20000, 0);
	}
	return NULL;
}

static int empty_pipe[2];
static _Atomic ssize_t read_result;
static _Atomic int read_errno;
static _Atomic bool reading;

/* A blocked read, to see SA_RESTART and its absence. */
static void *run_read(void *argument) {
	(void)argument;
	set_mask(0);
	char byte;
	for (;;) {
		reading = true;
		tids[5] = (pid_t)syscall(SYS_gettid);
		ssize_t result = read(empty_pipe[0], &byte, 1);
		read_errno = errno;
		reading = false;
		read_result = result;
		if (result == 1 && byte == 'q') return NULL;
		while (read_result == result) pod_sleep(1);
	}
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	EQUAL(pipe2(empty_pipe, O_CLOEXEC), 0);
	handle(SIGUSR1, count_with_info, SA_ONSTACK, SIGUSR2);
	handle(SIGUSR2, count_with_info, SA_ONSTACK | SA_RESTART, 0);
	handle(SIGHUP, count_with_info, SA_RESETHAND, SIGTERM);
	handle(SIGINT, count_with_info, SA_NODEFER, 0);
	handle(SIGRTMIN + 3, stay_inside, SA_ONSTACK | SA_RESTART, SIGRTMIN + 20);
	handle(SIGRTMIN + 10, count_with_info, SA_NODEFER | SA_RESETHAND | SA_ONSTACK, SIGRTMAX);
	handle(SIGRTMIN + 11, count_with_info, 0, 0);
	signal(SIGRTMIN + 4, nest_outer);
	signal(SIGRTMIN + 5, nest_inner);
	struct sigaction nest = { .sa_handler = nest_outer, .sa_flags = SA_ONSTACK };
	sigaction(SIGRTMIN + 4, &nest, NULL);
	nest.sa_handler = nest_inner;
	sigaction(SIGRTMIN + 5, &nest, NULL);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGTSTP, SIG_IGN);
	signal(SIGRTMAX, SIG_IGN);
	struct sigaction no_wait = { .sa_handler = count, .sa_flags = SA_NOCLDWAIT | SA_NOCLDSTOP | SA_RESTART };
	sigaction(SIGCHLD, &no_wait, NULL);
	use_stack(stack_main, sizeof stack_main, 0);

	pthread_t threads[8];
	EQUAL(pthread_create(&threads[0], NULL, run_inside, NULL), 0);
	EQUAL(pthread_create(&threads[1], NULL, run_nested, NULL), 0);
	for (size_t i = 0; i < 4; i++) EQUAL(pthread_create(&threads[2 + i], NULL, run_masked, (void *)i), 0);
	EQUAL(pthread_create(&threads[6], NULL, run_read, NULL), 0);
	uint64_t mask = 1ul << (SIGTERM - 1) | 1ul << (SIGRTMIN + 12 - 1) | 1ul << 63;
	set_mask(mask);
	EVENTUALLY(inside_handler && inside_nested && tids[3] && tids[5] && reading);
	/* Now, as glibc adds handlers of its own when the first thread is made. */
	for (int signal = 1; signal <= 64; signal++) get_action(signal, &actions[signal]);
	pod_ready();

	if (pod_break("handler")) signal(SIGUSR1, count);
	if (pod_break("flags")) handle(SIGUSR2, count_with_info, SA_ONSTACK, 0);
	if (pod_break("action-mask")) handle(SIGUSR1, count_with_info, SA_ONSTACK, SIGHUP);
	if (pod_break("ignored")) signal(SIGTSTP, SIG_DFL);
	if (pod_break("mask")) set_mask(mask | 1);
	if (pod_break("stack")) use_stack(stack_main, sizeof stack_main - 4096, 0);
	if (pod_break("restarted-call")) handle(SIGUSR2, count_with_info, 0, 0), get_action(SIGUSR2, &actions[SIGUSR2]);
	if (pod_break("stray-signal")) kill(getpid(), SIGRTMIN + 11);

	while (pod_turn()) {
		check_actions();
		EQUAL(get_mask(), mask);
		check_stack(stack_main, sizeof stack_main, 0);
	}
	check_actions();
	EQUAL(get_mask(), mask);
	check_stack(stack_main, sizeof stack_main, 0);
	for (int signal = 1; signal <= 64; signal++) CHECKF(delivered[signal] == 0, "signal %d came from nowhere", signal);
	CHECKF(reading && read_result == 0, "a blocked read came back by itself");

	/* Delivery. */
	union sigval value = { .sival_int = 99 };
	EQUAL(pthread_sigqueue(pthread_self(), SIGUSR1, value), 0);
	EQUAL(delivered[SIGUSR1], 1);
	EQUAL(last_code, SI_QUEUE);
	EQUAL(last_value, 99);
	CHECK(is_on(stack_main, sizeof stack_main, last_stack));
	EQUAL(get_mask(), mask);
	raise(SIGHUP);
	EQUAL(delivered[SIGHUP], 1);
	struct kernel_action now;
	get_action(SIGHUP, &now);
	CHECKF(now.handler == NULL, "SA_RESETHAND did not reset");
	raise(SIGQUIT);
	/* A read that restarts, and one that does not. */
	EQUAL(syscall(SYS_tgkill, getpid(), tids[5], SIGUSR2), 0);
	EVENTUALLY(delivered[SIGUSR2] == 1);
	CHECK(is_on(stack_main, sizeof stack_main, last_stack) == false);
	pod_sleep(20);
	CHECKF(reading, "SA_RESTART did not restart");
	EQUAL(syscall(SYS_tgkill, getpid(), tids[5], SIGUSR1), 0);
	EVENTUALLY(!reading && read_result == -1);
	EQUAL(read_errno, EINTR);
	read_result = 5;
	EVENTUALLY(reading);
	EQUAL(write(empty_pipe[1], "q", 1), 1);

	leave = true;
	over = true;
	for (size_t i = 0; i < 7; i++) EQUAL(pthread_join(threads[i], NULL), 0);
	EQUAL(delivered[SIGRTMIN + 3], 1);
	/* SA_NOCLDWAIT: no zombie is left, the signal comes. */
	set_mask(mask | 1ul << (SIGCHLD - 1));
	pid_t child = MUST(fork());
	if (child == 0) _exit(3);
	FAILS(waitpid(child, NULL, 0), ECHILD);
	set_mask(mask);
	EQUAL(delivered[SIGCHLD], 1);
	pod_pass();
}
