/*
 * Netlink sockets: one that asks about the network and hears of its changes (number, groups, options, buffer), one of
 * device news with a filter, in which a thread waits and goes on waiting; some that have no number yet.
 */
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include "pod-test.h"

static int route, news, unbound, listener;
static uint32_t port;
static _Atomic bool came_back;

static struct sock_filter nothing[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
	BPF_STMT(BPF_RET | BPF_K, 0),
};

static void set(int fd, int level, int option, int value) {
	EQUAL(setsockopt(fd, level, option, &value, sizeof value), 0);
}

static int get(int fd, int level, int option) {
	int value = -1;
	socklen_t size = sizeof value;
	EQUAL(getsockopt(fd, level, option, &value, &size), 0);
	return value;
}

static void make_route(void) {
	route = MUST(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
	/* What no other program of this network has. */
	struct sockaddr_nl name = { .nl_family = AF_NETLINK, .nl_groups = 1 << (RTNLGRP_IPV4_IFADDR - 1) };
	do {
		port = name.nl_pid = 0x40000000 | (uint32_t)pod_now() >> 4;
	} while (bind(route, (struct sockaddr *)&name, sizeof name) != 0);
	set(route, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_LINK);
	set(route, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_BRVLAN);
	set(route, SOL_NETLINK, NETLINK_EXT_ACK, 1);
	set(route, SOL_NETLINK, NETLINK_PKTINFO, 1);
	set(route, SOL_SOCKET, SO_RCVBUF, 65536);
	set(route, SOL_SOCKET, SO_PASSCRED, 1);
}

static void make_news(void) {
	news = MUST(socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT));
	struct sockaddr_nl name = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	EQUAL(bind(news, (struct sockaddr *)&name, sizeof name), 0);
	struct sock_fprog program = { .len = COUNT(nothing), .filter = nothing };
	EQUAL(setsockopt(news, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program), 0);
}

/* No number yet: one that has done nothing, one that hears all the same. */
static void make_unbound(void) {
	unbound = MUST(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
	set(unbound, SOL_SOCKET, SO_RCVBUF, 40000);
	listener = MUST(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
	set(listener, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_LINK);
}

static void *wait_for_news(void *argument) {
	(void)argument;
	char text[4096];
	recv(news, text, sizeof text, 0);
	came_back = true;
	return NULL;
}

/* Ask for all links, and find the loopback among them; what is told unasked meanwhile is passed over. */
static void ask(void) {
	static uint32_t sequence;
	struct {
		struct nlmsghdr head;
		struct ifinfomsg body;
	} request = { { sizeof request, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, ++sequence, 0 }, { 0 } };
	EQUAL(send(route, &request, sizeof request, 0), sizeof request);
	bool done = false, loopback = false;
	static char buffer[65536];
	while (!done) {
		ssize_t length = recv(route, buffer, sizeof buffer, 0);
		if (length < 0 && errno == EAGAIN) {
			pod_sleep(1);
			continue;
		}
		CHECKF(length > 0, "no answer");
		int left = (int)length;
		for (struct nlmsghdr *message = (struct nlmsghdr *)buffer; NLMSG_OK(message, left);
		     message = NLMSG_NEXT(message, left)) {
			if (message->nlmsg_seq != sequence) continue;
			EQUAL(message->nlmsg_pid, port);
			if (message->nlmsg_type == NLMSG_DONE) done = true;
			else if (message->nlmsg_type == RTM_NEWLINK) loopback |= ((struct ifinfomsg *)NLMSG_DATA(message))->ifi_index == 1;
		}
	}
	CHECK(loopback);
}

static void check_names(void) {
	struct sockaddr_nl name;
	socklen_t size = sizeof name;
	EQUAL(getsockname(route, (struct sockaddr *)&name, &size), 0);
	EQUAL(name.nl_pid, port);
	EQUAL(name.nl_groups, 1 << (RTNLGRP_IPV4_IFADDR - 1) | 1 << (RTNLGRP_LINK - 1));
	uint32_t groups[64] = { 0 };
	size = sizeof groups;
	EQUAL(getsockopt(route, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, groups, &size), 0);
	EQUAL(groups[0], name.nl_groups);
	EQUAL(groups[1], 1 << (RTNLGRP_BRVLAN - 33));
	size = sizeof name;
	EQUAL(getsockname(news, (struct sockaddr *)&name, &size), 0);
	CHECK(name.nl_pid != 0);
	EQUAL(name.nl_groups, 1);
}

static void check_unbound(int fd, uint32_t groups) {
	struct sockaddr_nl name;
	socklen_t size = sizeof name;
	EQUAL(getsockname(fd, (struct sockaddr *)&name, &size), 0);
	EQUAL(name.nl_pid, 0);
	uint32_t told[64] = { 0 };
	size = sizeof told;
	EQUAL(getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, told, &size), 0);
	EQUAL(told[0], groups);
}

static void check_options(void) {
	EQUAL(get(unbound, SOL_SOCKET, SO_RCVBUF), 80000);
	EQUAL(get(unbound, SOL_SOCKET, SO_PROTOCOL), NETLINK_SOCK_DIAG);
	check_unbound(unbound, 0);
	check_unbound(listener, 1 << (RTNLGRP_LINK - 1));
	EQUAL(get(route, SOL_NETLINK, NETLINK_EXT_ACK), 1);
	EQUAL(get(route, SOL_NETLINK, NETLINK_PKTINFO), 1);
	EQUAL(get(route, SOL_NETLINK, NETLINK_CAP_ACK), 0);
	EQUAL(get(route, SOL_SOCKET, SO_RCVBUF), 131072);
	EQUAL(get(route, SOL_SOCKET, SO_PASSCRED), 1);
	EQUAL(get(route, SOL_SOCKET, SO_TYPE), SOCK_RAW);
	EQUAL(get(news, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
	EQUAL(get(route, SOL_SOCKET, SO_PROTOCOL), NETLINK_ROUTE);
	EQUAL(get(news, SOL_SOCKET, SO_PROTOCOL), NETLINK_KOBJECT_UEVENT);
	EQUAL(fcntl(route, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	struct sock_filter filter[8];
	socklen_t count = COUNT(filter);
	EQUAL(getsockopt(news, SOL_SOCKET, SO_GET_FILTER, filter, &count), 0);
	EQUAL(count, COUNT(nothing));
	CHECK(memcmp(filter, nothing, sizeof nothing) == 0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	make_route();
	make_news();
	make_unbound();
	pthread_t thread;
	EQUAL(pthread_create(&thread, NULL, wait_for_news, NULL), 0);
	pod_sleep(30);
	ask();
	pod_ready();
	if (pod_break("port")) {
		close(route);
		uint32_t before = port;
		make_route();
		port = before;
	}
	if (pod_break("group")) set(route, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, RTNLGRP_BRVLAN);
	if (pod_break("option")) set(route, SOL_NETLINK, NETLINK_EXT_ACK, 0);
	if (pod_break("buffer")) set(route, SOL_SOCKET, SO_RCVBUF, 32768);
	if (pod_break("unbound")) set(listener, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, RTNLGRP_LINK);
	if (pod_break("filter")) set(news, SOL_SOCKET, SO_DETACH_FILTER, 0);
	while (pod_turn()) ask();
	ask();
	check_names();
	check_options();
	CHECKF(!came_back, "recv came back without news");
	pod_pass();
}
