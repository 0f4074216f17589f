/*
 * A TCP socket whose peers must sign what they send (RFC 2385, as routers do): refused.
 * As: root
 */
#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include "pod-test.h"

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct tcp_md5sig key = { .tcpm_keylen = 5, .tcpm_key = "a key" };
	memcpy(&key.tcpm_addr, &at, sizeof at);
	int listener = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	EQUAL(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
	EQUAL(setsockopt(listener, IPPROTO_TCP, TCP_MD5SIG, &key, sizeof key), 0);
	EQUAL(listen(listener, 4), 0);
	pod_ready();
	if (pod_break("key")) close(listener);
	while (pod_turn()) continue;
	/* To take a key away there must be one. */
	key.tcpm_keylen = 0;
	EQUAL(setsockopt(listener, IPPROTO_TCP, TCP_MD5SIG, &key, sizeof key), 0);
	pod_pass();
}
