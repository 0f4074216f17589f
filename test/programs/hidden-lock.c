/*
 * A lock of an open file that has no descriptor any more: a mapping keeps it open, and locked.
 */
#include <sys/file.h>
#include "pod-test.h"

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pod_path_t path;
	int fd = MUST(open(pod_path(path, "locked"), O_RDWR | O_CREAT, 0666));
	EQUAL(ftruncate(fd, PAGE), 0);
	void *mapped = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(mapped != MAP_FAILED);
	EQUAL(flock(fd, LOCK_EX), 0);
	close(fd);
	pod_ready();
	if (pod_break("unmapped")) munmap(mapped, PAGE);
	do {
		int try = MUST(open(path, O_RDWR));
		FAILS(flock(try, LOCK_SH | LOCK_NB), EWOULDBLOCK);
		close(try);
	} while (pod_turn());
	pod_pass();
}
