/*
 * A POSIX message queue with a message in it that nobody has open: it outlives who made it, and is in no descriptor
 * table where a dump could find it.
 *
 * Via: pod
 */
#include <mqueue.h>
#include "pod-test.h"

static const char name[] = "/pod-test-jobs";

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	struct mq_attr attributes = { .mq_maxmsg = 4, .mq_msgsize = 64 };
	mqd_t queue = MUST(mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &attributes));
	EQUAL(mq_send(queue, "not yet done", 12, 3), 0);
	EQUAL(mq_close(queue), 0);
	pod_ready();
	if (pod_break("taken")) EQUAL(mq_unlink(name), 0);
	while (pod_turn()) continue;
	char text[64];
	unsigned priority;
	queue = mq_open(name, O_RDWR);
	CHECK(queue >= 0);
	EQUAL(mq_receive(queue, text, sizeof text, &priority), 12);
	EQUAL(priority, 3);
	CHECK(memcmp(text, "not yet done", 12) == 0);
	EQUAL(mq_unlink(name), 0);
	pod_pass();
}
