/*
 * Stopped processes: one its parent knows of, one whose stop is still to be told, one stopped with threads. They
 * stay stopped, do nothing, and go on when told to.
 */
#include "pod-test.h"

#define CHILDREN 3

static pid_t children[CHILDREN];
/* Counts in files: shared memory is another program's business. */
static void count_in(const char *name, long value) {
	char text[32];
	snprintf(text, sizeof text, "%ld", value);
	pod_write_file(name, text);
}

static long counted(const char *name) {
	pod_path_t path;
	char text[32];
	pod_await(name);
	pod_read_text(pod_path(path, name), text, sizeof text);
	return atol(text);
}

static void *spin(void *argument) {
	for (long turn = 0;; turn++) {
		count_in(argument, turn);
		pod_sleep(5);
		if (pod_has("end")) return NULL;
	}
}

static void run_child(size_t index) {
	static char names[2][32];
	snprintf(names[0], 32, "child-%zu", index);
	snprintf(names[1], 32, "thread-%zu", index);
	pthread_t thread;
	if (index == 2) EQUAL(pthread_create(&thread, NULL, spin, names[1]), 0);
	spin(names[0]);
	if (index == 2) EQUAL(pthread_join(thread, NULL), 0);
	_exit((int)index + 50);
}

static char state_of(pid_t pid) {
	char path[64], state[64];
	snprintf(path, sizeof path, "/proc/%d/status", pid);
	return pod_field(path, "State", state, sizeof state)[0];
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	static const char *const counters[] = { "child-0", "child-1", "child-2", "thread-2" };
	static const int stops[] = { SIGSTOP, SIGTSTP, SIGSTOP };
	for (size_t i = 0; i < CHILDREN; i++) {
		children[i] = MUST(fork());
		if (children[i] == 0) {
			/* SIGTSTP does not stop an orphaned group. */
			signal(SIGTSTP, SIG_DFL);
			run_child(i);
		}
	}
	for (size_t i = 0; i < COUNT(counters); i++) counted(counters[i]);
	for (size_t i = 0; i < CHILDREN; i++) {
		EQUAL(kill(children[i], i == 1 ? SIGSTOP : stops[i]), 0);
		EVENTUALLY(state_of(children[i]) == 'T');
		int status;
		if (i != 1) {
			EQUAL(waitpid(children[i], &status, WUNTRACED), children[i]);
			EQUAL(WSTOPSIG(status), SIGSTOP);
		}
	}
	/* One more signal, which waits until it goes on. */
	long before[COUNT(counters)];
	for (size_t i = 0; i < COUNT(counters); i++) before[i] = counted(counters[i]);
	pod_ready();
	if (pod_break("continued")) kill(children[0], SIGCONT);
	if (pod_break("threads-continued")) kill(children[2], SIGCONT);
	if (pod_break("told")) {
		int status;
		EQUAL(waitpid(children[1], &status, WUNTRACED), children[1]);
	}
	do {
		for (size_t i = 0; i < CHILDREN; i++) {
			char state = state_of(children[i]);
			CHECKF(state == 'T' || state == 't', "child %zu is %c", i, state);
		}
		for (size_t i = 0; i < COUNT(counters); i++) EQUAL(counted(counters[i]), before[i]);
	} while (pod_turn());
	int status;
	/* Told already: not again. Not told yet: now. */
	EQUAL(waitpid(children[0], &status, WUNTRACED | WNOHANG), 0);
	EQUAL(waitpid(children[2], &status, WUNTRACED | WNOHANG), 0);
	EQUAL(waitpid(children[1], &status, WUNTRACED | WNOHANG), children[1]);
	CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
	for (size_t i = 0; i < CHILDREN; i++) EQUAL(kill(children[i], SIGCONT), 0);
	for (size_t i = 0; i < CHILDREN; i++) {
		EQUAL(waitpid(children[i], &status, WCONTINUED), children[i]);
		CHECK(WIFCONTINUED(status));
	}
	for (size_t i = 0; i < COUNT(counters); i++) EVENTUALLY(counted(counters[i]) > before[i] + 1);
	pod_mark("end");
	for (size_t i = 0; i < CHILDREN; i++) {
		EQUAL(waitpid(children[i], &status, 0), children[i]);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == (int)i + 50);
	}
	pod_pass();
}
