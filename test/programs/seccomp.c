/*
 * seccomp(2): filters of a process and of one thread, their order, with and without no_new_privs, one that allows next
 * to nothing, strict mode. What they forbid is tried.
 * As: root
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/socket.h>
#include "pod-test.h"

#define DENY(error) (SECCOMP_RET_ERRNO | (error))

static _Atomic bool armed, apart_ready, leave;
static int ends[4][2];

static long install(const struct sock_filter *code, unsigned short length, unsigned flags) {
	struct sock_fprog program = { .len = length, .filter = (struct sock_filter *)code };
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

/** One call fails. */
static void deny(unsigned number, unsigned error, unsigned flags) {
	const struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, DENY(error)),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	EQUAL(install(code, COUNT(code), flags), 0);
}

/** Any call but these three is death. */
static void allow_nothing(void) {
	const struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_read, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	EQUAL(install(code, COUNT(code), 0), 0);
}

static int status(const char *name) {
	char text[64];
	return atoi(pod_field("/proc/thread-self/status", name, text, sizeof text));
}

/** At no moment is what is forbidden let through, when the session is just being stopped neither. */
static void *insist(void *argument) {
	(void)argument;
	while (!armed) pod_sleep(1);
	while (!leave) FAILS(syscall(SYS_getppid), EXDEV);
	FAILS(syscall(SYS_getppid), EXDEV);
	FAILS(syscall(SYS_getsid, 0), EDOM);
	return NULL;
}

/** All threads have one filter, so a later one can be given to all of them at once. */
static void run_synchronized(void) {
	pthread_t thread;
	EQUAL(pthread_create(&thread, NULL, insist, NULL), 0);
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	deny(SYS_getppid, EXDEV, SECCOMP_FILTER_FLAG_TSYNC);
	armed = true;
	EQUAL(write(ends[0][1], "r", 1), 1);
	while (pod_child_turn()) FAILS(syscall(SYS_getppid), EXDEV);
	deny(SYS_getsid, EDOM, SECCOMP_FILTER_FLAG_TSYNC);
	leave = true;
	EQUAL(pthread_join(thread, NULL), 0);
	_exit(0);
}

/** Waits for a byte, answers, ends; by calls that are still allowed. */
__attribute__((noreturn)) static void serve(int which, long end) {
	char byte;
	if (read(ends[which][1], &byte, 1) == 1 && write(ends[which][1], "y", 1) == 1) syscall(end, 0);
	syscall(end, 1);
	__builtin_trap();
}

static pid_t spawn(int which, void (*prepare)(void), long end) {
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends[which]));
	pid_t child = MUST(fork());
	if (child == 0) {
		if (prepare) prepare();
		serve(which, end);
	}
	return child;
}

static void be_strict(void) {
	MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
}

/** The same filter, but put in place by root's right, without no_new_privs. */
static void filter_as_root(void) {
	deny(SYS_getppid, EUCLEAN, 0);
}

static void check_common(int filters) {
	EQUAL(status("Seccomp"), 2);
	EQUAL(status("Seccomp_filters"), filters);
	FAILS(syscall(SYS_getppid), EXDEV);
	/* Two filters forbid it: the errno is that of the later one. */
	FAILS(syscall(SYS_getpgrp), EBADE);
}

static void *run_apart(void *argument) {
	(void)argument;
	deny(SYS_getsid, ENOTUNIQ, SECCOMP_FILTER_FLAG_LOG);
	apart_ready = true;
	while (!leave) {
		check_common(4);
		FAILS(syscall(SYS_getsid, 0), ENOTUNIQ);
		pod_sleep(5);
	}
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends[0]));
	pid_t synchronized = MUST(fork());
	if (synchronized == 0) run_synchronized();
	char byte;
	EQUAL(read(ends[0][0], &byte, 1), 1);
	pid_t strict = spawn(1, pod_break("strict") ? NULL : be_strict, SYS_exit);
	pid_t narrow = spawn(2, allow_nothing, SYS_exit_group);
	pid_t as_root = spawn(3, filter_as_root, SYS_exit_group);
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	if (!pod_break("filter")) deny(SYS_getppid, EXDEV, 0);
	deny(SYS_getpgrp, pod_break("order") ? EBADE : EBADR, 0);
	deny(SYS_getpgrp, pod_break("order") ? EBADR : EBADE, 0);
	pthread_t apart;
	EQUAL(pthread_create(&apart, NULL, run_apart, NULL), 0);
	EVENTUALLY(apart_ready);
	pod_sleep(20);
	pod_ready();
	if (pod_break("more")) deny(SYS_getsid, EIO, 0);
	while (pod_turn()) {
		check_common(3);
		CHECK(syscall(SYS_getsid, 0) > 0);
	}
	check_common(3);
	leave = true;
	EQUAL(pthread_join(apart, NULL), 0);
	static const struct { const char *mode, *filters, *privileges; } expected[] = { { 0 }, { "1", "0", "0" }, { "2", "1", "1" }, { "2", "1", "0" } };
	const pid_t children[] = { 0, strict, narrow, as_root };
	for (int i = 1; i <= 3; i++) {
		char path[64], text[64];
		snprintf(path, sizeof path, "/proc/%d/status", children[i]);
		CHECKF(strcmp(pod_field(path, "Seccomp", text, sizeof text), expected[i].mode) == 0, "child %d has mode %s", i, text);
		CHECKF(strcmp(pod_field(path, "Seccomp_filters", text, sizeof text), expected[i].filters) == 0, "child %d has %s filters", i, text);
		CHECKF(strcmp(pod_field(path, "NoNewPrivs", text, sizeof text), expected[i].privileges) == 0, "child %d has no_new_privs %s", i, text);
		EQUAL(write(ends[i][0], "x", 1), 1);
		EQUAL(read(ends[i][0], &byte, 1), 1);
		EQUAL(byte, 'y');
		pod_reap(children[i]);
	}
	pod_reap(synchronized);
	pod_pass();
}
