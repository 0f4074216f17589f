/*
 * Threads that left what threads share: one with a descriptor table of its own and one made by it, one with a working
 * directory and umask of its own, one with both. The same numbers mean other files in each.
 */
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include "pod-test.h"

#define NUMBER 60
#define ONLY_LEADER 61

enum { APART, MADE_BY_APART, ELSEWHERE, ALONE, PLAIN, THREADS };

static int pipes[THREADS + 1][2];
static _Atomic int ready;
static _Atomic bool stop, blocked_over;
static pod_path_t folders[THREADS + 1];
static pthread_t threads[THREADS];

static void *run(void *argument);

static void start(long which) {
	EQUAL(pthread_create(&threads[which], NULL, run, (void *)which), 0);
}

/** This thread's NUMBER is the read end of its own pipe, which holds its own number. */
static void take_table(long which) {
	MUST(unshare(CLONE_FILES));
	MUST(dup2(pipes[which][0], NUMBER));
	MUST(close(ONLY_LEADER));
}

static void take_folder(long which) {
	MUST(unshare(CLONE_FS));
	MUST(chdir(folders[which]));
	umask(020 + (mode_t)which);
}

static long number_in(int fd) {
	int length;
	if (ioctl(fd, FIONREAD, &length) != 0) return -1;
	return length;
}

static mode_t mask_now(void) {
	char text[64], path[64];
	snprintf(path, sizeof path, "/proc/self/task/%ld/status", syscall(SYS_gettid));
	return (mode_t)strtol(pod_field(path, "Umask", text, sizeof text), NULL, 8);
}

/** What must hold in a thread at any time. `table`: whose pipe NUMBER is of. */
static void check(long table, long folder) {
	char here[4096];
	EQUAL(number_in(NUMBER), table + 1);
	if (table == THREADS) EQUAL(fcntl(ONLY_LEADER, F_GETFD), FD_CLOEXEC);
	else FAILS(fcntl(ONLY_LEADER, F_GETFD), EBADF);
	CHECK(getcwd(here, sizeof here) != NULL);
	CHECKF(strcmp(here, folders[folder]) == 0, "the working directory is %s, not %s", here, folders[folder]);
	EQUAL(mask_now(), 020 + folder);
}

static void *run(void *argument) {
	long which = (long)argument;
	long table = THREADS, folder = THREADS;
	if (which == APART || which == ALONE) take_table(table = which);
	if (which == ELSEWHERE || which == ALONE) take_folder(folder = which);
	if (which == APART) {
		start(MADE_BY_APART);
		EVENTUALLY(ready == 1);
	}
	if (which == MADE_BY_APART) table = APART;
	if (which == APART && pod_break("number")) dup2(pipes[THREADS][0], NUMBER);
	if (which == ELSEWHERE && pod_break("folder")) MUST(chdir("/"));
	if (which == ALONE && pod_break("umask")) umask(0);
	ready++;
	while (!stop) {
		check(table, folder);
		pod_sleep(5);
	}
	/* What one does with its table is seen by who shares it, and by nobody else. */
	if (which == MADE_BY_APART) {
		MUST(dup2(pipes[which][0], NUMBER));
		if (pod_break("sharing")) dup2(pipes[APART][0], NUMBER);
		pod_mark("changed");
	}
	if (which == APART) {
		pod_await("changed");
		EQUAL(number_in(NUMBER), MADE_BY_APART + 1);
	}
	if (which == ALONE) {
		pod_await("changed");
		EQUAL(number_in(NUMBER), ALONE + 1);
		MUST(chdir("/"));
	}
	return NULL;
}

/** Blocked on a descriptor that only its own table has under this number. */
static void *block(void *argument) {
	int ends[2];
	(void)argument;
	MUST(unshare(CLONE_FILES));
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	ready++;
	char byte;
	/* Its own other end is closed nowhere: this lasts until the program ends. */
	read(ends[0], &byte, 1);
	blocked_over = true;
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	for (long i = 0; i <= THREADS; i++) {
		char name[16], real[4096];
		snprintf(name, sizeof name, "folder%ld", i);
		MUST(mkdir(pod_path(folders[i], name), 0777));
		CHECK(realpath(folders[i], real) != NULL);
		strcpy(folders[i], real);
		MUST(pipe2(pipes[i], O_CLOEXEC));
		EQUAL(write(pipes[i][1], "1234567890", (size_t)i + 1), i + 1);
	}
	take_folder(THREADS);
	MUST(dup2(pipes[THREADS][0], NUMBER));
	MUST(fcntl(MUST(dup3(pipes[THREADS][0], ONLY_LEADER, O_CLOEXEC)), F_GETFD));
	start(APART);
	EVENTUALLY(ready == 2);
	for (long i = ELSEWHERE; i < THREADS; i++) {
		start(i);
		EVENTUALLY(ready == i + 1);
	}
	pthread_t blocked;
	EQUAL(pthread_create(&blocked, NULL, block, NULL), 0);
	EVENTUALLY(ready == THREADS + 1);
	pod_sleep(20);
	pod_ready();
	if (pod_break("leader")) MUST(close(ONLY_LEADER));
	while (pod_turn()) {
		check(THREADS, THREADS);
		CHECKF(!blocked_over, "a blocked read came back");
	}
	stop = true;
	for (long i = 0; i < THREADS; i++) EQUAL(pthread_join(threads[i], NULL), 0);
	check(THREADS, THREADS);
	CHECKF(!blocked_over, "a blocked read came back");
	pod_pass();
}
