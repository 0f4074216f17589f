/*
 * File locks of all kinds: fcntl of a process (ranges, to the end, shared by two, through two descriptors of one
 * file), of an open file that two processes share, flock on files and a directory, leases; a process that waits in
 * F_SETLKW, and gets the lock when it is let go. Another process sees at every turn what is locked and by whom.
 */
#include <sys/file.h>
#include "pod-test.h"

static pod_path_t posix_path, ofd_path, alone_path, shared_path, dir_path, lease_path, read_lease_path;
static pid_t main_pid, holder_pid;

static int request(int fd, int command, short type, off_t start, off_t length) {
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length };
	return fcntl(fd, command, &lock);
}

static void lock(int fd, short type, off_t start, off_t length) {
	EQUAL(request(fd, F_SETLK, type, start, length), 0);
}

static void lock_open_file(int fd, short type, off_t start, off_t length) {
	EQUAL(request(fd, F_OFD_SETLK, type, start, length), 0);
}

/** What stands in the way of a write lock on the range. */
static void expect(int fd, off_t from, off_t count, short type, off_t start, off_t length, pid_t pid) {
	struct flock found = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = from, .l_len = count };
	EQUAL(fcntl(fd, F_GETLK, &found), 0);
	CHECKF(found.l_type == type, "byte %ld: lock of type %d, should be %d", (long)from, found.l_type, type);
	if (type == F_UNLCK) return;
	CHECKF(found.l_start == start && found.l_len == length && found.l_pid == pid,
	       "byte %ld: locked from %ld, %ld bytes, by %d; should be %ld, %ld, %d", (long)from, (long)found.l_start,
	       (long)found.l_len, found.l_pid, (long)start, (long)length, pid);
}

static void probe(void) {
	int posix = MUST(open(posix_path, O_RDWR)), ofd = MUST(open(ofd_path, O_RDWR));
	expect(posix, 0, 1, F_WRLCK, 0, 10, main_pid);
	expect(posix, 10, 10, F_UNLCK, 0, 0, 0);
	expect(posix, 20, 5, F_RDLCK, 20, 10, main_pid);
	expect(posix, 30, 5, F_RDLCK, 25, 10, holder_pid);
	expect(posix, 35, 5, F_UNLCK, 0, 0, 0);
	expect(posix, 45, 1, F_RDLCK, 40, 10, main_pid);
	expect(posix, 55, 1, F_RDLCK, 50, 10, holder_pid);
	expect(posix, 60, 1, F_WRLCK, 60, 5, main_pid);
	expect(posix, 65, 35, F_UNLCK, 0, 0, 0);
	expect(posix, 1L << 60, 1, F_WRLCK, 100, 0, holder_pid);
	FAILS(request(posix, F_SETLK, F_RDLCK, 5, 1), EAGAIN);
	EQUAL(request(posix, F_SETLK, F_RDLCK, 22, 3), 0);
	EQUAL(request(posix, F_SETLK, F_UNLCK, 22, 3), 0);

	expect(ofd, 99, 1, F_WRLCK, 0, 100, -1);
	expect(ofd, 100, 100, F_UNLCK, 0, 0, 0);
	expect(ofd, 200, 1, F_RDLCK, 200, 100, -1);
	FAILS(request(ofd, F_OFD_SETLK, F_RDLCK, 0, 1), EAGAIN);

	int alone = MUST(open(alone_path, O_RDWR)), shared = MUST(open(shared_path, O_RDWR));
	int dir = MUST(open(dir_path, O_RDONLY | O_DIRECTORY));
	FAILS(flock(alone, LOCK_SH | LOCK_NB), EWOULDBLOCK);
	FAILS(flock(shared, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	EQUAL(flock(shared, LOCK_SH | LOCK_NB), 0);
	FAILS(flock(dir, LOCK_SH | LOCK_NB), EWOULDBLOCK);
	close(posix), close(ofd), close(alone), close(shared), close(dir);
}

static int make(pod_path_t path, const char *name, int flags) {
	close(MUST(open(pod_path(path, name), O_RDWR | O_CREAT, 0666)));
	return MUST(open(path, flags));
}

/** Holds what is not main's. The open file `inherited` is main's too. */
static void hold(int inherited) {
	holder_pid = getpid();
	int posix = MUST(open(posix_path, O_RDWR)), ofd = MUST(open(ofd_path, O_RDONLY));
	lock(posix, F_RDLCK, 25, 10);
	lock(posix, F_RDLCK, 40, 20);
	lock(posix, F_UNLCK, 40, 10);
	lock(posix, F_WRLCK, 100, 0);
	lock_open_file(ofd, F_RDLCK, 200, 100);
	int alone = MUST(open(alone_path, O_RDONLY)), shared = MUST(open(shared_path, O_RDONLY));
	EQUAL(flock(alone, LOCK_EX), 0);
	EQUAL(flock(shared, LOCK_SH), 0);
	pod_mark("held");
	if (pod_break("shared")) flock(alone, LOCK_SH);
	if (pod_break("open-file")) request(inherited, F_OFD_SETLK, F_UNLCK, 50, 1);
	pod_await("over");
	/* Its own locks are no obstacle to it, and it may change them. */
	lock(posix, F_WRLCK, 50, 10);
	EQUAL(flock(shared, LOCK_EX | LOCK_NB), -1);
	EQUAL(flock(alone, LOCK_EX | LOCK_NB), 0);
	_exit(0);
}

static void watch(void) {
	do probe();
	while (pod_child_turn());
	probe();
	_exit(0);
}

static void wait_for_lock(void) {
	int posix = MUST(open(posix_path, O_RDWR));
	pod_mark("waits");
	EQUAL(request(posix, F_SETLKW, F_WRLCK, 0, 5), 0);
	CHECKF(pod_has("over"), "the lock was given to a second holder");
	expect(posix, 5, 1, F_UNLCK, 0, 0, 0);
	_exit(0);
}

static volatile sig_atomic_t broken_fd = -1;

static void take_break(int signal, siginfo_t *info, void *context) {
	(void)signal, (void)context;
	broken_fd = info->si_fd;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	main_pid = getpid();
	int posix = make(posix_path, "posix", O_RDWR), other = MUST(open(posix_path, O_RDONLY));
	int again = MUST(open(posix_path, O_RDWR)), copy = MUST(dup(posix));
	int ofd = make(ofd_path, "ofd", O_RDWR);
	close(make(alone_path, "alone", O_RDWR));
	int shared = make(shared_path, "shared", O_RDWR);
	EQUAL(mkdir(pod_path(dir_path, "dir"), 0777), 0);
	int dir = MUST(open(dir_path, O_RDONLY | O_DIRECTORY));
	int lease = make(lease_path, "lease", O_RDONLY), read_lease = make(read_lease_path, "read-lease", O_RDONLY);
	lock(posix, F_WRLCK, 0, 10);
	lock(other, F_RDLCK, 20, 10);
	lock(copy, F_RDLCK, 40, 10);
	lock(again, F_WRLCK, 60, 5);
	lock_open_file(ofd, F_WRLCK, 0, 100);
	EQUAL(flock(shared, LOCK_SH), 0);
	EQUAL(flock(dir, LOCK_EX), 0);

	pid_t holder = MUST(fork());
	if (holder == 0) hold(ofd);
	holder_pid = holder;
	pod_await("held");
	pid_t watcher = MUST(fork());
	if (watcher == 0) {
		syscall(SYS_close_range, 3, ~0U, 0);
		watch();
	}
	pid_t waiter = MUST(fork());
	if (waiter == 0) {
		syscall(SYS_close_range, 3, ~0U, 0);
		wait_for_lock();
	}
	pod_await("waits");
	/* A lease wants nobody else to have the file open. */
	struct sigaction action = { .sa_sigaction = take_break, .sa_flags = SA_SIGINFO | SA_RESTART };
	EQUAL(sigaction(SIGRTMIN + 1, &action, NULL), 0);
	EQUAL(fcntl(lease, F_SETLEASE, F_WRLCK), 0);
	EQUAL(fcntl(lease, F_SETSIG, SIGRTMIN + 1), 0);
	EQUAL(fcntl(read_lease, F_SETLEASE, F_RDLCK), 0);
	pod_ready();

	if (pod_break("unlocked")) lock(posix, F_UNLCK, 0, 1);
	if (pod_break("closed")) close(other);
	if (pod_break("flock")) flock(shared, LOCK_UN);
	if (pod_break("dir")) flock(dir, LOCK_UN);
	if (pod_break("lease")) fcntl(lease, F_SETLEASE, F_UNLCK);
	if (pod_break("signal")) fcntl(lease, F_SETSIG, 0), signal(SIGIO, SIG_IGN);
	while (pod_turn()) {
		EQUAL(fcntl(lease, F_GETLEASE), F_WRLCK);
		EQUAL(fcntl(read_lease, F_GETLEASE), F_RDLCK);
		EQUAL(broken_fd, -1);
	}
	pod_reap(watcher);
	EQUAL(fcntl(lease, F_GETLEASE), F_WRLCK);
	EQUAL(fcntl(read_lease, F_GETLEASE), F_RDLCK);
	FAILS(open(lease_path, O_RDONLY | O_NONBLOCK), EWOULDBLOCK);
	pod_takes_signals = true;
	EVENTUALLY(broken_fd == lease);
	pod_mark("over");
	lock(posix, F_UNLCK, 0, 10);
	pod_reap(waiter);
	pod_reap(holder);
	EQUAL(flock(shared, LOCK_EX | LOCK_NB), 0);
	pod_pass();
}
