/*
 * Pending signals: blocked, sent to the process and to threads, standard ones (which merge) and queues of real-time
 * ones, each with its siginfo: who sent it, how, and with what value. All must come out again, in order, once.
 */
#include "pod-test.h"

#define QUEUE 100

static uint64_t everything;
static _Atomic bool over;
static _Atomic pid_t thread_tids[2];

static void check_pending(const char *path, const char *field, uint64_t expected) {
	char text[64];
	uint64_t found = strtoull(pod_field(path, field, text, sizeof text), NULL, 16);
	CHECKF(found == expected, "%s of %s is %lx, should be %lx", field, path, found, expected);
}

/* The next pending one of these signals; fails when there is none. */
static siginfo_t take(uint64_t set) {
	siginfo_t info;
	memset(&info, 0, sizeof info);
	struct timespec none = { 0 };
	long signal = syscall(SYS_rt_sigtimedwait, &set, &info, &none, 8);
	CHECKF(signal > 0, "no signal of %lx is pending", set);
	EQUAL(info.si_signo, signal);
	return info;
}

static void take_none(uint64_t set) {
	struct timespec none = { 0 };
	siginfo_t info;
	errno = 0;
	long signal = syscall(SYS_rt_sigtimedwait, &set, &info, &none, 8);
	CHECKF(signal == -1 && errno == EAGAIN, "signal %ld is pending, which nobody sent", signal);
}

#define BIT(signal) (1UL << ((signal)-1))

static void queue_raw(pid_t tid, int signal, int code, long value) {
	siginfo_t info;
	memset(&info, 0, sizeof info);
	info.si_code = code;
	info.si_pid = 4242;
	info.si_uid = 17;
	info.si_value.sival_ptr = (void *)value;
	EQUAL(syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, signal, &info), 0);
}

static void *run(void *argument) {
	size_t index = (size_t)argument;
	pid_t tid = (pid_t)syscall(SYS_gettid);
	char path[64];
	snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
	/* glibc leaves its own two signals out. */
	EQUAL(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &everything, NULL, 8), 0);
	uint64_t expected;
	if (index == 0) {
		for (long i = 0; i < 5; i++) queue_raw(tid, 50, SI_QUEUE, i * 1000);
		queue_raw(tid, 51, SI_MESGQ, -1);
		queue_raw(tid, SIGTERM, -77, 0x123456789abc);
		expected = BIT(50) | BIT(51) | BIT(SIGTERM);
	} else {
		EQUAL(syscall(SYS_tgkill, getpid(), tid, SIGUSR2), 0);
		EQUAL(syscall(SYS_tgkill, getpid(), tid, SIGUSR2), 0);
		EQUAL(syscall(SYS_tgkill, getpid(), tid, 52), 0);
		EQUAL(syscall(SYS_tgkill, getpid(), tid, 52), 0);
		expected = BIT(SIGUSR2) | BIT(52);
	}
	thread_tids[index] = tid;
	while (!over) {
		check_pending(path, "SigPnd", expected);
		check_pending(path, "SigBlk", everything);
		pod_sleep(10);
	}
	if (index == 0) {
		siginfo_t info = take(BIT(SIGTERM));
		EQUAL(info.si_code, -77);
		EQUAL((long)info.si_value.sival_ptr, 0x123456789abc);
		EQUAL(info.si_pid, 4242);
		EQUAL(info.si_uid, 17);
		for (long i = 0; i < 5; i++) {
			info = take(BIT(50));
			EQUAL(info.si_code, SI_QUEUE);
			EQUAL((long)info.si_value.sival_ptr, i * 1000);
		}
		info = take(BIT(51));
		EQUAL(info.si_code, SI_MESGQ);
		EQUAL((long)info.si_value.sival_ptr, -1);
		take_none(expected);
	} else {
		siginfo_t info = take(BIT(SIGUSR2));
		EQUAL(info.si_code, SI_TKILL);
		EQUAL(info.si_pid, getpid());
		EQUAL(info.si_uid, getuid());
		take_none(BIT(SIGUSR2));
		for (int i = 0; i < 2; i++) EQUAL(take(BIT(52)).si_code, SI_TKILL);
		take_none(expected);
	}
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	everything = ~0UL & ~BIT(SIGKILL) & ~BIT(SIGSTOP);
	EQUAL(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &everything, NULL, 8), 0);
	pthread_t threads[2];
	for (size_t i = 0; i < 2; i++) EQUAL(pthread_create(&threads[i], NULL, run, (void *)i), 0);
	EVENTUALLY(thread_tids[0] && thread_tids[1]);

	/* SIGCHLD with its cause; the child is gone. */
	pid_t child = MUST(fork());
	if (child == 0) _exit(23);
	siginfo_t waited;
	EQUAL(waitid(P_PID, (id_t)child, &waited, WEXITED), 0);
	EQUAL(kill(getpid(), SIGUSR1), 0);
	EQUAL(kill(getpid(), SIGUSR1), 0);
	EQUAL(kill(getpid(), SIGHUP), 0);
	for (int i = 0; i < QUEUE; i++) {
		union sigval value = { .sival_int = i * i };
		EQUAL(sigqueue(getpid(), 40, value), 0);
		if (i % 10 == 0) EQUAL(sigqueue(getpid(), 41, value), 0);
	}
	EQUAL(kill(getpid(), 64), 0);
	EQUAL(kill(getpid(), 64), 0);
	union sigval pointer = { .sival_ptr = (void *)0xfedcba9876543210 };
	EQUAL(sigqueue(getpid(), SIGTRAP, pointer), 0);
	/* A stop signal would take it away. */
	EQUAL(sigqueue(getpid(), SIGCONT, (union sigval){ .sival_int = 99 }), 0);
	const uint64_t expected =
	    BIT(SIGCHLD) | BIT(SIGUSR1) | BIT(SIGHUP) | BIT(40) | BIT(41) | BIT(64) | BIT(SIGTRAP) | BIT(SIGCONT);
	/* To the main thread itself. */
	queue_raw(getpid(), 45, SI_QUEUE, 7);
	pod_ready();

	if (pod_break("lost")) take(BIT(40));
	if (pod_break("lost-thread")) take(BIT(45));
	if (pod_break("more")) kill(getpid(), 64);
	if (pod_break("order")) {
		siginfo_t info = take(BIT(40));
		EQUAL(syscall(SYS_rt_sigqueueinfo, getpid(), 40, &info), 0);
	}
	if (pod_break("info")) {
		take(BIT(SIGTRAP));
		kill(getpid(), SIGTRAP);
	}
	if (pod_break("child-info")) {
		siginfo_t info = take(BIT(SIGCHLD));
		info.si_code = SI_QUEUE;
		EQUAL(syscall(SYS_rt_sigqueueinfo, getpid(), SIGCHLD, &info), 0);
	}
	if (pod_break("turned-shared")) {
		siginfo_t info = take(BIT(45));
		EQUAL(syscall(SYS_rt_sigqueueinfo, getpid(), 45, &info), 0);
	}

	while (pod_turn()) {
		check_pending("/proc/self/status", "ShdPnd", expected);
		check_pending("/proc/thread-self/status", "SigPnd", BIT(45));
	}
	check_pending("/proc/self/status", "ShdPnd", expected);
	check_pending("/proc/thread-self/status", "SigPnd", BIT(45));
	over = true;
	for (size_t i = 0; i < 2; i++) EQUAL(pthread_join(threads[i], NULL), 0);

	siginfo_t info = take(BIT(45));
	EQUAL(info.si_code, SI_QUEUE);
	EQUAL((long)info.si_value.sival_ptr, 7);
	info = take(BIT(SIGCHLD));
	EQUAL(info.si_code, CLD_EXITED);
	EQUAL(info.si_pid, child);
	EQUAL(info.si_uid, getuid());
	EQUAL(info.si_status, 23);
	info = take(BIT(SIGUSR1));
	EQUAL(info.si_code, SI_USER);
	EQUAL(info.si_pid, getpid());
	EQUAL(info.si_uid, getuid());
	EQUAL(take(BIT(SIGHUP)).si_code, SI_USER);
	info = take(BIT(SIGTRAP));
	EQUAL(info.si_code, SI_QUEUE);
	EQUAL((long)info.si_value.sival_ptr, (long)0xfedcba9876543210);
	EQUAL(take(BIT(SIGCONT)).si_value.sival_int, 99);
	for (int i = 0; i < QUEUE; i++) {
		info = take(BIT(40));
		EQUAL(info.si_code, SI_QUEUE);
		EQUAL(info.si_value.sival_int, i * i);
		EQUAL(info.si_pid, getpid());
	}
	for (int i = 0; i < QUEUE; i += 10) EQUAL(take(BIT(41)).si_value.sival_int, i * i);
	for (int i = 0; i < 2; i++) EQUAL(take(BIT(64)).si_code, SI_USER);
	take_none(everything);
	pod_pass();
}
