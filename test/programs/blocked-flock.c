/*
 * A lock that is held and another open of the same file that waits for it: the wait goes on until the lock is let
 * go, not before; a try from outside fails as long as it is held.
 */
#include <sys/file.h>
#include "pod-test.h"

static int holder, waiter;
static _Atomic bool got, over;

static void *wait_for_lock(void *argument) {
	(void)argument;
	EQUAL(flock(waiter, LOCK_EX), 0);
	CHECKF(over, "the lock was given to a second holder");
	got = true;
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pod_path_t path;
	holder = MUST(open(pod_path(path, "locked"), O_RDWR | O_CREAT, 0666));
	waiter = MUST(open(path, O_RDWR));
	EQUAL(flock(holder, LOCK_EX), 0);
	pthread_t thread;
	EQUAL(pthread_create(&thread, NULL, wait_for_lock, NULL), 0);
	pod_sleep(30);
	pod_ready();
	if (pod_break("unlocked")) flock(holder, LOCK_UN);
	while (pod_turn()) {
		int try = MUST(open(path, O_RDWR));
		FAILS(flock(try, LOCK_SH | LOCK_NB), EWOULDBLOCK);
		close(try);
		CHECK(!got);
	}
	CHECK(!got);
	over = true;
	EQUAL(flock(holder, LOCK_UN), 0);
	EQUAL(pthread_join(thread, NULL), 0);
	FAILS(flock(holder, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	pod_pass();
}
