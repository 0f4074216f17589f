/*
 * Input and output by the kernel, io_setup(2): an idle context. Its ring looks like a deleted file that is mapped, and
 * a copy of it is no context. Refused so far.
 */
#include <linux/aio_abi.h>
#include "pod-test.h"

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	aio_context_t context = 0;
	MUST(syscall(SYS_io_setup, 8, &context));
	pod_ready();
	if (pod_break("gone")) MUST(syscall(SYS_io_destroy, context));
	struct timespec none = { 0 };
	struct io_event event;
	do EQUAL(syscall(SYS_io_getevents, context, 0, 1, &event, &none), 0);
	while (pod_turn());
	pod_pass();
}
