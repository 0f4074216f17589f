/*
 * An inotify instance with many watches, some taken away again: the others keep their numbers and what they
 * report; new ones get numbers that nobody has.
 *
 * As: root
 */
#include <sys/inotify.h>
#include <sys/stat.h>
#include "pod-test.h"

#define FOLDERS 40

static int fd;

static const char *folder(int index) {
	static char path[4200];
	snprintf(path, sizeof path, "%s/folder-%d", pod_dir, index);
	return path;
}

static const char *inside(int index, const char *name) {
	static char path[4300];
	snprintf(path, sizeof path, "%s/%s", folder(index), name);
	return path;
}

static bool is_watched(int index) {
	return index % 3 != 0;
}

/* The next event, which must be this one. */
static void expect(int watch, uint32_t mask, const char *name) {
	static char bytes[sizeof(struct inotify_event) + 256] __attribute__((aligned(8)));
	ssize_t length = read(fd, bytes, sizeof(struct inotify_event) + 16);
	CHECKF(length > 0, "no event of watch %d: %s", watch, strerror(errno));
	struct inotify_event *event = (struct inotify_event *)bytes;
	EQUAL(event->wd, watch);
	EQUAL(event->mask, mask);
	if (name) CHECK(strcmp(event->name, name) == 0);
}

static void check_watch(int index) {
	close(MUST(open(inside(index, "new"), O_CREAT | O_WRONLY, 0600)));
	if (is_watched(index)) expect(index + 1, IN_CREATE, "new");
	MUST(unlink(inside(index, "new")));
	if (is_watched(index) && index % 2) expect(index + 1, IN_DELETE, "new");
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	fd = MUST(inotify_init1(IN_NONBLOCK));
	for (int i = 0; i < FOLDERS; i++) {
		MUST(mkdir(folder(i), 0700));
		EQUAL(inotify_add_watch(fd, folder(i), IN_CREATE | (i % 2 ? IN_DELETE : 0)), i + 1);
	}
	for (int i = 0; i < FOLDERS; i++) {
		if (is_watched(i)) continue;
		MUST(inotify_rm_watch(fd, i + 1));
		expect(i + 1, IN_IGNORED, NULL);
	}
	pod_ready();
	if (pod_break("watch")) {
		MUST(inotify_rm_watch(fd, 20));
		expect(20, IN_IGNORED, NULL);
	}
	if (pod_break("mask")) EQUAL(inotify_add_watch(fd, folder(1), IN_CREATE), 2);
	while (pod_turn()) continue;
	for (int i = 0; i < FOLDERS; i++) check_watch(i);
	char none[16];
	FAILS(read(fd, none, sizeof none), EAGAIN);
	int next = MUST(inotify_add_watch(fd, folder(0), IN_CREATE));
	CHECKF(next > FOLDERS || !is_watched(next - 1), "the number %d is in use", next);
	pod_pass();
}
