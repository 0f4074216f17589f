/*
 * Directories: one half read (what is left must be exactly what was not seen yet), one as the base of *at calls,
 * one open by path only, shared by fork, removed while open.
 */
#include <dirent.h>
#include <sys/syscall.h>
#include "pod-test.h"

#define ENTRIES 700

static bool seen[ENTRIES];
static int half_read, base, path_only;

/* Read one buffer of entries; false at the end. */
static bool read_some(size_t size) {
	char buffer[2048];
	long got = MUST(syscall(SYS_getdents64, half_read, buffer, size));
	for (long at = 0; at < got;) {
		struct dirent64 *entry = (struct dirent64 *)(buffer + at);
		at += entry->d_reclen;
		if (entry->d_name[0] == '.') continue;
		int index = atoi(entry->d_name + 6);
		CHECK(index >= 0 && index < ENTRIES);
		CHECKF(!seen[index], "entry %d came twice", index);
		seen[index] = true;
	}
	return got > 0;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pod_path_t path, file;
	EQUAL(mkdir(pod_path(path, "many"), 0755), 0);
	for (int i = 0; i < ENTRIES; i++) {
		CHECK((size_t)snprintf(file, sizeof file, "%s/many/entry-%d", pod_dir, i) < sizeof file);
		EQUAL(close(MUST(open(file, O_CREAT | O_WRONLY, 0644))), 0);
	}
	half_read = MUST(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	for (int i = 0; i < 5; i++) CHECK(read_some(1024));
	off_t position = lseek(half_read, 0, SEEK_CUR);
	CHECK(position != 0);
	base = MUST(open(path, O_RDONLY | O_DIRECTORY | O_NONBLOCK));
	path_only = MUST(open(pod_dir, O_PATH | O_DIRECTORY));
	pid_t child = MUST(fork());
	if (child == 0) {
		pod_mark("child");
		while (pod_child_turn()) EQUAL(lseek(half_read, 0, SEEK_CUR), position);
		/* The position is shared: reading to the end here ends it for the parent, which starts over. */
		pod_await("read");
		EQUAL(lseek(half_read, 0, SEEK_SET), 0);
		_exit(0);
	}
	pod_await("child");
	pod_ready();
	if (pod_break("position")) lseek(half_read, 0, SEEK_SET);
	if (pod_break("lost-entries")) {
		CHECK(read_some(1024));
		memset(seen, 0, sizeof seen);
	}
	if (pod_break("flags")) fcntl(base, F_SETFL, 0);
	if (pod_break("base")) dup2(path_only, base);
	while (pod_turn()) EQUAL(lseek(half_read, 0, SEEK_CUR), position);
	EQUAL(lseek(half_read, 0, SEEK_CUR), position);
	while (read_some(2048)) continue;
	for (int i = 0; i < ENTRIES; i++) CHECKF(seen[i], "entry %d never came", i);
	EQUAL(fcntl(half_read, F_GETFD), FD_CLOEXEC);
	EQUAL(fcntl(base, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	EQUAL(fcntl(path_only, F_GETFL) & O_PATH, O_PATH);
	int fd = MUST(openat(base, "entry-5", O_RDONLY));
	close(fd);
	EQUAL(unlinkat(base, "entry-6", 0), 0);
	EQUAL(close(MUST(openat(path_only, "many/entry-7", O_RDONLY))), 0);
	EQUAL(fchdir(path_only), 0);
	EQUAL(access("many/entry-7", F_OK), 0);
	pod_mark("read");
	pod_reap(child);
	/* Started over by the child. */
	memset(seen, 0, sizeof seen);
	while (read_some(2048)) continue;
	CHECK(!seen[6] && seen[5] && seen[ENTRIES - 1]);
	pod_pass();
}
