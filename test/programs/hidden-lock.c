/*
 * Locks of open files that have no descriptor any more: mappings keep them open, and locked, and give the lock back
 * when they go. One exclusive and shared, one shared and private (as a JVM locks its performance data).
 */
#include <sys/file.h>
#include "pod-test.h"

static void *map_locked(const char *path, int how, int sharing) {
	int fd = MUST(open(path, O_RDWR | O_CREAT, 0666));
	EQUAL(ftruncate(fd, PAGE), 0);
	EQUAL(flock(fd, how), 0);
	uint8_t *mapped = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, sharing, fd, 0);
	CHECK(mapped != MAP_FAILED);
	close(fd);
	return mapped;
}

/* 0, or the errno. */
static int try_lock(const char *path, int how) {
	int fd = MUST(open(path, O_RDWR));
	int errors = flock(fd, how | LOCK_NB) == 0 ? 0 : errno;
	close(fd);
	return errors;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pod_path_t owned, common;
	pod_path(owned, "owned");
	pod_path(common, "common");
	uint8_t *alone = map_locked(owned, LOCK_EX, MAP_SHARED);
	uint8_t *among = map_locked(common, LOCK_SH, MAP_PRIVATE);
	alone[7] = 7;
	among[8] = 8;
	pod_ready();
	if (pod_break("unmapped")) munmap(alone, PAGE);
	if (pod_break("other-unmapped")) munmap(among, PAGE);
	do {
		EQUAL(try_lock(owned, LOCK_SH), EWOULDBLOCK);
		EQUAL(try_lock(common, LOCK_EX), EWOULDBLOCK);
		EQUAL(try_lock(common, LOCK_SH), 0);
	} while (pod_turn());
	EQUAL(alone[7], 7);
	EQUAL(among[8], 8);
	EQUAL(munmap(alone, PAGE), 0);
	EQUAL(munmap(among, PAGE), 0);
	EQUAL(try_lock(owned, LOCK_EX), 0);
	EQUAL(try_lock(common, LOCK_EX), 0);
	pod_pass();
}
