/*
 * TCP connections with both ends in the session: bytes under way in both directions, more than a window takes, options,
 * half-closed ends, ends that outlive the other one, one that was reset; a reader that is blocked in recv(2), a
 * connection that waits to be accepted, IPv4 in IPv6. The listening socket of some is gone.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include "pod-test.h"

struct pair {
	int client, accepted;
};

static int listener;
static struct sockaddr_in where;
static struct pair quiet, busy, full, half, closing, left, shut, old, mixed, blocked, small;
static int reset, waiting;
static bool has_v6;
static size_t stuffed, stuffed_small;
static struct sockaddr_in names[2];
static _Atomic bool answered;

static void set(int fd, int level, int name, int value) {
	EQUAL(setsockopt(fd, level, name, &value, sizeof value), 0);
}

static int listen_at(struct sockaddr_in *address) {
	*address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof *address;
	int fd = MUST(socket(AF_INET, SOCK_STREAM, 0));
	/* Connections that end here must not keep a restart from having the port. */
	set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	EQUAL(bind(fd, (struct sockaddr *)address, length), 0);
	EQUAL(listen(fd, 5), 0);
	EQUAL(getsockname(fd, (struct sockaddr *)address, &length), 0);
	return fd;
}

static struct pair join(int at, const struct sockaddr_in *address) {
	struct pair pair = { .client = MUST(socket(AF_INET, SOCK_STREAM, 0)) };
	EQUAL(connect(pair.client, (const struct sockaddr *)address, sizeof *address), 0);
	pair.accepted = MUST(accept(at, NULL, NULL));
	return pair;
}

static struct pair join_mixed(void) {
	struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
	socklen_t length = sizeof any;
	int fd = socket(AF_INET6, SOCK_STREAM, 0), off = 0;
	has_v6 = fd >= 0 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0 &&
	         bind(fd, (struct sockaddr *)&any, length) == 0;
	if (!has_v6) return (struct pair){ -1, -1 };
	EQUAL(listen(fd, 1), 0);
	EQUAL(getsockname(fd, (struct sockaddr *)&any, &length), 0);
	struct sockaddr_in to = where;
	to.sin_port = any.sin6_port;
	struct pair pair = join(fd, &to);
	EQUAL(close(fd), 0);
	return pair;
}

static void *wait_for_answer(void *argument) {
	(void)argument;
	char text[8];
	EQUAL(recv(blocked.client, text, 8, 0), 6);
	CHECK(memcmp(text, "answer", 6) == 0);
	answered = true;
	return NULL;
}

/** Send until nothing more goes in. */
static size_t stuff(int fd, uint64_t seed) {
	enum { chunk = 1 << 16 };
	static unsigned char pattern[chunk];
	size_t total = 0;
	for (int64_t end = pod_now() + 100 * MILLISECOND; pod_now() < end && total < 64 * chunk;) {
		pod_fill(pattern, chunk, seed + total);
		ssize_t sent = send(fd, pattern, chunk, MSG_DONTWAIT);
		if (sent > 0) total += (size_t)sent;
		/* The pattern goes by chunks of 8. */
		if (sent > 0 && sent % 8 != 0) {
			size_t rest = 8 - (size_t)sent % 8;
			for (size_t done = 0; done < rest;) {
				ssize_t more = send(fd, pattern + sent + done, rest - done, MSG_DONTWAIT);
				if (more > 0) done += (size_t)more;
				else return total + done;
			}
			total += rest;
		}
		if (sent < 0) pod_sleep(5);
	}
	return total;
}

static void drain(int fd, size_t total, uint64_t seed) {
	unsigned char *bytes = malloc(total + 8);
	size_t got = 0;
	/* What the receiver had no room for is sent again after some time, which doubles with each vain try. */
	for (int64_t end = pod_now() + POD_PATIENCE / 2; got < total; ) {
		ssize_t more = recv(fd, bytes + got, total - got, MSG_DONTWAIT);
		if (more > 0) got += (size_t)more;
		else pod_sleep(5);
		CHECKF(more != 0 && pod_now() < end, "%zu of %zu bytes came", got, total);
	}
	ssize_t wrong = pod_differs(bytes, total / 8 * 8, seed);
	CHECKF(wrong < 0, "wrong byte at %zd of %zu", wrong, total);
	free(bytes);
}

static void says(int fd, const char *text) {
	char bytes[64];
	ssize_t length = (ssize_t)strlen(text);
	EQUAL(recv(fd, bytes, sizeof bytes, MSG_DONTWAIT), length);
	CHECKF(memcmp(bytes, text, (size_t)length) == 0, "not %s", text);
}

static void say(int fd, const char *text) {
	EQUAL(send(fd, text, strlen(text), 0), strlen(text));
}

static short events_of(int fd) {
	struct pollfd poller = { .fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP };
	poll(&poller, 1, 0);
	return poller.revents;
}

static int option(int fd, int level, int name) {
	int value = -1;
	socklen_t length = sizeof value;
	EQUAL(getsockopt(fd, level, name, &value, &length), 0);
	return value;
}

static int queued(int fd) {
	int bytes;
	EQUAL(ioctl(fd, FIONREAD, &bytes), 0);
	return bytes;
}

/** Nothing that could be seen without taking anything has changed. */
static void check(void) {
	char byte;
	FAILS(recv(quiet.client, &byte, 1, MSG_DONTWAIT), EAGAIN);
	FAILS(recv(quiet.accepted, &byte, 1, MSG_DONTWAIT), EAGAIN);
	EQUAL(events_of(quiet.client), POLLOUT);
	EQUAL(queued(busy.client), 4);
	EQUAL(queued(busy.accepted), 9);
	EQUAL(events_of(half.accepted), POLLIN | POLLOUT | POLLRDHUP);
	EQUAL(events_of(closing.client), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
	EQUAL(events_of(left.client), POLLIN | POLLOUT | POLLRDHUP);
	EQUAL(events_of(reset), POLLIN | POLLOUT | POLLRDHUP | POLLHUP | POLLERR);
	EQUAL(option(quiet.client, IPPROTO_TCP, TCP_NODELAY), 1);
	EQUAL(option(quiet.client, SOL_SOCKET, SO_KEEPALIVE), 1);
	EQUAL(option(quiet.client, IPPROTO_TCP, TCP_KEEPIDLE), 77);
	EQUAL(option(quiet.client, SOL_SOCKET, SO_REUSEADDR), 0);
	EQUAL(option(quiet.accepted, SOL_SOCKET, SO_REUSEADDR), 1);
	EQUAL(option(quiet.accepted, IPPROTO_TCP, TCP_NODELAY), 0);
	EQUAL(option(quiet.accepted, SOL_SOCKET, SO_RCVLOWAT), 5);
	EQUAL(option(small.accepted, SOL_SOCKET, SO_RCVBUF), 8192);
	CHECK((fcntl(quiet.accepted, F_GETFL) & O_NONBLOCK) != 0);
	struct sockaddr_in peer;
	socklen_t length = sizeof peer;
	EQUAL(getpeername(busy.accepted, (struct sockaddr *)&peer, &length), 0);
	CHECK(memcmp(&peer, &names[0], sizeof peer) == 0);
	EQUAL(getpeername(busy.client, (struct sockaddr *)&peer, &length), 0);
	CHECK(memcmp(&peer, &names[1], sizeof peer) == 0);
	EQUAL(getsockname(busy.client, (struct sockaddr *)&peer, &length), 0);
	CHECK(memcmp(&peer, &names[0], sizeof peer) == 0);
	CHECK(!answered);
}

static void talk(struct pair pair) {
	say(pair.client, "question");
	EVENTUALLY(queued(pair.accepted) == 8);
	says(pair.accepted, "question");
	say(pair.accepted, "answer");
	EVENTUALLY(queued(pair.client) == 6);
	says(pair.client, "answer");
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	listener = listen_at(&where);
	quiet = join(listener, &where);
	set(quiet.client, IPPROTO_TCP, TCP_NODELAY, 1);
	set(quiet.client, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(quiet.client, IPPROTO_TCP, TCP_KEEPIDLE, 77);
	set(quiet.accepted, SOL_SOCKET, SO_RCVLOWAT, 5);
	EQUAL(fcntl(quiet.accepted, F_SETFL, O_NONBLOCK), 0);
	busy = join(listener, &where);
	socklen_t length = sizeof names[0];
	EQUAL(getsockname(busy.client, (struct sockaddr *)&names[0], &length), 0);
	EQUAL(getsockname(busy.accepted, (struct sockaddr *)&names[1], &length), 0);
	say(busy.client, "underway");
	say(busy.client, "!");
	say(busy.accepted, "back");
	full = join(listener, &where);
	stuffed = stuff(full.client, 1);
	CHECK(stuffed > 300000);
	small = join(listener, &where);
	set(small.accepted, SOL_SOCKET, SO_RCVBUF, 4096);
	set(small.client, SOL_SOCKET, SO_SNDBUF, 40000);
	stuffed_small = stuff(small.client, 2);
	half = join(listener, &where);
	say(half.client, "last words");
	EQUAL(shutdown(half.client, SHUT_WR), 0);
	say(half.accepted, "reply");
	closing = join(listener, &where);
	say(closing.accepted, "bye");
	EQUAL(shutdown(closing.accepted, SHUT_WR), 0);
	EQUAL(shutdown(closing.client, SHUT_WR), 0);
	left = join(listener, &where);
	say(left.accepted, "legacy");
	EQUAL(close(left.accepted), 0);
	shut = join(listener, &where);
	EQUAL(shutdown(shut.client, SHUT_RD), 0);
	struct pair pair = join(listener, &where);
	say(pair.accepted, "before");
	struct linger at_once = { 1, 0 };
	EQUAL(setsockopt(pair.accepted, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
	EQUAL(close(pair.accepted), 0);
	reset = pair.client;
	struct sockaddr_in gone;
	int once = listen_at(&gone);
	old = join(once, &gone);
	EQUAL(close(once), 0);
	mixed = join_mixed();
	blocked = join(listener, &where);
	waiting = MUST(socket(AF_INET, SOCK_STREAM, 0));
	EQUAL(connect(waiting, (struct sockaddr *)&where, sizeof where), 0);
	pthread_t thread;
	EQUAL(pthread_create(&thread, NULL, wait_for_answer, NULL), 0);
	EVENTUALLY(queued(half.accepted) == 10);
	pod_ready();

	char byte;
	if (pod_break("taken")) recv(busy.accepted, &byte, 1, 0);
	if (pod_break("option")) set(quiet.client, IPPROTO_TCP, TCP_NODELAY, 0);
	if (pod_break("swapped")) names[0] = names[1];
	if (pod_break("lost")) recv(full.accepted, &byte, 1, 0);
	if (pod_break("lost-small")) recv(small.accepted, &byte, 1, 0);
	if (pod_break("told")) recv(reset, &byte, 1, 0);
	if (pod_break("closed")) shutdown(old.client, SHUT_RDWR);
	if (pod_break("accepted")) close(accept(listener, NULL, NULL));
	while (pod_turn()) check();

	check();
	says(busy.accepted, "underway!");
	says(busy.client, "back");
	talk(busy);
	drain(full.accepted, stuffed, 1);
	talk(full);
	drain(small.accepted, stuffed_small, 2);
	talk(small);
	says(half.accepted, "last words");
	EQUAL(recv(half.accepted, &byte, 1, 0), 0);
	FAILS(send(half.client, "x", 1, 0), EPIPE);
	says(half.client, "reply");
	say(half.accepted, "more");
	EVENTUALLY(queued(half.client) == 4);
	EQUAL(close(half.accepted), 0);
	says(half.client, "more");
	EQUAL(recv(half.client, &byte, 1, 0), 0);
	says(closing.client, "bye");
	EQUAL(recv(closing.client, &byte, 1, 0), 0);
	FAILS(send(closing.client, "x", 1, 0), EPIPE);
	EQUAL(recv(closing.accepted, &byte, 1, 0), 0);
	says(left.client, "legacy");
	EQUAL(recv(left.client, &byte, 1, 0), 0);
	EQUAL(send(left.client, "x", 1, 0), 1);
	EVENTUALLY(send(left.client, "x", 1, 0) < 0);
	EQUAL(recv(shut.client, &byte, 1, 0), 0);
	say(shut.client, "still");
	EVENTUALLY(queued(shut.accepted) == 5);
	says(shut.accepted, "still");
	says(reset, "before");
	FAILS(recv(reset, &byte, 1, 0), ECONNRESET);
	EQUAL(recv(reset, &byte, 1, 0), 0);
	FAILS(send(reset, "x", 1, 0), EPIPE);
	talk(old);
	if (has_v6) talk(mixed);
	set(quiet.accepted, SOL_SOCKET, SO_RCVLOWAT, 1);
	talk(quiet);
	CHECK(!answered);
	say(blocked.accepted, "answer");
	EQUAL(pthread_join(thread, NULL), 0);
	struct sockaddr_in peer, own;
	length = sizeof peer;
	EQUAL(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
	int last = MUST(accept(listener, (struct sockaddr *)&peer, &length));
	EQUAL(getsockname(waiting, (struct sockaddr *)&own, &length), 0);
	CHECK(memcmp(&peer, &own, sizeof peer) == 0);
	talk((struct pair){ waiting, last });
	FAILS(accept(listener, NULL, NULL), EAGAIN);
	EQUAL(fcntl(listener, F_SETFL, 0), 0);
	talk(join(listener, &where));
	pod_pass();
}
