/*
 * Named pipes: content, both ends in one process and in two, an end open for both directions, one whose name is
 * gone, an open(2) that waits for its partner, and a further open by name, which must reach the same pipe.
 */
#include <sys/ioctl.h>
#include "pod-test.h"

static int reader, writer, both, nameless_reader, nameless_writer, across;
static pod_path_t plain, both_path, nameless, across_path, waiting;
static _Atomic bool opened;

static int queued(int fd) {
	int count = -1;
	EQUAL(ioctl(fd, FIONREAD, &count), 0);
	return count;
}

static void *wait_for_partner(void *argument) {
	(void)argument;
	int fd = MUST(open(waiting, O_RDONLY));
	CHECKF(pod_go(), "open of a named pipe came back without a partner");
	opened = true;
	char text[8] = "";
	EQUAL(read(fd, text, 7), 7);
	CHECK(strcmp(text, "partner") == 0);
	EQUAL(read(fd, text, 7), 0);
	return NULL;
}

static void check(void) {
	EQUAL(queued(reader), 300);
	EQUAL(queued(both), 5);
	EQUAL(queued(nameless_reader), 8);
	EQUAL(opened, false);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	EQUAL(mkfifo(pod_path(plain, "plain fifo"), 0600), 0);
	EQUAL(mkfifo(pod_path(both_path, "both"), 0666), 0);
	EQUAL(mkfifo(pod_path(nameless, "nameless"), 0666), 0);
	EQUAL(mkfifo(pod_path(across_path, "across"), 0666), 0);
	EQUAL(mkfifo(pod_path(waiting, "waiting"), 0666), 0);
	reader = MUST(open(plain, O_RDONLY | O_NONBLOCK));
	EQUAL(fcntl(reader, F_SETFL, 0), 0);
	writer = MUST(open(plain, O_WRONLY | O_NONBLOCK | O_CLOEXEC));
	unsigned char bytes[300];
	pod_fill(bytes, sizeof bytes, 1);
	EQUAL(write(writer, bytes, sizeof bytes), sizeof bytes);
	both = MUST(open(both_path, O_RDWR));
	EQUAL(write(both, "loop!", 5), 5);
	nameless_reader = MUST(open(nameless, O_RDONLY | O_NONBLOCK));
	nameless_writer = MUST(open(nameless, O_WRONLY));
	EQUAL(write(nameless_writer, "no name!", 8), 8);
	EQUAL(unlink(nameless), 0);
	pid_t child = MUST(fork());
	if (child == 0) {
		close(reader);
		close(writer);
		across = MUST(open(across_path, O_WRONLY));
		pod_mark("child");
		while (pod_child_turn()) EQUAL(queued(across), 0);
		EQUAL(write(across, "hello", 5), 5);
		pod_await("read");
		_exit(0);
	}
	across = MUST(open(across_path, O_RDONLY));
	pod_await("child");
	pthread_t thread;
	EQUAL(pthread_create(&thread, NULL, wait_for_partner, NULL), 0);
	pod_sleep(30);
	pod_ready();

	if (pod_break("content")) EQUAL(read(reader, bytes, 1), 1);
	if (pod_break("both")) EQUAL(read(both, bytes, 1), 1);
	if (pod_break("partner")) MUST(open(waiting, O_RDWR));
	if (pod_break("other-pipe")) {
		int ends[2];
		EQUAL(pipe(ends), 0);
		EQUAL(write(ends[1], bytes, 300), 300);
		dup2(ends[0], reader);
	}
	if (pod_break("flags")) fcntl(writer, F_SETFL, 0);
	while (pod_turn()) check();
	check();
	struct stat status, by_name;
	EQUAL(fstat(reader, &status), 0);
	EQUAL(stat(plain, &by_name), 0);
	CHECKF(S_ISFIFO(status.st_mode) && status.st_ino == by_name.st_ino, "the descriptor is not the named pipe");
	EQUAL(fcntl(writer, F_GETFL) & ~0100000, O_WRONLY | O_NONBLOCK);
	EQUAL(fcntl(writer, F_GETFD), FD_CLOEXEC);
	EQUAL(fcntl(reader, F_GETFL) & ~0100000, O_RDONLY);
	EQUAL(fcntl(both, F_GETFL) & ~0100000, O_RDWR);
	/* A new end by name. */
	int again = MUST(open(plain, O_WRONLY | O_NONBLOCK));
	EQUAL(write(again, "more", 4), 4);
	EQUAL(queued(reader), 304);
	close(again);
	EQUAL(read(reader, bytes, sizeof bytes), sizeof bytes);
	CHECK_PATTERN(bytes, sizeof bytes, 1);
	EQUAL(read(reader, bytes, sizeof bytes), 4);
	CHECK(memcmp(bytes, "more", 4) == 0);
	close(writer);
	EQUAL(read(reader, bytes, 1), 0);
	EQUAL(read(both, bytes, 10), 5);
	CHECK(memcmp(bytes, "loop!", 5) == 0);
	EQUAL(write(nameless_writer, "x", 1), 1);
	EQUAL(read(nameless_reader, bytes, 20), 9);
	CHECK(memcmp(bytes, "no name!x", 9) == 0);
	EQUAL(read(across, bytes, 20), 5);
	CHECK(memcmp(bytes, "hello", 5) == 0);
	pod_mark("read");
	int partner = MUST(open(waiting, O_WRONLY));
	EQUAL(write(partner, "partner", 7), 7);
	close(partner);
	EQUAL(pthread_join(thread, NULL), 0);
	pod_reap(child);
	pod_pass();
}
