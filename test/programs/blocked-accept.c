/*
 * A listening unix socket (bound to a path) and a thread that waits in accept: it goes on waiting, then takes the
 * connection that comes after go.
 */
#include <sys/socket.h>
#include <sys/un.h>
#include "pod-test.h"

static int listener;
static struct sockaddr_un address = { .sun_family = AF_UNIX };
static _Atomic bool over, accepted;

static void *wait_for_connection(void *argument) {
	(void)argument;
	struct sockaddr_un peer;
	socklen_t size = sizeof peer;
	int fd = MUST(accept4(listener, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC));
	accepted = true;
	CHECKF(over, "accept came back without a connection");
	EQUAL(send(fd, "welcome", 7, 0), 7);
	char text[8];
	EQUAL(recv(fd, text, sizeof text, 0), 5);
	close(fd);
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pod_path_t path;
	CHECKF(strlen(pod_path(path, "listening")) < sizeof address.sun_path, "the folder's name is too long");
	strcpy(address.sun_path, path);
	listener = MUST(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
	EQUAL(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
	EQUAL(listen(listener, 7), 0);
	pthread_t thread;
	EQUAL(pthread_create(&thread, NULL, wait_for_connection, NULL), 0);
	pod_sleep(30);
	pod_ready();
	int fd;
	if (pod_break("connected")) {
		fd = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
		EQUAL(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	}
	if (pod_break("name")) {
		fd = MUST(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
		dup3(fd, listener, O_CLOEXEC);
	}
	while (pod_turn()) CHECK(!accepted);
	CHECK(!accepted);
	over = true;
	int value;
	socklen_t size = sizeof value;
	EQUAL(getsockopt(listener, SOL_SOCKET, SO_ACCEPTCONN, &value, &size), 0);
	EQUAL(value, 1);
	struct sockaddr_un name = { 0 };
	size = sizeof name;
	EQUAL(getsockname(listener, (struct sockaddr *)&name, &size), 0);
	CHECKF(strcmp(name.sun_path, path) == 0, "it is called '%s'", name.sun_path);
	EQUAL(fcntl(listener, F_GETFD), FD_CLOEXEC);
	fd = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	EQUAL(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	char text[16];
	EQUAL(recv(fd, text, 7, MSG_WAITALL), 7);
	EQUAL(send(fd, "thank", 5, 0), 5);
	EQUAL(pthread_join(thread, NULL), 0);
	pod_pass();
}
