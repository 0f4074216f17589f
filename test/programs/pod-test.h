/*
 * What every self-checking program shares.
 *
 *   PROGRAM DIR [--break NAME]
 *
 * A program sets its kernel object up, calls pod_ready() (DIR/ready holds its pid), then turns: checks what can
 * be checked at any time and counts in DIR/beat. When DIR/go appears it checks everything, from inside, and
 * writes DIR/result: `ok`, or `fail: why`, and exits 0 or 1. `--break NAME` makes it damage its own object after
 * the set-up, so that a test can prove that the check sees it.
 *
 * The head comment of a program may hold lines that test/tools/programs.ts reads:
 *   Build: FLAGS   more compiler flags
 *   As: root       it cannot do its work as an ordinary user
 *   Via: pod       it only makes sense inside a pod
 *   Needs: FLAG    the processor must have it: a flag of /proc/cpuinfo
 *   Since: 5.11    so must the kernel: its version
 *   Restart: kmod  only the module restores it whole
 */
#ifndef POD_TEST_H
#define POD_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define MILLISECOND 1000000LL
#define SECOND 1000000000LL
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/** Most that a test may take between the set-up and the end; nothing a program waits for may take longer. */
#define POD_PATIENCE (60 * SECOND)

static char pod_dir[3072];
static const char *pod_damage = "";
/** The program takes signals while it turns: its sleep may be cut short. */
static bool pod_takes_signals;

typedef char pod_path_t[4096];

static inline const char *pod_path(pod_path_t out, const char *name) {
	snprintf(out, sizeof(pod_path_t), "%s/%s", pod_dir, name);
	return out;
}

static inline bool pod_has(const char *name) {
	pod_path_t path;
	return access(pod_path(path, name), F_OK) == 0;
}

/** Whole or not at all: a reader never sees half of it. */
static inline void pod_write_file(const char *name, const char *text) {
	pod_path_t temporary, path;
	snprintf(temporary, sizeof temporary, "%s/.%s.%ld", pod_dir, name, syscall(SYS_gettid));
	int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || close(fd) != 0 ||
	    rename(temporary, pod_path(path, name)) != 0) {
		dprintf(2, "cannot write %s: %s\n", temporary, strerror(errno));
		_exit(3);
	}
}

__attribute__((format(printf, 3, 4), noreturn)) static inline void pod_fail(const char *file, int line,
                                                                            const char *format, ...) {
	int error = errno;
	char why[1024], text[1400];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(why, sizeof why, format, arguments);
	va_end(arguments);
	const char *base = strrchr(file, '/');
	snprintf(text, sizeof text, "fail: %s:%d: %s (pid %d tid %ld, errno %s)\n", base ? base + 1 : file, line, why,
	         getpid(), syscall(SYS_gettid), strerrorname_np(error) ? strerrorname_np(error) : "?");
	/* The first failure is the cause; what fails later may only follow from it. */
	if (!pod_has("result")) pod_write_file("result", text);
	dprintf(2, "%s", text);
	_exit(1);
}

#define FAIL(...) pod_fail(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition)                              \
	do {                                              \
		if (!(condition)) FAIL("not so: %s", #condition); \
	} while (0)
#define CHECKF(condition, ...)           \
	do {                                 \
		if (!(condition)) FAIL(__VA_ARGS__); \
	} while (0)
#define EQUAL(actual, expected)                                                                              \
	do {                                                                                                     \
		long long actual_ = (long long)(actual), expected_ = (long long)(expected);                          \
		if (actual_ != expected_) FAIL("%s is %lld, should be %lld", #actual, actual_, expected_);           \
	} while (0)
/** The call fails, and with this errno. */
#define FAILS(call, error)                                                                                 \
	do {                                                                                                   \
		errno = 0;                                                                                         \
		long long result_ = (long long)(call);                                                             \
		if (result_ != -1 || errno != (error)) FAIL("%s gave %lld, should fail with %s", #call, result_, #error); \
	} while (0)
/** The text of an expression that gives -1 on failure, checked; its value. */
#define MUST(call)                                       \
	({                                                   \
		__typeof__(call) value_ = (call);                \
		if ((long long)value_ == -1) FAIL("%s failed", #call); \
		value_;                                          \
	})

static inline bool pod_break(const char *name) {
	return strcmp(pod_damage, name) == 0;
}

static inline int64_t pod_clock(clockid_t clock) {
	struct timespec now;
	clock_gettime(clock, &now);
	return now.tv_sec * SECOND + now.tv_nsec;
}

static inline int64_t pod_now(void) {
	return pod_clock(CLOCK_MONOTONIC);
}

static inline struct timespec pod_timespec(int64_t ns) {
	return (struct timespec){ .tv_sec = ns / SECOND, .tv_nsec = ns % SECOND };
}

static inline void pod_sleep(int milliseconds) {
	struct timespec rest = pod_timespec(milliseconds * MILLISECOND);
	while (nanosleep(&rest, &rest) != 0) CHECKF(errno == EINTR && pod_takes_signals, "nanosleep failed");
}

/** A sign for other processes of the program. */
static inline void pod_mark(const char *name) {
	pod_write_file(name, "");
}

static inline void pod_await(const char *name) {
	for (int64_t end = pod_now() + POD_PATIENCE; !pod_has(name); pod_sleep(2))
		CHECKF(pod_now() < end, "%s never came", name);
}

static inline void pod_begin(int argc, char **argv) {
	/* A closed reader is to be seen as EPIPE, not as death. */
	signal(SIGPIPE, SIG_IGN);
	if (argc >= 2 && strlen(argv[1]) < sizeof pod_dir) strcpy(pod_dir, argv[1]);
	if (argc == 4 && strcmp(argv[2], "--break") == 0) pod_damage = argv[3];
	if (!pod_dir[0] || (argc != 2 && argc != 4)) {
		dprintf(2, "usage: %s DIR [--break NAME]\n", argv[0]);
		_exit(2);
	}
	umask(0);
	/* What the caller forgot to close is not part of the test. */
	syscall(SYS_close_range, 3, ~0U, 0);
}

static inline void pod_ready(void) {
	char text[32];
	snprintf(text, sizeof text, "%d\n", getpid());
	pod_write_file("ready", text);
}

static inline void pod_beat(void) {
	static _Atomic unsigned long beats;
	char text[32];
	pod_path_t path;
	int fd = open(pod_path(path, "beat"), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	CHECK(fd >= 0);
	/* Fixed width: one write replaces the number whole. */
	int length = snprintf(text, sizeof text, "%020lu\n", ++beats);
	EQUAL(pwrite(fd, text, (size_t)length, 0), length);
	EQUAL(close(fd), 0);
}

static inline bool pod_go(void) {
	return pod_has("go");
}

/** One turn: beats, rests 10 ms; false once it is time for the last check. For the main task. */
static inline bool pod_turn(void) {
	pod_beat();
	pod_sleep(10);
	return !pod_go();
}

/** The same for other processes of the program, which do not beat. */
static inline bool pod_child_turn(void) {
	pod_sleep(10);
	return !pod_go();
}

__attribute__((noreturn)) static inline void pod_pass(void) {
	if (pod_has("result")) _exit(1);
	pod_write_file("result", "ok\n");
	_exit(0);
}

/** Wait for one child and its status 0. */
static inline void pod_reap(pid_t child) {
	int status;
	pid_t got;
	while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR && pod_takes_signals) continue;
	CHECKF(got == child, "waitpid(%d) gave %d", child, got);
	CHECKF(status == 0, "child %d ended with status 0x%x", child, status);
}

/** Poll a condition for as long as a test may take. */
#define EVENTUALLY(condition)                                                        \
	do {                                                                             \
		int64_t end_ = pod_now() + POD_PATIENCE;                                     \
		while (!(condition)) {                                                       \
			CHECKF(pod_now() < end_, "never came true: %s", #condition);             \
			pod_sleep(2);                                                            \
		}                                                                            \
	} while (0)

static inline uint64_t pod_mix(uint64_t seed) {
	seed += 0x9e3779b97f4a7c15;
	seed = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9;
	seed = (seed ^ (seed >> 27)) * 0x94d049bb133111eb;
	return seed ^ (seed >> 31);
}

/** Fill memory with a pattern in which every byte depends on its place. Any size, any alignment. */
static inline void pod_fill(void *memory, size_t size, uint64_t seed) {
	unsigned char *bytes = memory;
	for (size_t at = 0; at < size; at += 8) {
		uint64_t word = pod_mix(seed + at);
		memcpy(bytes + at, &word, size - at < 8 ? size - at : 8);
	}
}

/** Offset of the first wrong byte (in steps of 8), or -1. */
static inline ssize_t pod_differs(const void *memory, size_t size, uint64_t seed) {
	const unsigned char *bytes = memory;
	for (size_t at = 0; at < size; at += 8) {
		uint64_t word = pod_mix(seed + at);
		if (memcmp(bytes + at, &word, size - at < 8 ? size - at : 8) != 0) return (ssize_t)at;
	}
	return -1;
}

#define CHECK_PATTERN(memory, size, seed)                                                              \
	do {                                                                                               \
		ssize_t at_ = pod_differs(memory, size, seed);                                                 \
		if (at_ >= 0) FAIL("%s: wrong byte at offset 0x%zx of 0x%zx", #memory, (size_t)at_, (size_t)(size)); \
	} while (0)

/** A whole small file as text; the number of bytes. */
static inline size_t pod_read_text(const char *path, char *text, size_t size) {
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECKF(fd >= 0, "cannot open %s", path);
	size_t filled = 0;
	for (ssize_t got; (got = read(fd, text + filled, size - 1 - filled)) > 0;) filled += (size_t)got;
	close(fd);
	text[filled] = 0;
	return filled;
}

/** A line of a `Name:\tvalue` file such as /proc/self/status; "" when it is not there. */
static inline const char *pod_field(const char *path, const char *name, char *out, size_t size) {
	static _Thread_local char text[16384];
	pod_read_text(path, text, sizeof text);
	out[0] = 0;
	for (char *line = text; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
		size_t length = strlen(name);
		if (strncmp(line, name, length) != 0 || line[length] != ':') continue;
		char *value = line + length + 1 + strspn(line + length + 1, " \t");
		snprintf(out, size, "%.*s", (int)strcspn(value, "\n"), value);
		break;
	}
	return out;
}

/** The line of /proc/self/smaps' or maps' header for the area around an address, e.g. "rw-p"; "" for a hole. */
static inline const char *pod_area_permissions(const void *address, char out[5]) {
	FILE *maps = fopen("/proc/self/maps", "re");
	CHECK(maps != NULL);
	char line[8192];
	out[0] = 0;
	while (fgets(line, sizeof line, maps)) {
		unsigned long start, end;
		char permissions[8];
		if (sscanf(line, "%lx-%lx %7s", &start, &end, permissions) != 3) continue;
		if ((unsigned long)address >= start && (unsigned long)address < end) {
			memcpy(out, permissions, 4);
			out[4] = 0;
		}
	}
	fclose(maps);
	return out;
}

/** Whether /proc/self/smaps shows a two-letter flag in VmFlags of the area around an address. */
static inline bool pod_area_flag(const void *address, const char *flag) {
	FILE *maps = fopen("/proc/self/smaps", "re");
	CHECK(maps != NULL);
	char line[8192];
	bool inside = false, found = false;
	while (fgets(line, sizeof line, maps)) {
		unsigned long start, end;
		char permissions[8];
		if (sscanf(line, "%lx-%lx %7s", &start, &end, permissions) == 3)
			inside = (unsigned long)address >= start && (unsigned long)address < end;
		else if (inside && strncmp(line, "VmFlags:", 8) == 0)
			for (char *word = strtok(line + 8, " \n"); word; word = strtok(NULL, " \n"))
				if (strcmp(word, flag) == 0) found = true;
	}
	fclose(maps);
	return found;
}

#endif
