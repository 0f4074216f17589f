/*
 * Pairs of unix sockets: stream, datagram and sequenced packets, with queued data in both directions and their
 * boundaries, half closed, with the peer gone and data left, buffer sizes, time-outs and other options, flags, under
 * two numbers, across processes. And one that never rests: parent and child talk all the time.
 */
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include "pod-test.h"

static int stream[2], datagram[2], packets[2], half[2], alone[2], alone_packets[2], sized[2], talk[2], large[2], across[2];
static const size_t sizes[] = { 100, 2, 1000, 5000, 77 };

static void make(int pair[2], int type) {
	EQUAL(socketpair(AF_UNIX, type, 0, pair), 0);
}

static void send_pattern(int fd, size_t size, uint64_t seed) {
	static unsigned char bytes[1 << 18];
	pod_fill(bytes, size, seed);
	EQUAL(send(fd, bytes, size, MSG_NOSIGNAL), size);
}

static void receive_message(int fd, size_t size, uint64_t seed) {
	static unsigned char bytes[1 << 16];
	struct iovec part = { bytes, sizeof bytes };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	EQUAL(recvmsg(fd, &message, MSG_DONTWAIT), size);
	EQUAL(message.msg_flags & MSG_TRUNC, 0);
	CHECK_PATTERN(bytes, size, seed);
}

static void receive_stream(int fd, size_t size, uint64_t seed) {
	static unsigned char bytes[1 << 18];
	for (size_t filled = 0; filled < size;) {
		ssize_t got = recv(fd, bytes + filled, size - filled, MSG_DONTWAIT);
		CHECKF(got > 0, "%zu of %zu bytes came", filled, size);
		filled += (size_t)got;
	}
	CHECK_PATTERN(bytes, size, seed);
}

static int queued(int fd) {
	int count = -1;
	EQUAL(ioctl(fd, FIONREAD, &count), 0);
	return count;
}

static int option(int fd, int name) {
	int value = -1;
	socklen_t size = sizeof value;
	EQUAL(getsockopt(fd, SOL_SOCKET, name, &value, &size), 0);
	return value;
}

static int send_size, receive_size;

static void check(void) {
	EQUAL(queued(stream[0]), 3000);
	EQUAL(queued(stream[1]), 2000);
	EQUAL(queued(half[1]), 123);
	EQUAL(queued(alone[0]), 321);
	EQUAL(queued(large[0]), 150000);
	EQUAL(option(sized[0], SO_SNDBUF), send_size);
	EQUAL(option(sized[1], SO_RCVBUF), receive_size);
	EQUAL(option(stream[0], SO_TYPE), SOCK_STREAM);
	EQUAL(option(datagram[0], SO_TYPE), SOCK_DGRAM);
	EQUAL(option(packets[0], SO_TYPE), SOCK_SEQPACKET);
}

static uint64_t turn_number;

/* Ask the child for the successor of a number. */
static void ask(void) {
	uint64_t number = turn_number, answer;
	EQUAL(write(talk[0], &number, 8), 8);
	EQUAL(read(talk[0], &answer, 8), 8);
	EQUAL(answer, number + 1);
	turn_number++;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	make(stream, SOCK_STREAM);
	make(datagram, SOCK_DGRAM | SOCK_CLOEXEC);
	make(packets, SOCK_SEQPACKET);
	make(half, SOCK_STREAM);
	make(alone, SOCK_STREAM);
	make(alone_packets, SOCK_SEQPACKET);
	make(sized, SOCK_STREAM | SOCK_NONBLOCK);
	make(talk, SOCK_SEQPACKET);
	make(large, SOCK_STREAM);
	make(across, SOCK_STREAM);
	int value = 300000;
	EQUAL(setsockopt(large[1], SOL_SOCKET, SO_SNDBUF, &value, sizeof value), 0);
	pid_t child = MUST(fork());
	if (child == 0) {
		close(alone[1]);
		close(alone_packets[1]);
		close(talk[0]);
		close(across[0]);
		pod_mark("child");
		for (uint64_t number; read(talk[1], &number, 8) == 8;) {
			number++;
			EQUAL(write(talk[1], &number, 8), 8);
		}
		CHECK(pod_go());
		unsigned char bytes[300];
		EQUAL(recv(across[1], bytes, sizeof bytes, MSG_WAITALL), 300);
		CHECK_PATTERN(bytes, 300, 70);
		_exit(0);
	}
	pod_await("child");
	close(talk[1]);
	close(across[1]);
	send_pattern(stream[1], 1000, 1);
	send_pattern(stream[1], 2000, 1001);
	send_pattern(stream[0], 2000, 2);
	for (size_t i = 0; i < COUNT(sizes); i++) {
		send_pattern(datagram[0], sizes[i], 10 + i);
		send_pattern(datagram[1], sizes[i] / 2, 20 + i);
		send_pattern(packets[0], sizes[i], 30 + i);
	}
	send_pattern(half[0], 123, 3);
	EQUAL(shutdown(half[0], SHUT_WR), 0);
	send_pattern(alone[1], 321, 4);
	close(alone[1]);
	send_pattern(alone_packets[1], 11, 5);
	send_pattern(alone_packets[1], 22, 6);
	close(alone_packets[1]);
	send_pattern(large[1], 150000, 7);
	send_pattern(across[0], 300, 70);
	value = 20000;
	EQUAL(setsockopt(sized[0], SOL_SOCKET, SO_SNDBUF, &value, sizeof value), 0);
	value = 30000;
	EQUAL(setsockopt(sized[1], SOL_SOCKET, SO_RCVBUF, &value, sizeof value), 0);
	struct timeval time = { .tv_sec = 3, .tv_usec = 500000 };
	EQUAL(setsockopt(sized[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time), 0);
	time.tv_sec = 4;
	EQUAL(setsockopt(sized[0], SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time), 0);
	value = 1;
	EQUAL(setsockopt(sized[1], SOL_SOCKET, SO_PASSCRED, &value, sizeof value), 0);
	value = 1;
	EQUAL(setsockopt(sized[0], SOL_SOCKET, SO_TIMESTAMP, &value, sizeof value), 0);
	EQUAL(setsockopt(sized[0], SOL_SOCKET, SO_KEEPALIVE, &value, sizeof value), 0);
	value = 3;
	EQUAL(setsockopt(sized[0], SOL_SOCKET, SO_PRIORITY, &value, sizeof value), 0);
	value = 500;
	EQUAL(setsockopt(sized[1], SOL_SOCKET, SO_RCVLOWAT, &value, sizeof value), 0);
	send_size = option(sized[0], SO_SNDBUF);
	receive_size = option(sized[1], SO_RCVBUF);
	EQUAL(send_size, 40000);
	int duplicate = MUST(fcntl(stream[0], F_DUPFD_CLOEXEC, 150));
	pod_ready();

	char bytes[6000];
	if (pod_break("lost-byte")) EQUAL(read(stream[0], bytes, 1), 1);
	if (pod_break("content")) {
		EQUAL(read(stream[0], bytes, 3000), 3000);
		bytes[1500] ^= 1;
		EQUAL(write(stream[1], bytes, 3000), 3000);
	}
	if (pod_break("boundaries")) {
		EQUAL(read(packets[1], bytes, 100), 100);
		EQUAL(read(packets[1], bytes + 100, 2), 2);
		EQUAL(write(packets[0], bytes, 102), 102);
	}
	if (pod_break("order")) {
		EQUAL(read(datagram[1], bytes, 6000), 100);
		EQUAL(write(datagram[0], bytes, 100), 100);
	}
	if (pod_break("shut")) EQUAL(shutdown(half[1], SHUT_WR), 0);
	if (pod_break("peer-is-back")) {
		int other[2];
		make(other, SOCK_STREAM);
		send_pattern(other[1], 321, 4);
		dup2(other[0], alone[0]);
	}
	if (pod_break("buffer")) setsockopt(sized[0], SOL_SOCKET, SO_SNDBUF, &(int){ 10000 }, sizeof(int));
	if (pod_break("time-out")) setsockopt(sized[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ 0 }, sizeof time);
	if (pod_break("flags")) fcntl(sized[1], F_SETFL, O_RDWR);
	if (pod_break("pass-credentials")) setsockopt(sized[1], SOL_SOCKET, SO_PASSCRED, &(int){ 0 }, sizeof(int));
	if (pod_break("option")) setsockopt(sized[1], SOL_SOCKET, SO_RCVLOWAT, &(int){ 1 }, sizeof(int));
	if (pod_break("talk")) EQUAL(write(talk[0], &(uint64_t){ 1000000 }, 8), 8);

	while (pod_turn()) {
		check();
		for (int i = 0; i < 20; i++) ask();
	}
	check();
	ask();
	EQUAL(fcntl(datagram[0], F_GETFD), FD_CLOEXEC);
	EQUAL(fcntl(stream[0], F_GETFD), 0);
	EQUAL(fcntl(sized[0], F_GETFL), O_RDWR | O_NONBLOCK);
	EQUAL(fcntl(sized[1], F_GETFL), O_RDWR | O_NONBLOCK);
	EQUAL(fcntl(stream[0], F_GETFL), O_RDWR);
	EQUAL(option(sized[1], SO_PASSCRED), 1);
	EQUAL(option(sized[0], SO_PASSCRED), 0);
	EQUAL(option(sized[0], SO_TIMESTAMP), 1);
	EQUAL(option(sized[0], SO_KEEPALIVE), 1);
	EQUAL(option(sized[0], SO_PRIORITY), 3);
	EQUAL(option(sized[1], SO_RCVLOWAT), 500);
	EQUAL(option(sized[1], SO_TIMESTAMP), 0);
	socklen_t size = sizeof time;
	EQUAL(getsockopt(sized[0], SOL_SOCKET, SO_RCVTIMEO, &time, &size), 0);
	/* The kernel rounds to its tick. */
	CHECK(time.tv_sec == 3 && time.tv_usec >= 490000 && time.tv_usec <= 510000);
	EQUAL(getsockopt(sized[0], SOL_SOCKET, SO_SNDTIMEO, &time, &size), 0);
	CHECK(time.tv_sec == 4 && time.tv_usec >= 490000 && time.tv_usec <= 510000);

	receive_stream(duplicate, 1000, 1);
	receive_stream(stream[0], 2000, 1001);
	receive_stream(stream[1], 2000, 2);
	for (size_t i = 0; i < COUNT(sizes); i++) {
		receive_message(datagram[1], sizes[i], 10 + i);
		receive_message(datagram[0], sizes[i] / 2, 20 + i);
		receive_message(packets[1], sizes[i], 30 + i);
	}
	FAILS(recv(stream[0], bytes, 1, MSG_DONTWAIT), EAGAIN);
	FAILS(recv(datagram[0], bytes, 1, MSG_DONTWAIT), EAGAIN);
	FAILS(recv(packets[0], bytes, 1, MSG_DONTWAIT), EAGAIN);
	/* They still are pairs. */
	EQUAL(send(packets[1], "back", 4, 0), 4);
	EQUAL(recv(packets[0], bytes, sizeof bytes, MSG_DONTWAIT), 4);
	EQUAL(send(datagram[0], "on", 2, 0), 2);
	EQUAL(recv(datagram[1], bytes, sizeof bytes, MSG_DONTWAIT), 2);
	/* Half closed: what is left, then the end; the other direction works; no more writing. */
	receive_stream(half[1], 123, 3);
	EQUAL(recv(half[1], bytes, 1, MSG_DONTWAIT), 0);
	EQUAL(send(half[1], "still", 5, 0), 5);
	EQUAL(recv(half[0], bytes, 10, 0), 5);
	FAILS(send(half[0], "x", 1, MSG_NOSIGNAL), EPIPE);
	/* The peer is gone. */
	receive_stream(alone[0], 321, 4);
	EQUAL(recv(alone[0], bytes, 1, MSG_DONTWAIT), 0);
	FAILS(send(alone[0], "x", 1, MSG_NOSIGNAL), EPIPE);
	receive_message(alone_packets[0], 11, 5);
	receive_message(alone_packets[0], 22, 6);
	EQUAL(recv(alone_packets[0], bytes, 1, MSG_DONTWAIT), 0);
	receive_stream(large[0], 150000, 7);
	close(across[0]);
	close(talk[0]);
	pod_reap(child);
	pod_pass();
}
