/*
 * Connections that wait in listening sockets to be accepted: in order, from two processes, one that was closed and one
 * half closed meanwhile, one in whose answer a thread waits; at a path, at a path that is gone, at an abstract name.
 */
#include <sys/socket.h>
#include <sys/un.h>
#include "pod-test.h"

static int plain, gone, abstract;
static int first, second, shut, blocked, packet, from_gone;
static _Atomic bool answered;

static int make(int type, const char *name, struct sockaddr_un *address, socklen_t *length) {
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (name[0] == '@') {
		/* Two sessions of this program may be on one computer. */
		*length = (socklen_t)(2 + 1 + snprintf(address->sun_path + 1, 100, "pod-test%.90s", pod_dir));
	} else {
		pod_path_t path;
		CHECK(strlen(pod_path(path, name)) < sizeof address->sun_path);
		strcpy(address->sun_path, path);
		*length = sizeof *address;
	}
	int fd = MUST(socket(AF_UNIX, type, 0));
	EQUAL(bind(fd, (struct sockaddr *)address, *length), 0);
	EQUAL(listen(fd, 7), 0);
	return fd;
}

static int join(int type, const struct sockaddr_un *address, socklen_t length) {
	int fd = MUST(socket(AF_UNIX, type, 0));
	EQUAL(connect(fd, (const struct sockaddr *)address, length), 0);
	return fd;
}

static void *wait_for_answer(void *argument) {
	(void)argument;
	char text[8];
	EQUAL(recv(blocked, text, 8, 0), 6);
	CHECK(memcmp(text, "answer", 6) == 0);
	answered = true;
	return NULL;
}

static void exchange(int fd, int accepted, const char *text) {
	char bytes[16];
	ssize_t length = (ssize_t)strlen(text);
	EQUAL(send(fd, text, (size_t)length, 0), length);
	EQUAL(recv(accepted, bytes, 16, MSG_DONTWAIT), length);
	CHECK(memcmp(bytes, text, (size_t)length) == 0);
	EQUAL(send(accepted, text, (size_t)length, 0), length);
	EQUAL(recv(fd, bytes, 16, MSG_DONTWAIT), length);
}

static int take(int listener) {
	return MUST(accept4(listener, NULL, NULL, SOCK_NONBLOCK));
}

/** Every client is connected, as far as it can tell. */
static void check(void) {
	struct sockaddr_un peer;
	socklen_t length = sizeof peer;
	EQUAL(getpeername(first, (struct sockaddr *)&peer, &length), 0);
	char byte;
	FAILS(recv(first, &byte, 1, MSG_DONTWAIT), EAGAIN);
	FAILS(recv(packet, &byte, 1, MSG_DONTWAIT), EAGAIN);
	FAILS(connect(second, (struct sockaddr *)&peer, length), EISCONN);
	FAILS(send(shut, "x", 1, 0), EPIPE);
	CHECK(!answered);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	struct sockaddr_un address, gone_address, abstract_address;
	socklen_t length, gone_length, abstract_length;
	plain = make(SOCK_STREAM, "plain", &address, &length);
	gone = make(SOCK_STREAM, "gone", &gone_address, &gone_length);
	abstract = make(SOCK_SEQPACKET, "@", &abstract_address, &abstract_length);
	first = join(SOCK_STREAM, &address, length);
	pid_t child = MUST(fork());
	if (child == 0) {
		second = join(SOCK_STREAM, &address, length);
		pod_mark("joined");
		pod_await("asked");
		char text[8] = "";
		EQUAL(recv(second, text, 8, 0), 6);
		CHECK(memcmp(text, "second", 6) == 0);
		_exit(0);
	}
	pod_await("joined");
	second = join(SOCK_STREAM, &gone_address, gone_length);
	close(join(SOCK_STREAM, &address, length));
	shut = join(SOCK_STREAM, &address, length);
	EQUAL(shutdown(shut, SHUT_WR), 0);
	blocked = join(SOCK_STREAM, &address, length);
	from_gone = join(SOCK_STREAM, &gone_address, gone_length);
	EQUAL(unlink(gone_address.sun_path), 0);
	packet = join(SOCK_SEQPACKET, &abstract_address, abstract_length);
	pthread_t thread;
	EQUAL(pthread_create(&thread, NULL, wait_for_answer, NULL), 0);
	pod_ready();

	char byte;
	if (pod_break("accepted")) close(take(plain));
	if (pod_break("one-more")) join(SOCK_STREAM, &address, length);
	if (pod_break("closed")) shutdown(blocked, SHUT_RDWR);
	if (pod_break("open-again")) shutdown(first, SHUT_RDWR);
	while (pod_turn()) check();

	int accepted = take(plain);
	exchange(first, accepted, "first");
	int of_child = take(plain);
	EQUAL(send(of_child, "second", 6, 0), 6);
	pod_mark("asked");
	pod_reap(child);
	EQUAL(recv(take(plain), &byte, 1, 0), 0);
	int half = take(plain);
	EQUAL(recv(half, &byte, 1, 0), 0);
	EQUAL(send(half, "y", 1, 0), 1);
	EQUAL(recv(shut, &byte, 1, 0), 1);
	int answer = take(plain);
	CHECK(!answered);
	EQUAL(send(answer, "answer", 6, 0), 6);
	EQUAL(pthread_join(thread, NULL), 0);
	exchange(second, take(gone), "gone");
	exchange(from_gone, take(gone), "gone too");
	exchange(packet, take(abstract), "packet");
	CHECK(access(gone_address.sun_path, F_OK) != 0);
	for (int i = 0; i < 3; i++) {
		int listener = i == 0 ? plain : i == 1 ? gone : abstract;
		EQUAL(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
		FAILS(accept(listener, NULL, NULL), EAGAIN);
	}
	close(join(SOCK_STREAM, &address, length));
	pod_pass();
}
