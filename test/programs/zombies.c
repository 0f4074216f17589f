/*
 * Dead children that nobody has waited for yet: ended by exit and by signals, leaders of groups and sessions, in a
 * grandchild's care, with an end signal other than SIGCHLD. They stay dead, keep pid and status, and nobody is told
 * of their death a second time.
 */
#include <sched.h>
#include "pod-test.h"

static _Atomic int child_signals, other_signals;

static void count_child(int signal) {
	(void)signal;
	child_signals++;
}

static void count_other(int signal) {
	(void)signal;
	other_signals++;
}

static struct {
	const char *what;
	int status; /* for exit, or minus the signal */
	bool group, session;
	pid_t pid;
} dead[] = {
	{ .what = "exit 0", .status = 0 },
	{ .what = "exit 42", .status = 42 },
	{ .what = "exit 255", .status = 255 },
	{ .what = "killed", .status = -SIGKILL },
	{ .what = "terminated", .status = -SIGTERM },
	{ .what = "crashed", .status = -SIGSEGV },
	{ .what = "real-time signal", .status = -60 },
	{ .what = "group leader", .status = 7, .group = true },
	{ .what = "session leader", .status = 8, .session = true },
};

static void make_dead(size_t i) {
	pid_t pid = MUST(fork());
	if (pid == 0) {
		prctl(PR_SET_DUMPABLE, 0); /* no core file */
		if (dead[i].group) setpgid(0, 0);
		if (dead[i].session) setsid();
		if (dead[i].status >= 0) _exit(dead[i].status);
		signal(-dead[i].status, SIG_DFL);
		kill(getpid(), -dead[i].status);
		for (;;) pause();
	}
	dead[i].pid = pid;
	siginfo_t info;
	int result;
	while ((result = waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT)) == -1 && errno == EINTR) continue;
	EQUAL(result, 0);
}

static void check_dead(void) {
	for (size_t i = 0; i < COUNT(dead); i++) {
		siginfo_t info = { 0 };
		CHECKF(waitid(P_PID, (id_t)dead[i].pid, &info, WEXITED | WNOWAIT | WNOHANG) == 0, "'%s' is gone", dead[i].what);
		CHECKF(info.si_pid == dead[i].pid, "'%s' is not dead", dead[i].what);
		EQUAL(info.si_code, dead[i].status >= 0 ? CLD_EXITED : CLD_KILLED);
		EQUAL(info.si_status, abs(dead[i].status));
		EQUAL(info.si_uid, getuid());
		char path[64], state[64];
		snprintf(path, sizeof path, "/proc/%d/status", dead[i].pid);
		CHECKF(pod_field(path, "State", state, sizeof state)[0] == 'Z', "'%s' is %s", dead[i].what, state);
		EQUAL(getpgid(dead[i].pid), dead[i].group || dead[i].session ? dead[i].pid : getpgid(0));
	}
}

static pid_t odd;

static void check_odd(void) {
	siginfo_t info = { 0 };
	EQUAL(waitid(P_PID, (id_t)odd, &info, WEXITED | WNOWAIT | WNOHANG | __WCLONE), 0);
	EQUAL(info.si_pid, odd);
	EQUAL(info.si_status, 9);
	/* Not to be seen by an ordinary wait. */
	FAILS(waitid(P_PID, (id_t)odd, &info, WEXITED | WNOWAIT | WNOHANG), ECHILD);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pod_takes_signals = true;
	struct sigaction action = { .sa_handler = count_child, .sa_flags = SA_RESTART };
	sigaction(SIGCHLD, &action, NULL);
	action.sa_handler = count_other;
	sigaction(SIGUSR1, &action, NULL);
	pid_t child = MUST(fork());
	if (child == 0) {
		/* A child with a dead child of its own. */
		for (size_t i = 0; i < COUNT(dead); i++) dead[i].pid = -1;
		make_dead(1);
		pod_mark("child");
		int signals = child_signals;
		while (pod_child_turn()) continue;
		EQUAL(child_signals, signals);
		int status;
		EQUAL(waitpid(dead[1].pid, &status, 0), dead[1].pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
		/* Its own death is told, so not before the parent has counted. */
		pod_await("counted");
		_exit(0);
	}
	pod_await("child");
	for (size_t i = 0; i < COUNT(dead); i++) make_dead(i);
	odd = (pid_t)MUST(syscall(SYS_clone, SIGUSR1, NULL, NULL, NULL, NULL));
	if (odd == 0) _exit(9);
	siginfo_t info;
	while (waitid(P_PID, (id_t)odd, &info, WEXITED | WNOWAIT | __WCLONE) == -1 && errno == EINTR) continue;
	int signals = child_signals;
	EQUAL(other_signals, 1);
	pod_ready();
	if (pod_break("gone")) EQUAL(waitpid(dead[4].pid, NULL, 0), dead[4].pid);
	if (pod_break("status")) {
		dead[1].status = 43;
	}
	if (pod_break("told-again")) kill(getpid(), SIGCHLD);
	if (pod_break("odd")) EQUAL(waitpid(odd, NULL, __WCLONE), odd);
	while (pod_turn()) {
		check_dead();
		check_odd();
		CHECKF(child_signals == signals, "told again of a death");
	}
	check_dead();
	check_odd();
	EQUAL(other_signals, 1);
	for (size_t i = 0; i < COUNT(dead); i++) {
		int status;
		EQUAL(waitpid(dead[i].pid, &status, 0), dead[i].pid);
		if (dead[i].status >= 0)
			CHECK(WIFEXITED(status) && WEXITSTATUS(status) == dead[i].status);
		else
			CHECK(WIFSIGNALED(status) && WTERMSIG(status) == -dead[i].status && !WCOREDUMP(status));
		FAILS(kill(dead[i].pid, 0), ESRCH);
	}
	EQUAL(waitpid(odd, NULL, __WCLONE), odd);
	pod_mark("counted");
	pod_reap(child);
	EQUAL(child_signals, signals + 1);
	FAILS(waitpid(-1, NULL, __WALL), ECHILD);
	pod_pass();
}
