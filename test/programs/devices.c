/*
 * The memory devices null, zero, full, random and urandom, with flags and sharing, a private mapping of /dev/zero,
 * and, where there is one, the controlling terminal. Each still does what only it does.
 */
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include "pod-test.h"

static struct {
	const char *path;
	int flags, descriptor, fd;
	unsigned major, minor;
} devices[] = {
	{ "/dev/null", O_RDWR, 0, -1, 1, 3 },
	{ "/dev/null", O_WRONLY | O_APPEND, FD_CLOEXEC, -1, 1, 3 },
	{ "/dev/zero", O_RDWR, 0, -1, 1, 5 },
	{ "/dev/full", O_RDWR | O_NONBLOCK, 0, -1, 1, 7 },
	{ "/dev/random", O_RDONLY, FD_CLOEXEC, -1, 1, 8 },
	{ "/dev/urandom", O_RDONLY, 0, -1, 1, 9 },
	{ "/dev/tty", O_RDWR, 0, -1, 5, 0 },
};

#define TTY 6

static unsigned char *zero_map;

static void check(void) {
	for (size_t i = 0; i < COUNT(devices); i++) {
		if (devices[i].fd < 0) continue;
		struct stat status;
		CHECKF(fstat(devices[i].fd, &status) == 0 && S_ISCHR(status.st_mode), "%s is gone", devices[i].path);
		CHECKF(status.st_rdev == makedev(devices[i].major, devices[i].minor), "%s is device %u:%u", devices[i].path,
		       major(status.st_rdev), minor(status.st_rdev));
		EQUAL(fcntl(devices[i].fd, F_GETFD), devices[i].descriptor);
		EQUAL(fcntl(devices[i].fd, F_GETFL) & ~0100000, devices[i].flags);
	}
	CHECK_PATTERN(zero_map, PAGE, 5);
	for (size_t at = PAGE; at < 2 * PAGE; at++) EQUAL(zero_map[at], 0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	for (size_t i = 0; i < COUNT(devices); i++) {
		int cloexec = devices[i].descriptor ? O_CLOEXEC : 0;
		devices[i].fd = open(devices[i].path, devices[i].flags | cloexec | O_NOCTTY);
		/* Outside a pod a test may have no terminal. */
		CHECKF(devices[i].fd >= 0 || (i == TTY && errno == ENXIO), "cannot open %s", devices[i].path);
	}
	zero_map = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, devices[2].fd, 0);
	CHECK(zero_map != MAP_FAILED);
	pod_fill(zero_map, PAGE, 5);
	struct termios before, now;
	bool has_tty = devices[TTY].fd >= 0;
	if (has_tty) EQUAL(tcgetattr(devices[TTY].fd, &before), 0);
	pod_ready();
	if (pod_break("other-device")) dup2(devices[2].fd, devices[0].fd);
	if (pod_break("flags")) fcntl(devices[3].fd, F_SETFL, 0);
	if (pod_break("cloexec")) fcntl(devices[4].fd, F_SETFD, 0);
	if (pod_break("map")) zero_map[PAGE + 5] = 1;
	while (pod_turn()) check();
	check();
	char bytes[64];
	EQUAL(read(devices[0].fd, bytes, sizeof bytes), 0);
	EQUAL(write(devices[1].fd, bytes, sizeof bytes), sizeof bytes);
	FAILS(read(devices[1].fd, bytes, 1), EBADF);
	memset(bytes, 7, sizeof bytes);
	EQUAL(read(devices[2].fd, bytes, sizeof bytes), sizeof bytes);
	for (size_t i = 0; i < sizeof bytes; i++) EQUAL(bytes[i], 0);
	FAILS(write(devices[3].fd, bytes, 1), ENOSPC);
	for (int i = 4; i < 6; i++) {
		memset(bytes, 0, sizeof bytes);
		EQUAL(read(devices[i].fd, bytes, sizeof bytes), sizeof bytes);
		int different = 0;
		for (size_t at = 1; at < sizeof bytes; at++) different += bytes[at] != bytes[0];
		CHECKF(different > 0, "%s gives the same byte again and again", devices[i].path);
	}
	if (has_tty) {
		EQUAL(tcgetattr(devices[TTY].fd, &now), 0);
		CHECK(memcmp(&now, &before, offsetof(struct termios, c_cc)) == 0);
		pid_t session;
		EQUAL(ioctl(devices[TTY].fd, TIOCGSID, &session), 0);
		EQUAL(session, getsid(0));
	}
	pod_pass();
}
