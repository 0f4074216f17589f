/*
 * A request sent through a connection that waits to be accepted: nobody holds the end that has it.
 */
#include <sys/socket.h>
#include <sys/un.h>
#include "pod-test.h"

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	pod_path_t path;
	CHECK(strlen(pod_path(path, "name")) < sizeof address.sun_path);
	strcpy(address.sun_path, path);
	int listener = MUST(socket(AF_UNIX, SOCK_STREAM, 0)), client = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	EQUAL(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
	EQUAL(listen(listener, 5), 0);
	EQUAL(connect(client, (struct sockaddr *)&address, sizeof address), 0);
	EQUAL(send(client, "request", 7, 0), 7);
	pod_ready();
	if (pod_break("taken")) EQUAL(recv(MUST(accept(listener, NULL, NULL)), path, 7, 0), 7);
	while (pod_turn()) continue;
	EQUAL(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
	int accepted = MUST(accept(listener, NULL, NULL));
	EQUAL(recv(accepted, path, 20, MSG_DONTWAIT), 7);
	CHECK(memcmp(path, "request", 7) == 0);
	pod_pass();
}
