/*
 * Watches on folders that the session has nothing to do with else: upper ones of the computer, as browsers and time
 * libraries watch them.
 */
#include <sys/inotify.h>
#include "pod-test.h"

static const char *const folders[] = { "/etc", "/usr", "/usr/lib", "/var/tmp" };
static int fd;

/* What the kernel says of a watch is what lies under the name. */
static void check_watch(int watch, const char *path) {
	char name[64], line[512];
	struct stat stat_of;
	EQUAL(stat(path, &stat_of), 0);
	snprintf(name, sizeof name, "/proc/self/fdinfo/%d", fd);
	FILE *info = fopen(name, "re");
	CHECK(info != NULL);
	bool found = false;
	while (fgets(line, sizeof line, info)) {
		unsigned number, mask;
		unsigned long inode;
		if (sscanf(line, "inotify wd:%x ino:%lx sdev:%*x mask:%x", &number, &inode, &mask) != 3) continue;
		if ((int)number != watch) continue;
		found = true;
		EQUAL(inode, stat_of.st_ino);
		EQUAL(mask & IN_ALL_EVENTS, IN_MOVE_SELF);
	}
	fclose(info);
	CHECKF(found, "%s is not watched", path);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	fd = MUST(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
	for (size_t i = 0; i < COUNT(folders); i++) EQUAL(inotify_add_watch(fd, folders[i], IN_MOVE_SELF), (int)i + 1);
	pod_ready();
	if (pod_break("unwatched")) inotify_rm_watch(fd, 2);
	if (pod_break("other")) {
		inotify_rm_watch(fd, 4);
		inotify_add_watch(fd, "/", IN_MOVE_SELF);
	}
	do {
		for (size_t i = 0; i < COUNT(folders); i++) check_watch((int)i + 1, folders[i]);
	} while (pod_turn());
	pod_pass();
}
