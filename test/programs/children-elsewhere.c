/*
 * A process whose children would have a pid namespace of their own, of which it has none yet: refused.
 * As: root
 */
#include <sched.h>
#include "pod-test.h"

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	EQUAL(unshare(CLONE_NEWPID), 0);
	pod_ready();
	bool moved = !pod_break("at-home");
	while (pod_turn()) continue;
	char name[64];
	/* Before the first child it has no name. */
	EQUAL(readlink("/proc/self/ns/pid_for_children", name, sizeof name) > 0, !moved);
	pod_pass();
}
