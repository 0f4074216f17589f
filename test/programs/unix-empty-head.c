/*
 * A message without a byte at the head of a queue, where every look sees it: dumped as often as one likes.
 */
#include <sys/socket.h>
#include "pod-test.h"

static const size_t sizes[] = { 0, 5, 7 };
static int pairs[2][2];

static void queue(int fd, size_t first) {
	static char bytes[16];
	for (size_t i = first; i < COUNT(sizes); i++) EQUAL(send(fd, bytes, sizes[i], 0), sizes[i]);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	EQUAL(socketpair(AF_UNIX, SOCK_DGRAM, 0, pairs[0]), 0);
	EQUAL(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pairs[1]), 0);
	for (int i = 0; i < 2; i++) queue(pairs[i][0], 0);
	pod_ready();
	char bytes[16];
	if (pod_break("head")) EQUAL(recv(pairs[0][1], bytes, 16, 0), 0);
	if (pod_break("middle"))
		for (int i = 0; i < 2; i++) EQUAL(recv(pairs[1][1], bytes, 16, 0), sizes[i]);
	if (pod_break("one-more")) EQUAL(send(pairs[1][0], bytes, 0, 0), 0);
	while (pod_turn()) continue;
	for (int i = 0; i < 2; i++) {
		for (size_t k = 0; k < COUNT(sizes); k++) EQUAL(recv(pairs[i][1], bytes, 16, MSG_DONTWAIT), sizes[k]);
		FAILS(recv(pairs[i][1], bytes, 16, MSG_DONTWAIT), EAGAIN);
	}
	pod_pass();
}
