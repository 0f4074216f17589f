/*
 * A UDP datagram of which the first half was given to the kernel (MSG_MORE): it waits there for the rest, and nobody
 * can read it. Refused.
 */
#include <arpa/inet.h>
#include <sys/socket.h>
#include "pod-test.h"

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	int sender = MUST(socket(AF_INET, SOCK_DGRAM, 0)), receiver = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof address;
	MUST(bind(receiver, (void *)&address, size));
	MUST(getsockname(receiver, (void *)&address, &size));
	MUST(connect(sender, (void *)&address, size));
	EQUAL(send(sender, "first ", 6, MSG_MORE), 6);
	pod_ready();
	if (pod_break("sent")) EQUAL(send(sender, "", 0, 0), 0);
	char bytes[32];
	while (pod_turn()) FAILS(recv(receiver, bytes, sizeof bytes, MSG_DONTWAIT), EAGAIN);
	EQUAL(send(sender, "second", 6, 0), 6);
	EQUAL(recv(receiver, bytes, sizeof bytes, 0), 12);
	EQUAL(memcmp(bytes, "first second", 12), 0);
	pod_pass();
}
