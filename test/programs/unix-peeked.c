/*
 * A message without a byte that the program has looked at, which hides it from every later look at an offset; its
 * sender is gone.
 */
#include <sys/socket.h>
#include <sys/un.h>
#include "pod-test.h"

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int length = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "unix-peeked-%d-%ld", getpid(), (long)pod_now());
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
	int receiver = MUST(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	EQUAL(bind(receiver, (struct sockaddr *)&name, size), 0);
	int sender = MUST(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	static const char *const messages[] = { "", "five.", "sixsix" };
	for (size_t i = 0; i < COUNT(messages); i++)
		EQUAL(sendto(sender, messages[i], strlen(messages[i]), 0, (struct sockaddr *)&name, size), strlen(messages[i]));
	close(sender);
	char bytes[16];
	EQUAL(recv(receiver, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT), 0);
	pod_ready();
	if (pod_break("taken")) recv(receiver, bytes, sizeof bytes, 0);
	while (pod_turn()) continue;
	for (size_t i = 0; i < COUNT(messages); i++) {
		EQUAL(recv(receiver, bytes, sizeof bytes, MSG_DONTWAIT), strlen(messages[i]));
		CHECK(memcmp(bytes, messages[i], strlen(messages[i])) == 0);
	}
	FAILS(recv(receiver, bytes, sizeof bytes, MSG_DONTWAIT), EAGAIN);
	pod_pass();
}
