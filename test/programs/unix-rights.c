/*
 * Descriptors on their way through unix sockets (SCM_RIGHTS): in their place between the bytes of a stream, with
 * messages, many at once, from a sender that has gone; regular files whose offset somebody shares, a locked one and
 * pipes that are open nowhere else, an eventfd in an epoll set, sockets that hold descriptors themselves.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include "pod-test.h"

#define MANY 60

static int stream[2], datagram[2], packets[2], nest[2], survivor[2];
static int shared, event;
static pod_path_t locked_path;

static void send_fds(int socket, const char *text, const int *fds, int count) {
	char control[CMSG_SPACE(MANY * sizeof(int))] = { 0 };
	struct iovec part = { (void *)text, strlen(text) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	if (count > 0) {
		message.msg_control = control, message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		struct cmsghdr *head = CMSG_FIRSTHDR(&message);
		*head = (struct cmsghdr){ CMSG_LEN(count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(head), fds, count * sizeof(int));
	}
	EQUAL(sendmsg(socket, &message, 0), strlen(text));
}

/** One recvmsg(2) of at most `most` bytes, which gives this text and so many descriptors. */
static void receive(int socket, size_t most, const char *text, int *fds, int count) {
	char bytes[64] = "", control[CMSG_SPACE((MANY + 1) * sizeof(int))];
	struct iovec part = { bytes, most };
	struct msghdr message = { .msg_iov = &part,
		                      .msg_iovlen = 1,
		                      .msg_control = control,
		                      .msg_controllen = sizeof control };
	ssize_t got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	CHECKF(got == (ssize_t)strlen(text) && memcmp(bytes, text, (size_t)got) == 0, "got %zd bytes '%s' instead of '%s'",
	       got, bytes, text);
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	int found = head ? (int)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int)) : 0;
	CHECKF(found == count, "'%s' brought %d descriptors, not %d", text, found, count);
	if (count > 0) memcpy(fds, CMSG_DATA(head), count * sizeof(int));
}

static void set_up_stream(void) {
	pod_path_t path;
	shared = MUST(open(pod_path(path, "shared"), O_RDWR | O_CREAT, 0666));
	EQUAL(write(shared, "0123456789", 10), 10);
	EQUAL(lseek(shared, 3, SEEK_SET), 3);
	int ends[2];
	EQUAL(pipe(ends), 0);
	EQUAL(write(ends[1], "in the pipe", 11), 11);
	int both[2] = { shared, ends[1] };
	send_fds(stream[0], "abc", NULL, 0);
	send_fds(stream[0], "de", both, 2);
	send_fds(stream[0], "fg", NULL, 0);
	send_fds(stream[0], "h", &ends[0], 1);
	send_fds(stream[0], "i", &shared, 1);
	send_fds(stream[0], "jkl", NULL, 0);
	close(ends[0]), close(ends[1]);
}

static void check_stream(void) {
	int fds[2], reader, again;
	receive(stream[1], 2, "ab", NULL, 0);
	receive(stream[1], 20, "cde", fds, 2);
	receive(stream[1], 20, "fgh", &reader, 1);
	receive(stream[1], 1, "i", &again, 1);
	receive(stream[1], 20, "jkl", NULL, 0);
	char text[16] = "";
	EQUAL(read(fds[0], text, 2), 2);
	EQUAL(memcmp(text, "34", 2), 0);
	EQUAL(lseek(shared, 0, SEEK_CUR), 5);
	EQUAL(lseek(again, 0, SEEK_CUR), 5);
	EQUAL(write(fds[1], "!", 1), 1);
	EQUAL(read(reader, text, 15), 12);
	EQUAL(memcmp(text, "in the pipe!", 12), 0);
	close(fds[1]);
	EQUAL(read(reader, text, 15), 0);
}

static void set_up_messages(void) {
	pod_path_t path;
	int locked = MUST(open(pod_path(locked_path, "locked"), O_RDWR | O_CREAT, 0666));
	EQUAL(flock(locked, LOCK_EX), 0);
	send_fds(datagram[0], "first", NULL, 0);
	send_fds(datagram[0], "second", &locked, 1);
	send_fds(datagram[0], "third", NULL, 0);
	close(locked);
	int many[MANY];
	for (int i = 0; i < MANY; i++) {
		many[i] = i % 3 == 0 ? shared : MUST(open(pod_path(path, "many"), O_RDWR | O_CREAT, 0666));
		if (i % 3 == 1) EQUAL(lseek(many[i], i, SEEK_SET), i);
	}
	send_fds(packets[0], "many", many, MANY);
	for (int i = 0; i < MANY; i++)
		if (many[i] != shared) close(many[i]);
	send_fds(survivor[0], "gone", &event, 1);
	close(survivor[0]);
}

static void check_locked(void) {
	int try = MUST(open(locked_path, O_RDWR));
	FAILS(flock(try, LOCK_SH | LOCK_NB), EWOULDBLOCK);
	close(try);
}

static void check_messages(void) {
	int locked, many[MANY], found;
	receive(datagram[1], 20, "first", NULL, 0);
	receive(datagram[1], 20, "second", &locked, 1);
	receive(datagram[1], 20, "third", NULL, 0);
	check_locked();
	close(locked);
	int try = MUST(open(locked_path, O_RDWR));
	EQUAL(flock(try, LOCK_EX | LOCK_NB), 0);
	receive(packets[1], 20, "many", many, MANY);
	for (int i = 0; i < MANY; i++)
		EQUAL(lseek(many[i], 0, SEEK_CUR), i % 3 == 0 ? lseek(shared, 0, SEEK_CUR) : i % 3 == 1 ? i : 0);
	receive(survivor[1], 20, "gone", &found, 1);
	EQUAL(write(found, &(uint64_t){ 5 }, 8), 8);
	uint64_t count;
	EQUAL(read(event, &count, 8), 8);
	EQUAL(count, 5);
	char byte;
	EQUAL(recv(survivor[1], &byte, 1, MSG_DONTWAIT), 0);
}

/** Both ends of a pair in flight; one of them holds an epoll set that watches the eventfd. */
static void set_up_nest(void) {
	int inner[2];
	EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, inner), 0);
	int set = MUST(epoll_create1(0));
	EQUAL(epoll_ctl(set, EPOLL_CTL_ADD, event, &(struct epoll_event){ EPOLLIN, { .u64 = 77 } }), 0);
	send_fds(inner[0], "set", &set, 1);
	close(set);
	send_fds(nest[0], "left", &inner[0], 1);
	send_fds(nest[0], "right", &inner[1], 1);
	close(inner[0]), close(inner[1]);
}

static void check_nest(void) {
	int inner[2], set;
	receive(nest[1], 4, "left", &inner[0], 1);
	receive(nest[1], 5, "right", &inner[1], 1);
	receive(inner[1], 20, "set", &set, 1);
	struct epoll_event ready;
	EQUAL(epoll_wait(set, &ready, 1, 0), 0);
	EQUAL(write(event, &(uint64_t){ 1 }, 8), 8);
	EQUAL(epoll_wait(set, &ready, 1, 0), 1);
	EQUAL(ready.data.u64, 77);
	EQUAL(write(inner[1], "back", 4), 4);
	receive(inner[0], 20, "back", NULL, 0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, stream), 0);
	EQUAL(socketpair(AF_UNIX, SOCK_DGRAM, 0, datagram), 0);
	EQUAL(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packets), 0);
	EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, nest), 0);
	EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, survivor), 0);
	event = MUST(eventfd(0, EFD_NONBLOCK));
	set_up_stream();
	set_up_messages();
	set_up_nest();
	pod_ready();
	int fd;
	if (pod_break("byte")) receive(stream[1], 1, "a", NULL, 0);
	if (pod_break("taken")) receive(stream[1], 20, "abcde", (int[2]){ 0 }, 2);
	if (pod_break("offset")) EQUAL(lseek(shared, 1, SEEK_SET), 1);
	if (pod_break("unlocked")) {
		receive(datagram[1], 20, "first", NULL, 0);
		receive(datagram[1], 20, "second", &fd, 1);
		flock(fd, LOCK_UN);
	}
	if (pod_break("nested")) receive(nest[1], 4, "left", &fd, 1);
	while (pod_turn()) check_locked();
	check_stream();
	check_messages();
	check_nest();
	pod_pass();
}
