/*
 * What a thread has for itself by prctl(2) and its kin: scheduling that children do not get, deadlines, memory policy,
 * the answer to broken memory, control of speculation, no time stamp counter; and the priority of a session as a group.
 */
#include <sched.h>
#include <sys/resource.h>
#include "pod-test.h"

#define SPEC_DISABLE 4
#define RESET_ON_FORK 0x40000000
#define BIND 2

struct attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t min, max;
};

struct view {
	struct attributes scheduling;
	int policy, kill, store_bypass, branches, counter, memory_mode, group;
	unsigned long nodes[16];
};

static int read_group(void) {
	char text[128];
	int fd = open("/proc/self/autogroup", O_RDONLY | O_CLOEXEC);
	if (fd < 0) return 0;
	ssize_t length = read(fd, text, sizeof text - 1);
	close(fd);
	text[length > 0 ? length : 0] = 0;
	const char *value = strstr(text, " nice ");
	return value ? atoi(value + 6) : 0;
}

static void look(struct view *view) {
	memset(view, 0, sizeof *view);
	EQUAL(syscall(SYS_sched_getattr, 0, &view->scheduling, sizeof view->scheduling, 0), 0);
	/* The slice of an ordinary thread is the kernel's. */
	if (view->scheduling.policy != 6) view->scheduling.runtime = view->scheduling.deadline = view->scheduling.period = 0;
	view->policy = (int)syscall(SYS_sched_getscheduler, 0);
	view->kill = prctl(PR_MCE_KILL_GET, 0, 0, 0, 0);
	view->store_bypass = prctl(PR_GET_SPECULATION_CTRL, 0, 0, 0, 0);
	view->branches = prctl(PR_GET_SPECULATION_CTRL, 1, 0, 0, 0);
	EQUAL(prctl(PR_GET_TSC, &view->counter), 0);
	if (syscall(SYS_get_mempolicy, &view->memory_mode, view->nodes, 1024, NULL, 0) != 0) view->memory_mode = 0;
	view->group = read_group();
}

static void check(const struct view *before) {
	struct view now;
	look(&now);
	EQUAL(now.scheduling.policy, before->scheduling.policy);
	EQUAL(now.scheduling.flags, before->scheduling.flags);
	EQUAL(now.scheduling.nice, before->scheduling.nice);
	EQUAL(now.scheduling.priority, before->scheduling.priority);
	EQUAL(now.scheduling.runtime, before->scheduling.runtime);
	EQUAL(now.scheduling.deadline, before->scheduling.deadline);
	EQUAL(now.scheduling.period, before->scheduling.period);
	EQUAL(now.scheduling.min, before->scheduling.min);
	EQUAL(now.scheduling.max, before->scheduling.max);
	EQUAL(now.policy, before->policy);
	EQUAL(now.kill, before->kill);
	EQUAL(now.store_bypass, before->store_bypass);
	EQUAL(now.branches, before->branches);
	EQUAL(now.counter, before->counter);
	EQUAL(now.memory_mode, before->memory_mode);
	CHECK(memcmp(now.nodes, before->nodes, sizeof now.nodes) == 0);
	EQUAL(now.group, before->group);
}

/* Others may just have set one: then this user must wait a moment. */
static void set_group(const char *nice) {
	for (int tries = 0; tries < 200; tries++) {
		int fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
		if (fd < 0) return;
		ssize_t written = write(fd, nice, strlen(nice));
		close(fd);
		if (written > 0) return;
		CHECK(errno == EAGAIN);
		pod_sleep(60);
	}
	FAIL("the group's priority can't be set");
}

static void set_policy(int policy) {
	struct sched_param none = { 0 };
	EQUAL(syscall(SYS_sched_setscheduler, 0, policy, &none), 0);
}

static void be_reset_on_fork(void) {
	setpriority(PRIO_PROCESS, 0, 19);
	set_policy(SCHED_BATCH | RESET_ON_FORK);
	EQUAL(prctl(PR_MCE_KILL, 1, 0, 0, 0), 0);
	EQUAL(syscall(SYS_sched_getscheduler, 0), SCHED_BATCH | RESET_ON_FORK);
}

static void be_guarded(void) {
	EQUAL(prctl(PR_MCE_KILL, 1, 1, 0, 0), 0);
	/* Not every processor has a need for these. */
	prctl(PR_SET_SPECULATION_CTRL, 0, SPEC_DISABLE, 0, 0);
	prctl(PR_SET_SPECULATION_CTRL, 1, SPEC_DISABLE, 0, 0);
	unsigned long nodes = 1;
	syscall(SYS_set_mempolicy, BIND, &nodes, 64);
}

/* From here on it may not ask for the time. */
static void be_timeless(void) {
	EQUAL(prctl(PR_SET_TSC, PR_TSC_SIGSEGV), 0);
}

/* A right that not every root has; without it there is nothing to keep. */
static void be_punctual(void) {
	struct attributes wanted = { .size = sizeof wanted, .policy = 6, .flags = 2, .runtime = 1000000,
		                         .deadline = 50000000, .period = 60000000 };
	if (syscall(SYS_sched_setattr, 0, &wanted, 0) != 0) set_policy(SCHED_IDLE);
}

static void *const states[] = { be_reset_on_fork, be_guarded, be_timeless, be_punctual };
static _Atomic int ready;
static _Atomic bool go, over;
static const char *const damages[] = { "reset", "guard", "counter", "punctual" };

static void damage(size_t which) {
	/* What may be changed back without a right. */
	if (which == 0) setpriority(PRIO_PROCESS, 0, 19), prctl(PR_MCE_KILL, 1, 1, 0, 0);
	if (which == 1) prctl(PR_SET_SPECULATION_CTRL, 0, 2, 0, 0), prctl(PR_MCE_KILL, 0, 0, 0, 0);
	if (which == 2) prctl(PR_SET_TSC, PR_TSC_ENABLE);
	if (which == 3) set_policy(SCHED_BATCH);
}

static void *run(void *argument) {
	size_t which = (size_t)argument;
	((void (*)(void))states[which])();
	struct view view;
	look(&view);
	ready++;
	while (!go) pod_sleep(2);
	if (strcmp(pod_damage, damages[which]) == 0) damage(which);
	while (!over) {
		check(&view);
		pod_sleep(10);
	}
	check(&view);
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	set_group("7");
	pid_t child = MUST(fork());
	if (child == 0) {
		MUST(setsid());
		set_group("3");
		struct view view;
		look(&view);
		pod_mark("child");
		while (pod_child_turn()) check(&view);
		check(&view);
		_exit(0);
	}
	pod_await("child");
	pthread_t threads[COUNT(states)];
	for (size_t i = 0; i < COUNT(states); i++) EQUAL(pthread_create(&threads[i], NULL, run, (void *)i), 0);
	EVENTUALLY(ready == COUNT(states));
	struct view view;
	look(&view);
	pod_ready();
	go = true;
	/* These damages are the threads': pod_break("reset"), pod_break("guard"), pod_break("counter"), pod_break("punctual"). */
	if (pod_break("group")) set_group("8");
	while (pod_turn()) check(&view);
	check(&view);
	over = true;
	for (size_t i = 0; i < COUNT(states); i++) EQUAL(pthread_join(threads[i], NULL), 0);
	pod_reap(child);
	pod_pass();
}
