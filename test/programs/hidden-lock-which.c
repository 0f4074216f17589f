/*
 * Two open files of one inode, both held by mappings alone, one of them locked: nobody can tell which, so a dump
 * must refuse.
 */
#include <sys/file.h>
#include "pod-test.h"

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pod_path_t path;
	void *mapped[2];
	for (int turn = 0; turn < 2; turn++) {
		int fd = MUST(open(pod_path(path, "locked"), O_RDWR | O_CREAT, 0666));
		EQUAL(ftruncate(fd, PAGE), 0);
		mapped[turn] = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
		CHECK(mapped[turn] != MAP_FAILED);
		if (turn == 0) EQUAL(flock(fd, LOCK_EX), 0);
		close(fd);
	}
	pod_ready();
	if (pod_break("unmapped")) munmap(mapped[0], PAGE);
	do {
		int try = MUST(open(path, O_RDWR));
		FAILS(flock(try, LOCK_SH | LOCK_NB), EWOULDBLOCK);
		close(try);
	} while (pod_turn());
	pod_pass();
}
