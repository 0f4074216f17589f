/*
 * Children whose parent is gone and that now belong to pid 1 of the pod, with and without a session of their own:
 * they go on, and their parent stays pid 1.
 * Via: pod
 */
#include "pod-test.h"

static void run_orphan(const char *name, bool own_session) {
	if (own_session) setsid();
	EVENTUALLY(getppid() == 1);
	pid_t me = getpid(), group = getpgid(0), session = getsid(0);
	pod_mark(name);
	if (pod_break("group") && own_session == false) setpgid(0, 0);
	while (pod_child_turn()) {
		EQUAL(getppid(), 1);
		EQUAL(getpid(), me);
		EQUAL(getpgid(0), group);
		EQUAL(getsid(0), session);
	}
	char sign[64];
	snprintf(sign, sizeof sign, "%s-done", name);
	pod_mark(sign);
	_exit(0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	static const char *const names[] = { "orphan", "orphan-leader" };
	pid_t parent = MUST(fork());
	if (parent == 0) {
		for (int i = 0; i < 2; i++) {
			pid_t child = MUST(fork());
			if (child == 0) run_orphan(names[i], i == 1);
		}
		_exit(0);
	}
	pod_reap(parent);
	for (int i = 0; i < 2; i++) pod_await(names[i]);
	pod_ready();
	while (pod_turn()) continue;
	for (int i = 0; i < 2; i++) {
		char sign[64];
		snprintf(sign, sizeof sign, "%s-done", names[i]);
		pod_await(sign);
	}
	FAILS(waitpid(-1, NULL, 0), ECHILD);
	pod_pass();
}
