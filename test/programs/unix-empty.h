/*
 * The programs about messages without a byte, but for one thing: the includer gives the sizes of the messages in
 * each queue, `static const size_t sizes[]`.
 */
#include <sys/socket.h>
#include "pod-test.h"

static int pairs[2][2];

/* A queue of datagrams and one of sequenced packets, each with all messages. */
static void fill_queues(void) {
	static char bytes[16];
	EQUAL(socketpair(AF_UNIX, SOCK_DGRAM, 0, pairs[0]), 0);
	EQUAL(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pairs[1]), 0);
	for (int i = 0; i < 2; i++)
		for (size_t k = 0; k < COUNT(sizes); k++) EQUAL(send(pairs[i][0], bytes, sizes[k], 0), sizes[k]);
}

static void take_messages(int queue, size_t count) {
	char bytes[16];
	for (size_t k = 0; k < count; k++) EQUAL(recv(pairs[queue][1], bytes, 16, MSG_DONTWAIT), sizes[k]);
}

static void check_queues(void) {
	char bytes[16];
	for (int i = 0; i < 2; i++) {
		take_messages(i, COUNT(sizes));
		FAILS(recv(pairs[i][1], bytes, 16, MSG_DONTWAIT), EAGAIN);
	}
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	fill_queues();
	pod_ready();
	if (pod_break("head")) take_messages(0, 1);
	if (pod_break("middle")) take_messages(1, 2);
	if (pod_break("one-more")) EQUAL(send(pairs[1][0], "", 0, 0), 0);
	while (pod_turn()) continue;
	check_queues();
	pod_pass();
}
