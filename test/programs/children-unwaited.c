/*
 * SIGCHLD at its default action but with SA_NOCLDWAIT: nobody handles or ignores it, and still no child becomes a
 * zombie.
 */
#include <sys/wait.h>
#include "pod-test.h"

static void set_action(int flags) {
	struct sigaction action = { .sa_handler = SIG_DFL, .sa_flags = flags };
	EQUAL(sigaction(SIGCHLD, &action, NULL), 0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	set_action(SA_NOCLDWAIT | SA_NOCLDSTOP);
	pod_ready();
	if (pod_break("no-wait")) set_action(SA_NOCLDSTOP);
	if (pod_break("no-stop")) set_action(SA_NOCLDWAIT);
	while (pod_turn()) continue;
	struct sigaction now;
	EQUAL(sigaction(SIGCHLD, NULL, &now), 0);
	CHECK(now.sa_handler == SIG_DFL);
	EQUAL(now.sa_flags & (SA_NOCLDWAIT | SA_NOCLDSTOP), SA_NOCLDWAIT | SA_NOCLDSTOP);
	pid_t child = MUST(fork());
	if (child == 0) _exit(3);
	FAILS(waitpid(child, NULL, 0), ECHILD);
	pod_pass();
}
