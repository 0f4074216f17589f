/*
 * Parent and child: threads blocked in every kind of wait for children that live and are to end with a known status
 * only in the end. No wait may come back before, and each must come back with the right child.
 */
#include "pod-test.h"

static _Atomic int returned;

struct waiting {
	const char *what;
	pid_t child;
	int status;
	pthread_t thread;
	_Atomic pid_t tid;
};

static pid_t make_child(int status, bool own_group) {
	pid_t child = MUST(fork());
	if (child == 0) {
		if (own_group) setpgid(0, 0);
		while (pod_child_turn()) continue;
		/* The main task looks first that all still wait. */
		pod_await("end");
		_exit(status);
	}
	if (own_group) setpgid(child, child);
	return child;
}

static struct waiting waits[] = {
	{ .what = "waitpid", .status = 11 }, { .what = "waitid", .status = 12 }, { .what = "group", .status = 13 },
	{ .what = "pidless", .status = 14 }, { .what = "stopped", .status = 15 },
};

static void *wait_for(void *argument) {
	struct waiting *waiting = argument;
	waiting->tid = (pid_t)syscall(SYS_gettid);
	int status = 0;
	siginfo_t info = { 0 };
	switch (waiting - waits) {
	case 0:
		EQUAL(waitpid(waiting->child, &status, 0), waiting->child);
		break;
	case 1:
		EQUAL(waitid(P_PID, (id_t)waiting->child, &info, WEXITED | WSTOPPED | WCONTINUED), 0);
		EQUAL(info.si_pid, waiting->child);
		EQUAL(info.si_code, CLD_EXITED);
		status = info.si_status << 8;
		break;
	case 2:
		EQUAL(waitpid(-waiting->child, &status, 0), waiting->child);
		break;
	case 3: {
		/* wait4 with a rusage to fill. */
		char rusage[144];
		memset(rusage, 0xff, sizeof rusage);
		EQUAL(syscall(SYS_wait4, waiting->child, &status, 0, rusage), waiting->child);
		CHECK(rusage[15] == 0);
		break;
	}
	case 4:
		/* A child that stops is told of by WUNTRACED, then it goes on and ends. */
		EQUAL(waitpid(waiting->child, &status, WUNTRACED), waiting->child);
		CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
		EQUAL(kill(waiting->child, SIGCONT), 0);
		EQUAL(waitpid(waiting->child, &status, WCONTINUED), waiting->child);
		CHECK(WIFCONTINUED(status));
		EQUAL(waitpid(waiting->child, &status, 0), waiting->child);
		break;
	}
	CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == waiting->status, "'%s' came back with status 0x%x", waiting->what,
	       status);
	CHECKF(pod_has("end"), "'%s' came back before its child ended", waiting->what);
	returned++;
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	for (size_t i = 0; i < COUNT(waits); i++) waits[i].child = make_child(waits[i].status, i == 2);
	for (size_t i = 0; i < COUNT(waits); i++)
		EQUAL(pthread_create(&waits[i].thread, NULL, wait_for, &waits[i]), 0);
	for (size_t i = 0; i < COUNT(waits); i++) EVENTUALLY(waits[i].tid);
	pod_sleep(30);
	pod_ready();
	if (pod_break("killed")) kill(waits[1].child, SIGKILL);
	if (pod_break("status")) waits[0].status++;
	if (pod_break("stopped")) kill(waits[1].child, SIGSTOP);
	while (pod_turn()) EQUAL(returned, 0);
	EQUAL(returned, 0);
	EQUAL(kill(waits[4].child, SIGSTOP), 0);
	pod_sleep(50);
	EQUAL(returned, 0);
	pod_mark("end");
	for (size_t i = 0; i < COUNT(waits); i++) EQUAL(pthread_join(waits[i].thread, NULL), 0);
	FAILS(waitpid(-1, NULL, 0), ECHILD);
	pod_pass();
}
