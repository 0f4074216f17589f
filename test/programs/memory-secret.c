/*
 * memfd_secret(2) whose descriptor was closed: memory that nobody but the program may read, not even who dumps it.
 * Refused.
 * Since: 6.5
 */
#include "pod-test.h"

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	int fd = MUST(syscall(SYS_memfd_secret, 0));
	MUST(ftruncate(fd, PAGE));
	unsigned char *secret = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(secret != MAP_FAILED);
	close(fd);
	pod_fill(secret, PAGE, 1);
	pod_ready();
	if (pod_break("content")) secret[9] ^= 1;
	do CHECK_PATTERN(secret, PAGE, 1);
	while (pod_turn());
	pod_pass();
}
