/*
 * Listening TCP sockets: at an address of IPv4 and of IPv6, several at one port (SO_REUSEPORT), with options that
 * accepted connections inherit; a thread that is blocked in accept(2); one that is bound and does not listen, one that
 * was never bound, one whose connect(2) was refused.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include "pod-test.h"

static int plain, six, shared[2], blocked, bound, fresh, failed, reserved;
static struct sockaddr_in plain_at, shared_at, blocked_at, bound_at, reserved_at;
static struct sockaddr_in6 six_at;
static pthread_t thread;

static void set(int fd, int level, int name, int value) {
	EQUAL(setsockopt(fd, level, name, &value, sizeof value), 0);
}

static int get(int fd, int level, int name) {
	int value = -1;
	socklen_t length = sizeof value;
	EQUAL(getsockopt(fd, level, name, &value, &length), 0);
	return value;
}

static int make(struct sockaddr_in *address, int option) {
	int fd = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	socklen_t length = sizeof *address;
	if (option) set(fd, SOL_SOCKET, option, 1);
	address->sin_family = AF_INET;
	address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	EQUAL(bind(fd, (struct sockaddr *)address, length), 0);
	EQUAL(getsockname(fd, (struct sockaddr *)address, &length), 0);
	return fd;
}

static int max_backlog(int fd) {
	struct tcp_info info;
	socklen_t length = sizeof info;
	EQUAL(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length), 0);
	return (int)info.tcpi_sacked;
}

static void talk(int client, int accepted) {
	char bytes[8];
	EQUAL(send(client, "hello", 5, 0), 5);
	EQUAL(recv(accepted, bytes, 5, MSG_WAITALL), 5);
	EQUAL(send(accepted, "world", 5, 0), 5);
	EQUAL(recv(client, bytes, 5, MSG_WAITALL), 5);
	CHECK(memcmp(bytes, "world", 5) == 0);
}

static int reach(const void *address, socklen_t length) {
	int fd = MUST(socket(((const struct sockaddr *)address)->sa_family, SOCK_STREAM, 0));
	EQUAL(connect(fd, address, length), 0);
	return fd;
}

static void *wait_for_one(void *argument) {
	(void)argument;
	int accepted = MUST(accept(blocked, NULL, NULL));
	char byte;
	EQUAL(recv(accepted, &byte, 1, 0), 1);
	EQUAL(byte, 'b');
	EQUAL(close(accepted), 0);
	return NULL;
}

static void check(void) {
	EQUAL(get(plain, SOL_SOCKET, SO_ACCEPTCONN), 1);
	EQUAL(max_backlog(plain), 17);
	EQUAL(get(plain, SOL_SOCKET, SO_REUSEADDR), 1);
	EQUAL(get(plain, SOL_SOCKET, SO_KEEPALIVE), 1);
	EQUAL(get(plain, IPPROTO_TCP, TCP_NODELAY), 1);
	EQUAL(get(plain, IPPROTO_TCP, TCP_DEFER_ACCEPT) > 0, 1);
	EQUAL(get(plain, IPPROTO_TCP, TCP_USER_TIMEOUT), 12345);
	EQUAL(get(plain, IPPROTO_IP, IP_TOS), 0x10);
	EQUAL(get(plain, IPPROTO_IP, IP_TTL), 33);
	struct linger linger;
	struct timeval timeout;
	socklen_t length = sizeof linger;
	EQUAL(getsockopt(bound, SOL_SOCKET, SO_LINGER, &linger, &length), 0);
	EQUAL(linger.l_onoff, 1);
	EQUAL(linger.l_linger, 9);
	length = sizeof timeout;
	EQUAL(getsockopt(bound, SOL_SOCKET, SO_RCVTIMEO, &timeout, &length), 0);
	EQUAL(timeout.tv_sec, 77);
	EQUAL(get(bound, SOL_SOCKET, SO_RCVBUF), 40000);
	EQUAL(get(bound, SOL_SOCKET, SO_REUSEADDR), 0);
	EQUAL(get(bound, SOL_SOCKET, SO_ACCEPTCONN), 0);
	EQUAL(get(bound, IPPROTO_IP, IP_FREEBIND), 0);
	struct sockaddr_in at;
	length = sizeof at;
	EQUAL(getsockname(bound, (struct sockaddr *)&at, &length), 0);
	EQUAL(at.sin_port, bound_at.sin_port);
	EQUAL(getsockname(fresh, (struct sockaddr *)&at, &length), 0);
	EQUAL(at.sin_port, 0);
	struct pollfd poller = { .fd = failed, .events = POLLIN | POLLOUT };
	EQUAL(poll(&poller, 1, 0), 1);
	EQUAL(poller.revents, POLLIN | POLLOUT | POLLERR | POLLHUP);
	for (int i = 0; i < 2; i++) EQUAL(get(shared[i], SOL_SOCKET, SO_REUSEPORT), 1);
	if (six >= 0) EQUAL(get(six, IPPROTO_IPV6, IPV6_V6ONLY), 1);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	plain = make(&plain_at, SO_REUSEADDR);
	set(plain, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(plain, IPPROTO_TCP, TCP_NODELAY, 1);
	set(plain, IPPROTO_TCP, TCP_DEFER_ACCEPT, 3);
	set(plain, IPPROTO_TCP, TCP_USER_TIMEOUT, 12345);
	set(plain, IPPROTO_IP, IP_TOS, 0x10);
	set(plain, IPPROTO_IP, IP_TTL, 33);
	EQUAL(listen(plain, 17), 0);
	for (int i = 0; i < 2; i++) {
		shared[i] = make(&shared_at, SO_REUSEPORT);
		EQUAL(listen(shared[i], 1), 0);
		EQUAL(fcntl(shared[i], F_SETFL, O_NONBLOCK), 0);
	}
	blocked = make(&blocked_at, SO_REUSEADDR);
	EQUAL(listen(blocked, 1), 0);
	bound = make(&bound_at, 0);
	struct linger linger = { 1, 9 };
	EQUAL(setsockopt(bound, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
	struct timeval timeout = { 77, 0 };
	EQUAL(setsockopt(bound, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout), 0);
	set(bound, SOL_SOCKET, SO_RCVBUF, 20000);
	fresh = MUST(socket(AF_INET, SOCK_STREAM, 0));
	reserved = make(&reserved_at, 0);
	failed = MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
	connect(failed, (struct sockaddr *)&reserved_at, sizeof reserved_at);
	six = socket(AF_INET6, SOCK_STREAM, 0);
	six_at = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	socklen_t length = sizeof six_at;
	if (six >= 0) set(six, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (six >= 0 && bind(six, (struct sockaddr *)&six_at, length) != 0) {
		/* A computer without IPv6. */
		close(six);
		six = -1;
	}
	if (six >= 0) {
		EQUAL(listen(six, 3), 0);
		EQUAL(getsockname(six, (struct sockaddr *)&six_at, &length), 0);
	}
	EQUAL(pthread_create(&thread, NULL, wait_for_one, NULL), 0);
	pod_ready();

	if (pod_break("option")) set(plain, IPPROTO_TCP, TCP_NODELAY, 0);
	if (pod_break("buffer")) set(bound, SOL_SOCKET, SO_RCVBUF, 30000);
	if (pod_break("backlog")) listen(plain, 3);
	if (pod_break("deaf")) shutdown(plain, SHUT_RDWR);
	if (pod_break("told")) get(failed, SOL_SOCKET, SO_ERROR);
	if (pod_break("alone")) close(shared[1]);
	while (pod_turn()) check();

	check();
	EQUAL(get(failed, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
	char byte;
	FAILS(recv(fresh, &byte, 1, 0), ENOTCONN);
	int client = reach(&plain_at, sizeof plain_at);
	EQUAL(send(client, "x", 1, 0), 1);
	int accepted = MUST(accept(plain, NULL, NULL));
	EQUAL(recv(accepted, &byte, 1, 0), 1);
	EQUAL(get(accepted, IPPROTO_TCP, TCP_NODELAY), 1);
	EQUAL(get(accepted, SOL_SOCKET, SO_KEEPALIVE), 1);
	talk(client, accepted);
	/* Whichever of the two the kernel chooses: both get some. */
	int taken[2] = { 0, 0 };
	for (int i = 0; i < 64; i++) {
		reach(&shared_at, sizeof shared_at);
		for (int one = 0; one < 2; one++) {
			int fd = accept(shared[one], NULL, NULL);
			if (fd < 0) continue;
			taken[one]++;
			EQUAL(close(fd), 0);
		}
	}
	EQUAL(taken[0] + taken[1], 64);
	CHECK(taken[0] > 0 && taken[1] > 0);
	if (six >= 0) {
		client = reach(&six_at, sizeof six_at);
		talk(client, MUST(accept(six, NULL, NULL)));
	}
	client = reach(&blocked_at, sizeof blocked_at);
	EQUAL(send(client, "b", 1, 0), 1);
	EQUAL(pthread_join(thread, NULL), 0);
	EQUAL(listen(bound, 1), 0);
	client = reach(&bound_at, sizeof bound_at);
	talk(client, MUST(accept(bound, NULL, NULL)));
	EQUAL(connect(fresh, (struct sockaddr *)&bound_at, sizeof bound_at), 0);
	pod_pass();
}
