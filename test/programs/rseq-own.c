/*
 * A restartable sequence area that is the program's own: in its data, not near the thread pointer, and with a
 * signature of its own. Linux before 5.13 has no way to tell it: there the session must be refused by name.
 */
#include "rseq-check.h"

#define OWN_SIGNATURE 0x77aa55cc

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	CHECKF(__rseq_size > 0, "glibc has not registered rseq");
	static struct rseq area __attribute__((aligned(32)));
	struct rseq *glibc = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
	EQUAL(syscall(SYS_rseq, glibc, 32, RSEQ_FLAG_UNREGISTER, SIGNATURE), 0);
	EQUAL(syscall(SYS_rseq, &area, 32, 0, OWN_SIGNATURE), 0);
	pod_ready();
	while (pod_turn()) check_registered(&area, 32, OWN_SIGNATURE);
	if (pod_break("own-rseq")) {
		EQUAL(syscall(SYS_rseq, &area, 32, RSEQ_FLAG_UNREGISTER, OWN_SIGNATURE), 0);
		EQUAL(syscall(SYS_rseq, &area, 32, 0, OWN_SIGNATURE + 1), 0);
	}
	check_registered(&area, 32, OWN_SIGNATURE);
	check_follows_processor(&area);
	pod_pass();
}
