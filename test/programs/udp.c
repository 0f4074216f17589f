/*
 * UDP sockets: bound, connected, connected both ways, IPv6, with datagrams that nobody has read, their sources and
 * boundaries; options, multicast groups, with all senders, only some, all but some; one that was shut down for
 * writing alone; a thread that is blocked in recv(2).
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include "pod-test.h"

static int server, client, stranger, left, right, six, member, blocked;
static struct sockaddr_in server_at, client_at, stranger_at, gone_at, left_at, right_at, blocked_at;
static struct sockaddr_in6 six_at;
static bool joined;
static _Atomic bool answered;
static unsigned char large[40000];

static int make(struct sockaddr_in *address) {
	int fd = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	*address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof *address;
	EQUAL(bind(fd, (struct sockaddr *)address, length), 0);
	EQUAL(getsockname(fd, (struct sockaddr *)address, &length), 0);
	return fd;
}

static void post(int fd, const char *text, const struct sockaddr_in *to) {
	EQUAL(sendto(fd, text, strlen(text), 0, (const struct sockaddr *)to, sizeof *to), strlen(text));
}

static void gets_from(int fd, const char *text, const struct sockaddr_in *from) {
	char bytes[64];
	struct sockaddr_in source;
	socklen_t length = sizeof source;
	EQUAL(recvfrom(fd, bytes, sizeof bytes, MSG_DONTWAIT, (struct sockaddr *)&source, &length), strlen(text));
	CHECKF(memcmp(bytes, text, strlen(text)) == 0, "not %s", text);
	CHECKF(memcmp(&source, from, sizeof source) == 0, "%s came from another port", text);
}

static void *wait_for_answer(void *argument) {
	(void)argument;
	char text[8];
	EQUAL(recv(blocked, text, sizeof text, 0), 6);
	answered = true;
	return NULL;
}

static int get(int fd, int level, int name) {
	int value = -1;
	socklen_t length = sizeof value;
	EQUAL(getsockopt(fd, level, name, &value, &length), 0);
	return value;
}

static void set(int fd, int level, int name, int value) {
	EQUAL(setsockopt(fd, level, name, &value, sizeof value), 0);
}

static struct ip_mreqn group(void) {
	struct ip_mreqn request = { .imr_ifindex = 1 };
	inet_aton("239.7.7.7", &request.imr_multiaddr);
	return request;
}

/* What is heard in a group: `senders` alone, or all but them. */
struct hearing {
	int fd, level;
	struct sockaddr_storage group;
	uint32_t mode;
	int count;
	struct sockaddr_storage senders[2];
	bool joined;
};

static struct hearing hearings[3];
static int quiet;

static struct sockaddr_storage address(int family, const char *text) {
	struct sockaddr_storage made = { .ss_family = (sa_family_t)family };
	void *place = family == AF_INET ? (void *)&((struct sockaddr_in *)&made)->sin_addr
	                                : (void *)&((struct sockaddr_in6 *)&made)->sin6_addr;
	EQUAL(inet_pton(family, text, place), 1);
	return made;
}

static void hear(struct hearing *hearing, int family, const char *group, uint32_t mode, const char *one, const char *two) {
	hearing->fd = socket(family, SOCK_DGRAM, 0);
	/* A computer without IPv6. */
	if (hearing->fd < 0) return;
	hearing->level = family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
	hearing->group = address(family, group);
	hearing->mode = mode;
	const char *const names[] = { one, two };
	for (int i = 0; i < 2 && names[i]; i++) hearing->senders[hearing->count++] = address(family, names[i]);
	if (mode == MCAST_EXCLUDE) {
		struct group_req request = { .gr_interface = 1, .gr_group = hearing->group };
		if (setsockopt(hearing->fd, hearing->level, MCAST_JOIN_GROUP, &request, sizeof request) != 0) return;
	}
	for (int i = 0; i < hearing->count; i++) {
		struct group_source_req request = { .gsr_interface = 1, .gsr_group = hearing->group,
			                                .gsr_source = hearing->senders[i] };
		int option = mode == MCAST_EXCLUDE ? MCAST_BLOCK_SOURCE : MCAST_JOIN_SOURCE_GROUP;
		if (setsockopt(hearing->fd, hearing->level, option, &request, sizeof request) != 0) return;
	}
	hearing->joined = true;
}

static void check_hearing(const struct hearing *hearing) {
	if (!hearing->joined) return;
	union {
		struct group_filter filter;
		char room[GROUP_FILTER_SIZE(4)];
	} told = { .filter = { .gf_interface = 1, .gf_group = hearing->group, .gf_numsrc = 4 } };
	socklen_t length = sizeof told;
	EQUAL(getsockopt(hearing->fd, hearing->level, MCAST_MSFILTER, &told, &length), 0);
	EQUAL(told.filter.gf_fmode, hearing->mode);
	EQUAL(told.filter.gf_numsrc, hearing->count);
	for (int i = 0; i < hearing->count; i++) {
		bool found = false;
		for (int k = 0; k < hearing->count; k++)
			if (memcmp(&told.filter.gf_slist[k], &hearing->senders[i], sizeof(struct sockaddr_in6)) == 0) found = true;
		CHECKF(found, "sender %d of a group is another", i);
	}
}

static void check(void) {
	FAILS(send(quiet, "word", 4, MSG_NOSIGNAL), EPIPE);
	for (size_t i = 0; i < COUNT(hearings); i++) check_hearing(&hearings[i]);
	struct pollfd mood = { .fd = quiet, .events = POLLIN | POLLRDHUP };
	EQUAL(poll(&mood, 1, 0), 0);
	char byte;
	struct sockaddr_in at;
	socklen_t length = sizeof at;
	FAILS(recv(client, &byte, 1, MSG_DONTWAIT), EAGAIN);
	EQUAL(getpeername(client, (struct sockaddr *)&at, &length), 0);
	CHECK(memcmp(&at, &server_at, sizeof at) == 0);
	EQUAL(getsockname(client, (struct sockaddr *)&at, &length), 0);
	CHECK(memcmp(&at, &client_at, sizeof at) == 0);
	FAILS(getpeername(server, (struct sockaddr *)&at, &length), ENOTCONN);
	EQUAL(get(server, SOL_SOCKET, SO_BROADCAST), 1);
	EQUAL(get(server, IPPROTO_IP, IP_PKTINFO), 1);
	EQUAL(get(server, SOL_SOCKET, SO_RCVBUF), 300000);
	EQUAL(get(member, IPPROTO_IP, IP_MULTICAST_TTL), 3);
	CHECK(!answered);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	server = make(&server_at);
	set(server, SOL_SOCKET, SO_BROADCAST, 1);
	set(server, IPPROTO_IP, IP_PKTINFO, 1);
	set(server, SOL_SOCKET, SO_RCVBUF, 150000);
	client = make(&client_at);
	EQUAL(connect(client, (struct sockaddr *)&server_at, sizeof server_at), 0);
	stranger = make(&stranger_at);
	int gone = make(&gone_at);
	left = make(&left_at);
	right = make(&right_at);
	EQUAL(connect(left, (struct sockaddr *)&right_at, sizeof right_at), 0);
	EQUAL(connect(right, (struct sockaddr *)&left_at, sizeof left_at), 0);
	blocked = make(&blocked_at);
	member = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	set(member, IPPROTO_IP, IP_MULTICAST_TTL, 3);
	/* In the head of each packet: router alert. */
	EQUAL(setsockopt(member, IPPROTO_IP, IP_OPTIONS, "\224\4\0", 4), 0);
	struct ip_mreqn request = group();
	joined = setsockopt(member, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof request) == 0;
	struct sockaddr_in quiet_at;
	quiet = make(&quiet_at);
	EQUAL(connect(quiet, (struct sockaddr *)&stranger_at, sizeof stranger_at), 0);
	EQUAL(shutdown(quiet, SHUT_WR), 0);
	hear(&hearings[0], AF_INET, "232.7.7.7", MCAST_INCLUDE, "127.0.0.1", "10.7.7.7");
	hear(&hearings[1], AF_INET, "239.7.7.8", MCAST_EXCLUDE, "10.7.7.8", NULL);
	hear(&hearings[2], AF_INET6, "ff35::7:7", MCAST_INCLUDE, "fd00::7", NULL);
	six = socket(AF_INET6, SOCK_DGRAM, 0);
	six_at = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	socklen_t length = sizeof six_at;
	if (six >= 0 && bind(six, (struct sockaddr *)&six_at, length) != 0) {
		/* A computer without IPv6. */
		close(six);
		six = -1;
	}
	if (six >= 0) {
		EQUAL(getsockname(six, (struct sockaddr *)&six_at, &length), 0);
		EQUAL(sendto(six, "self", 4, 0, (struct sockaddr *)&six_at, length), 4);
	}
	EQUAL(send(client, "one", 3, 0), 3);
	post(stranger, "two", &server_at);
	post(gone, "three", &server_at);
	EQUAL(send(client, "four", 4, 0), 4);
	pod_fill(large, sizeof large, 5);
	EQUAL(send(client, large, sizeof large, 0), sizeof large);
	EQUAL(close(gone), 0);
	EQUAL(send(left, "to right", 8, 0), 8);
	pthread_t thread;
	EQUAL(pthread_create(&thread, NULL, wait_for_answer, NULL), 0);
	pod_ready();

	char byte;
	if (pod_break("taken")) recv(server, &byte, 1, 0);
	if (pod_break("one-more")) post(stranger, "more", &server_at);
	if (pod_break("option")) set(server, IPPROTO_IP, IP_PKTINFO, 0);
	if (pod_break("left")) setsockopt(member, IPPROTO_IP, IP_DROP_MEMBERSHIP, &request, sizeof request);
	if (pod_break("head")) EQUAL(setsockopt(member, IPPROTO_IP, IP_OPTIONS, "", 0), 0);
	if (pod_break("sender")) {
		struct group_source_req request = { .gsr_interface = 1, .gsr_group = hearings[0].group,
			                                .gsr_source = hearings[0].senders[1] };
		setsockopt(hearings[0].fd, hearings[0].level, MCAST_LEAVE_SOURCE_GROUP, &request, sizeof request);
	}
	if (pod_break("shut")) EQUAL(shutdown(quiet, SHUT_RD), 0);
	while (pod_turn()) check();

	check();
	gets_from(server, "one", &client_at);
	gets_from(server, "two", &stranger_at);
	gets_from(server, "three", &gone_at);
	gets_from(server, "four", &client_at);
	static unsigned char bytes[sizeof large + 1];
	EQUAL(recv(server, bytes, sizeof bytes, MSG_DONTWAIT), sizeof large);
	CHECK_PATTERN(bytes, sizeof large, 5);
	FAILS(recv(server, &byte, 1, MSG_DONTWAIT), EAGAIN);
	post(server, "answer", &client_at);
	gets_from(client, "answer", &server_at);
	/* Connected: not from others. */
	post(stranger, "intruder", &client_at);
	FAILS(recv(client, &byte, 1, MSG_DONTWAIT), EAGAIN);
	gets_from(right, "to right", &left_at);
	EQUAL(send(right, "to left", 7, 0), 7);
	gets_from(left, "to left", &right_at);
	length = sizeof bytes;
	EQUAL(getsockopt(member, IPPROTO_IP, IP_OPTIONS, bytes, &length), 0);
	EQUAL(length, 4);
	EQUAL(bytes[0], 0224);
	if (six >= 0) {
		EQUAL(recv(six, bytes, sizeof bytes, MSG_DONTWAIT), 4);
		CHECK(memcmp(bytes, "self", 4) == 0);
	}
	/* A member can't join again. */
	if (joined) FAILS(setsockopt(member, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof request), EADDRINUSE);
	CHECK(!answered);
	post(stranger, "answer", &blocked_at);
	EQUAL(pthread_join(thread, NULL), 0);
	CHECK(answered);
	pod_pass();
}
