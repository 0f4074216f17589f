/*
 * A generic netlink socket: families of modules keep state for it that nobody can ask for, so a dump must refuse.
 */
#include <linux/netlink.h>
#include <sys/socket.h>
#include "pod-test.h"

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	int fd = MUST(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC));
	struct sockaddr_nl name = { .nl_family = AF_NETLINK };
	EQUAL(bind(fd, (struct sockaddr *)&name, sizeof name), 0);
	pod_ready();
	if (pod_break("closed")) close(fd);
	int protocol;
	do {
		socklen_t size = sizeof protocol;
		EQUAL(getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size), 0);
		EQUAL(protocol, NETLINK_GENERIC);
	} while (pod_turn());
	pod_pass();
}
