/*
 * The calls of WebPod's table 1, timed on demand: reads `NAME COUNT` lines from a FIFO, does NAME so many times, and
 * writes the nanoseconds of processor time that took into another. overhead.ts has one of these outside and one in each kind of pod,
 * and asks them in turn.
 *
 *   overhead FIFO FIFO
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int ends[2];

static void need(int holds, const char *what) {
	if (holds) return;
	perror(what);
	exit(1);
}

static void do_getpid(void) { syscall(SYS_getpid); }

static void do_ioctl(void) {
	int waiting;
	need(ioctl(ends[0], FIONREAD, &waiting) == 0, "ioctl");
}

static void do_semaphore(void) {
	int id = semget(IPC_PRIVATE, 1, 0600);
	need(id >= 0, "semget");
	need(semctl(id, 0, IPC_RMID) == 0, "semctl");
}

static void spawn(int shell) {
	pid_t pid = fork();
	need(pid >= 0, "fork");
	if (pid == 0) {
		if (shell) execl("/bin/sh", "sh", "-c", "exit 0", (char *)0);
		_exit(shell);
	}
	int status;
	need(waitpid(pid, &status, 0) == pid && status == 0, "child");
}

static void do_fork(void) { spawn(0); }
static void do_shell(void) { spawn(1); }

static const struct {
	const char *name;
	void (*once)(void);
} tests[] = { { "getpid", do_getpid }, { "ioctl", do_ioctl }, { "semaphore", do_semaphore }, { "fork", do_fork }, { "shell", do_shell } };

/* Processor time, ours and our children's: what others do meanwhile is not in it. */
static long long used(void) {
	struct timespec own;
	struct rusage children;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
	getrusage(RUSAGE_CHILDREN, &children);
	return own.tv_sec * 1000000000ll + own.tv_nsec +
	       (children.ru_utime.tv_sec + children.ru_stime.tv_sec) * 1000000000ll +
	       (children.ru_utime.tv_usec + children.ru_stime.tv_usec) * 1000ll;
}

int main(int argc, char **argv) {
	need(argc == 3, "usage");
	need(pipe(ends) == 0, "pipe");
	FILE *in = fopen(argv[1], "r"), *out = fopen(argv[2], "w");
	need(in && out, "fifo");
	char name[32];
	long count;
	while (fscanf(in, "%31s %ld", name, &count) == 2) {
		void (*once)(void) = 0;
		for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
			if (strcmp(tests[i].name, name) == 0) once = tests[i].once;
		need(once != 0, name);
		long long from = used();
		for (long i = 0; i < count; i++) once();
		fprintf(out, "%lld\n", used() - from);
		fflush(out);
	}
	return 0;
}
