/*
 * Many threads that do nothing but system calls, each with a checked result: identity, pipes, memory, files,
 * futexes, polls, signals, clocks. Whatever is done to a task from outside, a call must never give a wrong result,
 * be done twice, be left out, or come back with EINTR.
 */
#include <linux/futex.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include "pod-test.h"

#define COPIES 2

static _Atomic bool over;
static pid_t pid;
static _Atomic bool broken;

static void storm_identity(uint64_t round) {
	(void)round;
	EQUAL(syscall(SYS_getpid), pid);
	EQUAL(syscall(SYS_getppid), getppid());
	EQUAL(syscall(SYS_sched_yield), 0);
	FAILS(syscall(SYS_close, -1), EBADF);
	FAILS(syscall(SYS_read, 100000, NULL, 0), EBADF);
	FAILS(syscall(9999), ENOSYS);
	if (broken) EQUAL(syscall(SYS_getpid), 0);
}

static void storm_pipe(uint64_t round) {
	static _Thread_local int ends[2];
	static _Thread_local uint64_t written, taken;
	if (ends[1] == 0) EQUAL(pipe2(ends, O_CLOEXEC), 0);
	/* Counted: a call that is done twice or not at all shows in the order. */
	for (uint64_t i = 0; i < round % 5 + 1; i++) {
		uint64_t value = written++;
		EQUAL(write(ends[1], &value, 8), 8);
	}
	for (uint64_t i = 0; i < round % 5 + 1; i++) {
		uint64_t value;
		EQUAL(read(ends[0], &value, 8), 8);
		EQUAL(value, taken++);
	}
}

static void storm_memory(uint64_t round) {
	size_t size = (round % 7 + 1) * PAGE;
	unsigned char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	EQUAL(memory[size - 1], 0);
	pod_fill(memory, size, round);
	EQUAL(mprotect(memory, PAGE, PROT_READ), 0);
	CHECK_PATTERN(memory, size, round);
	unsigned char *moved = mremap(memory, size, size + PAGE, MREMAP_MAYMOVE);
	/* The first page has become an area of its own. */
	if (size > PAGE) {
		CHECK(moved == MAP_FAILED);
		moved = memory;
	} else {
		CHECK(moved != MAP_FAILED);
		size += PAGE;
	}
	EQUAL(munmap(moved, size), 0);
}

static void storm_file(uint64_t round) {
	static _Thread_local int fd;
	static _Thread_local off_t size;
	if (fd == 0) {
		char name[32];
		pod_path_t path;
		snprintf(name, sizeof name, "storm-%ld", syscall(SYS_gettid));
		fd = MUST(open(pod_path(path, name), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
	}
	uint64_t value = round, found;
	/* Moves the offset: done twice it would be seen. */
	EQUAL(write(fd, &value, 8), 8);
	size += 8;
	EQUAL(lseek(fd, 0, SEEK_CUR), size);
	EQUAL(pread(fd, &found, 8, size - 8), 8);
	EQUAL(found, value);
	struct stat status;
	EQUAL(fstat(fd, &status), 0);
	EQUAL(status.st_size, size);
	if (size >= 8000) {
		EQUAL(ftruncate(fd, 0), 0);
		EQUAL(lseek(fd, 0, SEEK_SET), 0);
		size = 0;
	}
	int other = MUST(dup(fd));
	CHECK(other != fd);
	EQUAL(close(other), 0);
}

static _Atomic uint32_t turns[2];

/* Two threads that wake each other: each turn is taken exactly once. */
static void storm_futex(size_t side) {
	uint32_t before = turns[side];
	turns[side] = before + 1;
	long woken = syscall(SYS_futex, &turns[side], FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
	CHECK(woken == 0 || woken == 1);
	for (;;) {
		uint32_t other = turns[1 - side];
		if ((int32_t)(other - before) > 0) break;
		/* With a limit, so that the end of the other side is no trouble. */
		struct timespec limit = pod_timespec(SECOND);
		long result = syscall(SYS_futex, &turns[1 - side], FUTEX_WAIT | FUTEX_PRIVATE_FLAG, other, &limit);
		CHECKF(result == 0 || errno == EAGAIN || errno == ETIMEDOUT, "futex gave %ld", result);
		if (over) return;
	}
	CHECKF((int32_t)(turns[1 - side] - before) <= 2, "a turn was taken twice");
}

static void storm_futex_left(uint64_t round) {
	(void)round;
	storm_futex(0);
}

static void storm_futex_right(uint64_t round) {
	(void)round;
	storm_futex(1);
}

static void storm_sleep(uint64_t round) {
	int64_t start = pod_now(), length = (int64_t)(round % 4 + 1) * MILLISECOND;
	struct timespec time = pod_timespec(length);
	EQUAL(nanosleep(&time, NULL), 0);
	CHECKF(pod_now() - start >= length, "a sleep was too short");
	struct pollfd entry = { .fd = 0, .events = 0 };
	start = pod_now();
	EQUAL(poll(&entry, 0, 2), 0);
	CHECKF(pod_now() - start >= 2 * MILLISECOND, "a poll was too short");
}

static _Thread_local volatile int handled;

static void handle(int signal) {
	(void)signal;
	handled++;
}

static void storm_signal(uint64_t round) {
	static _Thread_local int expected;
	pid_t tid = (pid_t)syscall(SYS_gettid);
	EQUAL(syscall(SYS_tgkill, pid, tid, SIGUSR1), 0);
	EQUAL(handled, ++expected);
	uint64_t block = 1UL << (SIGUSR2 - 1), none = 0, pending = 0;
	EQUAL(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &block, NULL, 8), 0);
	siginfo_t info = { .si_code = SI_QUEUE };
	info.si_value.sival_ptr = (void *)round;
	EQUAL(syscall(SYS_rt_tgsigqueueinfo, pid, tid, SIGUSR2, &info), 0);
	EQUAL(syscall(SYS_rt_sigpending, &pending, 8), 0);
	EQUAL(pending, block);
	memset(&info, 0, sizeof info);
	EQUAL(syscall(SYS_rt_sigtimedwait, &block, &info, NULL, 8), SIGUSR2);
	EQUAL((uint64_t)info.si_value.sival_ptr, round);
	EQUAL(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, &pending, 8), 0);
	EQUAL(pending, block);
}

static void storm_socket(uint64_t round) {
	int pair[2];
	EQUAL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	uint64_t a = round, b = ~round, c = 0, d = 0;
	struct iovec out[] = { { &a, 8 }, { &b, 8 } }, in[] = { { &d, 8 }, { &c, 8 } };
	EQUAL(writev(pair[0], out, 2), 16);
	EQUAL(readv(pair[1], in, 2), 16);
	CHECK(d == a && c == b);
	EQUAL(shutdown(pair[0], SHUT_WR), 0);
	EQUAL(read(pair[1], &c, 8), 0);
	EQUAL(close(pair[0]), 0);
	EQUAL(close(pair[1]), 0);
}

/* Reads what the other side writes, blocked in between. */
static int stream[2];

static void storm_stream_out(uint64_t round) {
	EQUAL(write(stream[1], &round, 8), 8);
	if (round % 64 == 0) pod_sleep(1);
}

static _Atomic bool stream_over;

static void storm_stream_in(uint64_t round) {
	uint64_t value;
	ssize_t got = read(stream[0], &value, 8);
	if (got == 0 && over) {
		stream_over = true;
		return;
	}
	EQUAL(got, 8);
	EQUAL(value, round);
}

static struct {
	const char *what;
	void (*body)(uint64_t round);
	size_t copies;
} storms[] = {
	{ "identity", storm_identity, COPIES },
	{ "pipe", storm_pipe, COPIES },
	{ "memory", storm_memory, COPIES },
	{ "file", storm_file, COPIES },
	{ "futex, left", storm_futex_left, 1 },
	{ "futex, right", storm_futex_right, 1 },
	{ "sleep", storm_sleep, COPIES },
	{ "signal", storm_signal, COPIES },
	{ "socket", storm_socket, COPIES },
	{ "stream in", storm_stream_in, 1 },
	{ "stream out", storm_stream_out, 1 },
};

static _Atomic uint64_t rounds[COUNT(storms)];
static void *run(void *argument) {
	size_t i = (size_t)argument;
	/* The reader of the stream ends when its writer has, which may be blocked until then. */
	_Atomic bool *end = storms[i].body == storm_stream_in ? &stream_over : &over;
	for (uint64_t round = 0; !*end; round++) {
		storms[i].body(round);
		rounds[i]++;
	}
	if (storms[i].body == storm_stream_out) EQUAL(close(stream[1]), 0);
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pid = getpid();
	struct sigaction action = { .sa_handler = handle, .sa_flags = SA_RESTART };
	EQUAL(sigaction(SIGUSR1, &action, NULL), 0);
	EQUAL(pipe2(stream, O_CLOEXEC), 0);
	pthread_t threads[COUNT(storms) * COPIES];
	size_t count = 0;
	for (size_t i = 0; i < COUNT(storms); i++)
		for (size_t copy = 0; copy < storms[i].copies; copy++)
			EQUAL(pthread_create(&threads[count++], NULL, run, (void *)i), 0);
	for (size_t i = 0; i < COUNT(storms); i++) EVENTUALLY(rounds[i] > 10);
	pod_ready();
	broken = pod_break("wrong-result");
	if (pod_break("stream")) EQUAL(write(stream[1], "oddbytes", 8), 8);
	if (pod_break("standstill")) {
		/* One thread that no longer does anything. */
		static uint64_t nothing = 1;
		EQUAL(read(stream[0], &nothing, 8), 8);
	}
	while (pod_turn()) continue;
	for (size_t i = 0; i < COUNT(storms); i++) {
		uint64_t before = rounds[i];
		int64_t end = pod_now() + 20 * SECOND;
		while (rounds[i] < before + 10) {
			CHECKF(pod_now() < end, "'%s' stands still", storms[i].what);
			pod_sleep(2);
		}
	}
	over = true;
	for (size_t i = 0; i < count; i++) EQUAL(pthread_join(threads[i], NULL), 0);
	pod_pass();
}
