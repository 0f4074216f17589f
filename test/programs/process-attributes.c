/*
 * What else a process and a thread have: limits, umask, working directory, nice, policy, affinity, io priority,
 * timer slack, personality, names, arguments and environment, death signal, dumpable, OOM score, subreaper, core
 * filter, huge pages off. Different in the main process, in two threads and in two children.
 */
#include <sched.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include "pod-test.h"

#define LIMITS 16

struct view {
	struct rlimit limits[LIMITS];
	pod_path_t cwd;
	mode_t mask;
	int nice, policy, priority, ioprio, persona, death_signal, dumpable, subreaper, no_huge_pages;
	long slack;
	cpu_set_t affinity;
	char name[17], oom[32], core_filter[32], arguments[4096], environment[1024], executable[4096], auxv[1024];
	size_t arguments_size, auxv_size;
};

static void look(struct view *view) {
	memset(view, 0, sizeof *view);
	for (int i = 0; i < LIMITS; i++) EQUAL(getrlimit(i, &view->limits[i]), 0);
	CHECK(getcwd(view->cwd, sizeof view->cwd) != NULL);
	/* umask(2) cannot be read without setting it, and it may be shared. */
	char text[64];
	view->mask = (mode_t)strtoul(pod_field("/proc/self/status", "Umask", text, sizeof text), NULL, 8);
	errno = 0;
	view->nice = getpriority(PRIO_PROCESS, 0);
	EQUAL(errno, 0);
	view->policy = (int)syscall(SYS_sched_getscheduler, 0);
	struct sched_param parameters;
	EQUAL(syscall(SYS_sched_getparam, 0, &parameters), 0);
	view->priority = parameters.sched_priority;
	view->ioprio = (int)syscall(SYS_ioprio_get, 1, 0);
	/* Without a class it says nothing, and older kernels show now this, now that. */
	if (view->ioprio >> 13 == 0) view->ioprio = 0;
	view->persona = personality(0xffffffff);
	EQUAL(prctl(PR_GET_PDEATHSIG, &view->death_signal), 0);
	view->dumpable = prctl(PR_GET_DUMPABLE);
	EQUAL(prctl(PR_GET_CHILD_SUBREAPER, &view->subreaper), 0);
	view->no_huge_pages = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
	/* A real-time thread has none: newer kernels show it so, older ones only act so. */
	view->slack = view->policy == SCHED_FIFO || view->policy == SCHED_RR ? 0 : prctl(PR_GET_TIMERSLACK);
	EQUAL(sched_getaffinity(0, sizeof view->affinity, &view->affinity), 0);
	EQUAL(prctl(PR_GET_NAME, view->name), 0);
	pod_read_text("/proc/self/oom_score_adj", view->oom, sizeof view->oom);
	pod_read_text("/proc/self/coredump_filter", view->core_filter, sizeof view->core_filter);
	view->arguments_size = pod_read_text("/proc/self/cmdline", view->arguments, sizeof view->arguments);
	pod_read_text("/proc/self/environ", view->environment, sizeof view->environment);
	CHECK(readlink("/proc/self/exe", view->executable, sizeof view->executable - 1) > 0);
	view->auxv_size = pod_read_text("/proc/self/auxv", view->auxv, sizeof view->auxv);
}

static void check(const struct view *before) {
	static _Thread_local struct view now;
	look(&now);
	for (int i = 0; i < LIMITS; i++)
		CHECKF(now.limits[i].rlim_cur == before->limits[i].rlim_cur && now.limits[i].rlim_max == before->limits[i].rlim_max,
		       "limit %d is %lu/%lu, should be %lu/%lu", i, now.limits[i].rlim_cur, now.limits[i].rlim_max,
		       before->limits[i].rlim_cur, before->limits[i].rlim_max);
	CHECKF(strcmp(now.cwd, before->cwd) == 0, "the working directory is %s", now.cwd);
	EQUAL(now.mask, before->mask);
	EQUAL(now.nice, before->nice);
	EQUAL(now.policy, before->policy);
	EQUAL(now.priority, before->priority);
	EQUAL(now.ioprio, before->ioprio);
	EQUAL(now.persona, before->persona);
	EQUAL(now.death_signal, before->death_signal);
	EQUAL(now.dumpable, before->dumpable);
	EQUAL(now.subreaper, before->subreaper);
	EQUAL(now.no_huge_pages, before->no_huge_pages);
	EQUAL(now.slack, before->slack);
	CHECKF(CPU_EQUAL(&now.affinity, &before->affinity), "the affinity changed");
	CHECKF(strcmp(now.name, before->name) == 0, "the name is %s, should be %s", now.name, before->name);
	CHECKF(strcmp(now.oom, before->oom) == 0, "oom_score_adj is %s", now.oom);
	CHECKF(strcmp(now.core_filter, before->core_filter) == 0, "coredump_filter is %s", now.core_filter);
	CHECKF(now.arguments_size == before->arguments_size &&
	           memcmp(now.arguments, before->arguments, now.arguments_size) == 0,
	       "the arguments changed");
	CHECKF(memcmp(now.environment, before->environment, sizeof now.environment) == 0, "the environment changed");
	CHECKF(strcmp(now.executable, before->executable) == 0, "the executable is %s", now.executable);
	CHECKF(now.auxv_size == before->auxv_size && memcmp(now.auxv, before->auxv, now.auxv_size) == 0,
	       "the auxiliary vector changed");
}

static _Atomic bool over;
static _Atomic int threads_ready;

static void lower(int which, rlim_t soft, rlim_t hard) {
	struct rlimit limit;
	getrlimit(which, &limit);
	if (hard < limit.rlim_max) limit.rlim_max = hard;
	limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
	EQUAL(setrlimit(which, &limit), 0);
}

/* Attributes that a thread has for itself. */
static void *be_different(void *argument) {
	bool first = argument == NULL;
	prctl(PR_SET_NAME, first ? "a (name) x" : "15 characters!!");
	setpriority(PRIO_PROCESS, 0, first ? 7 : 3);
	prctl(PR_SET_TIMERSLACK, first ? 123456 : 50001);
	EQUAL(syscall(SYS_ioprio_set, 1, 0, first ? 2 << 13 | 6 : 3 << 13), 0);
	struct sched_param none = { 0 };
	EQUAL(syscall(SYS_sched_setscheduler, 0, first ? SCHED_BATCH : SCHED_IDLE, &none), 0);
	cpu_set_t one;
	EQUAL(sched_getaffinity(0, sizeof one, &one), 0);
	for (int cpu = 0, kept = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &one) && kept++ > 0) CPU_CLR(cpu, &one);
	if (first) EQUAL(sched_setaffinity(0, sizeof one, &one), 0);
	if (!first && geteuid() == 0) {
		struct sched_param parameters = { .sched_priority = 3 };
		EQUAL(syscall(SYS_sched_setscheduler, 0, SCHED_RR, &parameters), 0);
	}
	static struct view views[2];
	struct view *view = &views[first];
	look(view);
	threads_ready++;
	while (!pod_has("ready")) pod_sleep(2);
	if (first && pod_break("thread-name")) prctl(PR_SET_NAME, "other");
	if (first && pod_break("thread-nice")) setpriority(PRIO_PROCESS, 0, 8);
	if (first && pod_break("thread-slack")) prctl(PR_SET_TIMERSLACK, 50000);
	if (!first && pod_break("thread-policy")) {
		struct sched_param parameters = { 0 };
		EQUAL(syscall(SYS_sched_setscheduler, 0, SCHED_BATCH, &parameters), 0);
	}
	while (!over) {
		check(view);
		pod_sleep(20);
	}
	check(view);
	return NULL;
}

static pod_path_t directory;

static void run_child_one(void) {
	prctl(PR_SET_PDEATHSIG, SIGUSR1);
	prctl(PR_SET_DUMPABLE, 1);
	lower(RLIMIT_NOFILE, 50, 60);
	lower(RLIMIT_FSIZE, 1 << 20, 1 << 21);
	lower(RLIMIT_CPU, 3000, 4000);
	lower(RLIMIT_CORE, 0, 4096);
	lower(RLIMIT_SIGPENDING, 99, 111);
	CHECK(personality(ADDR_NO_RANDOMIZE | SHORT_INODE | STICKY_TIMEOUTS) != -1);
	EQUAL(chdir("/usr/share"), 0);
	umask(0137);
	static struct view view;
	look(&view);
	EQUAL(view.mask, 0137);
	pod_mark("child-one");
	while (pod_child_turn()) check(&view);
	check(&view);
	/* The limits hold. */
	EQUAL(fcntl(0, F_DUPFD, 49), 49);
	FAILS(fcntl(0, F_DUPFD, 50), EINVAL);
	pod_path_t path;
	int fd = MUST(open(pod_path(path, "masked"), O_CREAT | O_RDWR, 0666));
	struct stat status;
	fstat(fd, &status);
	EQUAL(status.st_mode & 0777, 0640);
	fd = MUST(open("doc/../zoneinfo/../..", O_RDONLY | O_DIRECTORY));
	_exit(0);
}

/* Dies with its parent, which dies after go. */
static void run_child_two(void) {
	pid_t child = MUST(fork());
	if (child == 0) {
		EQUAL(prctl(PR_SET_PDEATHSIG, SIGUSR2), 0);
		signal(SIGUSR2, SIG_DFL);
		pod_mark("grandchild");
		for (;;) pod_sleep(1000);
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	pod_await("grandchild");
	if (pod_break("death-signal")) {
		kill(child, SIGKILL);
		EQUAL(waitpid(child, NULL, 0), child);
	}
	static struct view view;
	look(&view);
	EQUAL(view.subreaper, 1);
	pod_mark("child-two");
	while (pod_child_turn()) check(&view);
	check(&view);
	_exit(0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	EQUAL(mkdir(pod_path(directory, "a directory"), 0777), 0);
	EQUAL(chdir(directory), 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	pid_t children[2];
	void (*const bodies[])(void) = { run_child_one, run_child_two };
	for (size_t i = 0; i < 2; i++) {
		children[i] = MUST(fork());
		if (children[i] == 0) bodies[i]();
	}
	pod_await("child-one");
	pod_await("child-two");
	umask(0027);
	prctl(PR_SET_NAME, "main: a) b(");
	lower(RLIMIT_AS, 64UL << 30, 128UL << 30);
	lower(RLIMIT_DATA, 32UL << 30, 64UL << 30);
	lower(RLIMIT_STACK, 7 << 20, 64 << 20);
	lower(RLIMIT_NOFILE, 333, 444);
	lower(RLIMIT_NPROC, 3000, 4000);
	lower(RLIMIT_MEMLOCK, 1 << 20, 1 << 21);
	lower(RLIMIT_MSGQUEUE, 100000, 200000);
	lower(RLIMIT_RSS, 1UL << 33, 1UL << 34);
	lower(RLIMIT_LOCKS, 500, 600);
	lower(RLIMIT_RTTIME, 10000000, 20000000);
	/* Whatever it was started with: a user can only go on upwards. */
	EQUAL(setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + 2), 0);
	prctl(PR_SET_DUMPABLE, geteuid() == 0 ? 0 : 1);
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	int fd = open("/proc/self/oom_score_adj", O_WRONLY);
	/* A process that is not dumpable may still be adjusted by root, its owner. */
	CHECK(fd >= 0 && write(fd, "222", 3) == 3);
	close(fd);
	fd = open("/proc/self/coredump_filter", O_WRONLY);
	CHECK(fd >= 0 && write(fd, "0x13", 4) == 4);
	close(fd);
	pthread_t threads[2];
	EQUAL(pthread_create(&threads[0], NULL, be_different, NULL), 0);
	EQUAL(pthread_create(&threads[1], NULL, be_different, ""), 0);
	EVENTUALLY(threads_ready == 2);
	static struct view view;
	look(&view);
	EQUAL(view.mask, 0027);
	pod_ready();

	if (pod_break("limit")) lower(RLIMIT_NOFILE, 332, 444);
	if (pod_break("hard-limit")) lower(RLIMIT_LOCKS, 500, 599);
	if (pod_break("umask")) umask(0);
	if (pod_break("cwd")) EQUAL(chdir("/"), 0);
	if (pod_break("nice")) setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + 2);
	if (pod_break("name")) prctl(PR_SET_NAME, "x");
	if (pod_break("dumpable")) prctl(PR_SET_DUMPABLE, !view.dumpable);
	if (pod_break("oom")) {
		fd = open("/proc/self/oom_score_adj", O_WRONLY);
		CHECK(fd >= 0 && write(fd, "333", 3) == 3);
		close(fd);
	}
	if (pod_break("core-filter")) {
		fd = open("/proc/self/coredump_filter", O_WRONLY);
		CHECK(fd >= 0 && write(fd, "0x33", 4) == 4);
		close(fd);
	}
	if (pod_break("arguments")) argv[1][1]++;
	if (pod_break("personality")) personality(SHORT_INODE);

	while (pod_turn()) check(&view);
	check(&view);
	fd = MUST(open("made-in-cwd", O_CREAT | O_EXCL | O_RDWR, 0666));
	EQUAL(access(pod_path(directory, "a directory/made-in-cwd"), F_OK), 0);
	over = true;
	for (int i = 0; i < 2; i++) EQUAL(pthread_join(threads[i], NULL), 0);
	/* The second child's child comes to us, dead by its death signal. */
	pod_reap(children[0]);
	pod_reap(children[1]);
	int status;
	pid_t orphan = waitpid(-1, &status, 0);
	CHECKF(orphan > 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR2, "the death signal: %d, status 0x%x", orphan,
	       status);
	pod_pass();
}
