/*
 * Regular files: access modes, status flags, offsets (also beyond the end and above 4 GiB), O_APPEND, O_PATH, one
 * open file shared by dup, by fork and under several numbers, two opens of one file apart, close-on-exec per
 * descriptor, owner and signal, high descriptor numbers. What is written at the end must land in the right place.
 */
#include <linux/kcmp.h>
#include "pod-test.h"

#define SIZE 10000

static pod_path_t data, log_path;
static int reader, writer, appender, both, far, beyond, path_only, duplicate, high, apart, truncated_writer, no_time;

static bool is_same_file(pid_t pid1, pid_t pid2, int fd1, int fd2) {
	long result = syscall(SYS_kcmp, pid1, pid2, KCMP_FILE, fd1, fd2);
	CHECK(result >= 0);
	return result == 0;
}

static void check_flags(int fd, int descriptor, int status) {
	EQUAL(fcntl(fd, F_GETFD), descriptor);
	/* The kernel reports O_LARGEFILE for 64-bit opens. */
	EQUAL(fcntl(fd, F_GETFL) & ~0100000, status);
}

static void check(void) {
	check_flags(reader, FD_CLOEXEC, O_RDONLY);
	check_flags(writer, 0, O_WRONLY | O_SYNC);
	check_flags(appender, 0, O_WRONLY | O_APPEND | O_NONBLOCK);
	check_flags(both, 0, O_RDWR | O_DSYNC);
	check_flags(duplicate, FD_CLOEXEC, O_RDWR | O_DSYNC);
	check_flags(high, 0, O_RDWR | O_DSYNC);
	check_flags(path_only, FD_CLOEXEC, O_PATH);
	check_flags(no_time, 0, O_RDONLY | O_NOATIME);
	EQUAL(lseek(reader, 0, SEEK_CUR), 1234);
	EQUAL(lseek(writer, 0, SEEK_CUR), 77);
	EQUAL(lseek(both, 0, SEEK_CUR), 5000);
	EQUAL(lseek(duplicate, 0, SEEK_CUR), 5000);
	EQUAL(lseek(high, 0, SEEK_CUR), 5000);
	EQUAL(lseek(apart, 0, SEEK_CUR), 8);
	EQUAL(lseek(far, 0, SEEK_CUR), (6L << 30) + 3);
	EQUAL(lseek(beyond, 0, SEEK_CUR), 1000000);
	FAILS(lseek(path_only, 0, SEEK_CUR), EBADF);
}

static void run_child(void) {
	pod_mark("child");
	while (pod_child_turn()) EQUAL(lseek(both, 0, SEEK_CUR), 5000);
	CHECK(is_same_file(getpid(), getppid(), both, both));
	CHECK(is_same_file(getpid(), getppid(), reader, reader));
	CHECK(!is_same_file(getpid(), getppid(), apart, reader));
	/* The descriptor table is the child's own. */
	FAILS(fcntl(apart + 300, F_GETFD), EBADF);
	pod_await("child-may-seek");
	EQUAL(lseek(both, 6000, SEEK_SET), 6000);
	_exit(0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	static unsigned char bytes[SIZE];
	pod_fill(bytes, SIZE, 1);
	int fd = MUST(open(pod_path(data, "data"), O_RDWR | O_CREAT | O_TRUNC, 0644));
	EQUAL(write(fd, bytes, SIZE), SIZE);
	close(fd);
	pod_path_t path;

	reader = MUST(open(data, O_RDONLY | O_CLOEXEC));
	EQUAL(lseek(reader, 1234, SEEK_SET), 1234);
	writer = MUST(open(pod_path(path, "written"), O_WRONLY | O_CREAT | O_EXCL | O_TRUNC | O_SYNC, 0600));
	EQUAL(write(writer, bytes, 77), 77);
	appender = MUST(open(pod_path(log_path, "a log"), O_WRONLY | O_CREAT | O_APPEND, 0644));
	EQUAL(fcntl(appender, F_SETFL, O_APPEND | O_NONBLOCK), 0);
	EQUAL(write(appender, "first\n", 6), 6);
	both = MUST(open(data, O_RDWR | O_DSYNC));
	EQUAL(lseek(both, 5000, SEEK_SET), 5000);
	duplicate = MUST(fcntl(both, F_DUPFD_CLOEXEC, 0));
	high = MUST(dup2(both, 555));
	apart = MUST(open(data, O_RDONLY));
	EQUAL(lseek(apart, 8, SEEK_SET), 8);
	far = MUST(open(pod_path(path, "sparse"), O_RDWR | O_CREAT, 0644));
	EQUAL(lseek(far, 6L << 30, SEEK_SET), 6L << 30);
	EQUAL(write(far, "far", 3), 3);
	beyond = MUST(open(data, O_RDONLY));
	EQUAL(lseek(beyond, 1000000, SEEK_SET), 1000000);
	path_only = MUST(open(data, O_PATH | O_CLOEXEC));
	no_time = MUST(open(data, O_RDONLY | O_NOATIME));
	/* A file that is made unreadable after it was opened. */
	truncated_writer = MUST(open(pod_path(path, "mode 0"), O_RDWR | O_CREAT, 0600));
	EQUAL(fchmod(truncated_writer, 0), 0);
	struct f_owner_ex owner = { .type = F_OWNER_TID, .pid = getpid() };
	EQUAL(fcntl(reader, F_SETOWN_EX, &owner), 0);
	EQUAL(fcntl(reader, F_SETSIG, SIGRTMIN + 1), 0);
	pid_t child = MUST(fork());
	if (child == 0) run_child();
	pod_await("child");
	MUST(dup2(apart, apart + 300));
	pod_ready();

	if (pod_break("offset")) lseek(reader, 1235, SEEK_SET);
	if (pod_break("cloexec")) fcntl(duplicate, F_SETFD, 0);
	if (pod_break("flags")) fcntl(appender, F_SETFL, O_APPEND);
	if (pod_break("append")) {
		fd = MUST(open(log_path, O_WRONLY | O_NONBLOCK));
		dup2(fd, appender);
	}
	if (pod_break("sharing")) {
		fd = MUST(open(data, O_RDWR | O_DSYNC));
		lseek(fd, 5000, SEEK_SET);
		dup2(fd, high);
	}
	if (pod_break("sharing-by-fork")) {
		fd = MUST(open(data, O_RDWR | O_DSYNC));
		lseek(fd, 5000, SEEK_SET);
		dup2(fd, high);
		dup2(fd, both);
		dup3(fd, duplicate, O_CLOEXEC);
	}
	if (pod_break("other-file")) {
		fd = MUST(open(log_path, O_RDONLY | O_CLOEXEC));
		lseek(fd, 1234, SEEK_SET);
		dup3(fd, reader, O_CLOEXEC);
	}
	if (pod_break("owner")) fcntl(reader, F_SETOWN, 0);
	if (pod_break("closed")) close(high);
	if (pod_break("extra")) MUST(dup2(0, 400));

	while (pod_turn()) check();
	check();
	CHECK(is_same_file(getpid(), getpid(), both, high));
	CHECK(is_same_file(getpid(), getpid(), both, duplicate));
	CHECK(!is_same_file(getpid(), getpid(), both, reader));
	CHECK(is_same_file(getpid(), getpid(), apart, apart + 300));
	/* Nothing is open that should not be. */
	for (int other = truncated_writer + 1; other < 700; other++)
		if (other != high && other != apart + 300)
			CHECKF(fcntl(other, F_GETFD) == -1, "descriptor %d is open, last of ours is %d", other, truncated_writer);
	memset(&owner, 0, sizeof owner);
	EQUAL(fcntl(reader, F_GETOWN_EX, &owner), 0);
	EQUAL(owner.type, F_OWNER_TID);
	EQUAL(owner.pid, getpid());
	EQUAL(fcntl(reader, F_GETSIG), SIGRTMIN + 1);

	static unsigned char found[SIZE];
	EQUAL(read(reader, found, 500), 500);
	CHECK(memcmp(found, bytes + 1234, 500) == 0);
	EQUAL(read(no_time, found, SIZE), SIZE);
	CHECK_PATTERN(found, SIZE, 1);
	EQUAL(read(beyond, found, 10), 0);
	/* At the end, wherever somebody else put it. */
	fd = MUST(open(log_path, O_RDWR));
	EQUAL(pwrite(fd, "second\n", 7, 6), 7);
	EQUAL(write(appender, "third\n", 6), 6);
	EQUAL(read(fd, found, SIZE), 19);
	CHECK(memcmp(found, "first\nsecond\nthird\n", 19) == 0);
	EQUAL(write(writer, "after", 5), 5);
	struct stat status, other;
	fstat(writer, &status);
	EQUAL(status.st_size, 82);
	EQUAL(status.st_mode & 0777, 0600);
	EQUAL(write(far, "!", 1), 1);
	EQUAL(pread(far, found, 4, 6L << 30), 4);
	CHECK(memcmp(found, "far!", 4) == 0);
	fstat(path_only, &status);
	stat(data, &other);
	CHECK(status.st_ino == other.st_ino && status.st_dev == other.st_dev);
	FAILS(read(path_only, found, 1), EBADF);
	FAILS(write(reader, "x", 1), EBADF);
	FAILS(read(writer, found, 1), EBADF);
	EQUAL(write(truncated_writer, "mine", 4), 4);
	/* One offset for all who share it. */
	EQUAL(read(both, found, 100), 100);
	CHECK(memcmp(found, bytes + 5000, 100) == 0);
	EQUAL(lseek(high, 0, SEEK_CUR), 5100);
	EQUAL(lseek(apart, 0, SEEK_CUR), 8);
	pod_mark("child-may-seek");
	pod_reap(child);
	EQUAL(lseek(duplicate, 0, SEEK_CUR), 6000);
	pod_pass();
}
