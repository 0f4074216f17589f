/*
 * The same with programs: posix_spawn and vfork (which hold the caller in the kernel until the child has become
 * another program) again and again, from two threads.
 */
#include <spawn.h>
#include "pod-test.h"

extern char **environ;
static _Atomic bool over;
static _Atomic uint64_t spawned, vforked;

static void *churn_spawn(void *argument) {
	(void)argument;
	while (!over) {
		pid_t child;
		char *const arguments[] = { "sh", "-c", "exit 17", NULL };
		EQUAL(posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, environ), 0);
		int status;
		EQUAL(waitpid(child, &status, 0), child);
		if (pod_break("status") && spawned == 20) status = 0;
		CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == 17, "the program ended with 0x%x", status);
		spawned++;
	}
	return NULL;
}

static void *churn_vfork(void *argument) {
	(void)argument;
	while (!over) {
		volatile int shared = 0;
		pid_t child = vfork();
		CHECK(child >= 0);
		if (child == 0) {
			shared = 1;
			/* The parent is held all that time. */
			struct timespec moment = { .tv_nsec = 3 * MILLISECOND };
			nanosleep(&moment, NULL);
			shared = 2;
			execl("/bin/true", "true", NULL);
			_exit(99);
		}
		EQUAL(shared, 2);
		int status;
		EQUAL(waitpid(child, &status, 0), child);
		CHECKF(status == 0, "the program ended with 0x%x", status);
		vforked++;
	}
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pthread_t threads[2];
	EQUAL(pthread_create(&threads[0], NULL, churn_spawn, NULL), 0);
	EQUAL(pthread_create(&threads[1], NULL, churn_vfork, NULL), 0);
	EVENTUALLY(spawned > 3 && vforked > 3);
	pod_ready();
	while (pod_turn()) continue;
	uint64_t before[] = { spawned, vforked };
	EVENTUALLY(spawned > before[0] + 25 && vforked > before[1] + 10);
	over = true;
	for (size_t i = 0; i < COUNT(threads); i++) EQUAL(pthread_join(threads[i], NULL), 0);
	pod_pass();
}
