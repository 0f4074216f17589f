/*
 * A program that never looks the same twice: threads and child processes come and go all the time, each checks
 * something, and each must be joined or waited for with the right result.
 */
#include <spawn.h>
#include "pod-test.h"

static _Atomic bool over;
static _Atomic uint64_t threads_made, children_made, trees_made;

static void *answer(void *argument) {
	uint64_t value = (uint64_t)argument;
	if (value % 7 == 0) pod_sleep(1);
	return (void *)pod_mix(value);
}

static void *churn_threads(void *argument) {
	for (uint64_t round = (uint64_t)argument << 32; !over; round += 4) {
		pthread_t threads[4];
		for (uint64_t i = 0; i < 4; i++) EQUAL(pthread_create(&threads[i], NULL, answer, (void *)(round + i)), 0);
		for (uint64_t i = 0; i < 4; i++) {
			void *result;
			EQUAL(pthread_join(threads[i], &result), 0);
			if (pod_break("thread") && threads_made == 500) result = NULL;
			CHECKF((uint64_t)result == pod_mix(round + i), "a thread gave the wrong answer");
			threads_made++;
		}
		pod_sleep(1);
	}
	return NULL;
}

static void *churn_children(void *argument) {
	for (uint64_t round = (uint64_t)argument; !over; round++) {
		int ends[2];
		EQUAL(pipe2(ends, O_CLOEXEC), 0);
		pid_t child = MUST(fork());
		if (child == 0) {
			uint64_t value = pod_mix(round);
			if (round % 5 == 0) pod_sleep(2);
			if (write(ends[1], &value, 8) != 8) _exit(99);
			_exit((int)(round % 90));
		}
		close(ends[1]);
		uint64_t value = 0;
		EQUAL(read(ends[0], &value, 8), 8);
		EQUAL(value, pod_mix(round));
		EQUAL(read(ends[0], &value, 8), 0);
		close(ends[0]);
		int status;
		EQUAL(waitpid(child, &status, 0), child);
		if (pod_break("child") && children_made == 50) status = 0x700;
		CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == (int)(round % 90), "child %lu ended with 0x%x", round, status);
		children_made++;
	}
	return NULL;
}

/* Three generations, ended by a signal from above. */
static void *churn_trees(void *argument) {
	(void)argument;
	while (!over) {
		pid_t child = MUST(fork());
		if (child == 0) {
			if (setpgid(0, 0) != 0) _exit(98);
			pid_t grandchild = fork();
			if (grandchild < 0) _exit(97);
			if (grandchild == 0)
				for (;;) pod_sleep(1000);
			pod_sleep(3);
			if (kill(grandchild, SIGTERM) != 0) _exit(96);
			int status;
			if (waitpid(grandchild, &status, 0) != grandchild || !WIFSIGNALED(status) || WTERMSIG(status) != SIGTERM)
				_exit(95);
			_exit(11);
		}
		int status;
		EQUAL(waitpid(child, &status, 0), child);
		CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == 11, "a tree ended with 0x%x", status);
		trees_made++;
	}
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pthread_t threads[4];
	EQUAL(pthread_create(&threads[0], NULL, churn_threads, (void *)1), 0);
	EQUAL(pthread_create(&threads[1], NULL, churn_threads, (void *)2), 0);
	EQUAL(pthread_create(&threads[2], NULL, churn_children, (void *)1), 0);
	EQUAL(pthread_create(&threads[3], NULL, churn_trees, NULL), 0);
	EVENTUALLY(threads_made > 100 && children_made > 10 && trees_made > 2);
	pod_ready();
	while (pod_turn()) continue;
	uint64_t before[] = { threads_made, children_made, trees_made };
	EVENTUALLY(threads_made > before[0] + 600 && children_made > before[1] + 60 && trees_made > before[2] + 3);
	over = true;
	for (size_t i = 0; i < COUNT(threads); i++) EQUAL(pthread_join(threads[i], NULL), 0);
	FAILS(waitpid(-1, NULL, 0), ECHILD);
	pod_pass();
}
