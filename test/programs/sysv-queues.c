/*
 * System V message queues: numbers, keys, permissions, room; messages of many types, empty and large, in their order;
 * calls that wait to send and to receive.
 *
 * Via: pod
 */
#include <sys/ipc.h>
#include <sys/msg.h>
#include "pod-test.h"

#define LARGE 8192

struct message {
	long type;
	unsigned char bytes[LARGE];
};

static const key_t key = 0x50d43;
static int keyed, empty, full;
static _Atomic bool sent, received;

static void put(int id, long type, size_t length, int flags) {
	struct message message = { .type = type };
	pod_fill(message.bytes, length, (uint64_t)type);
	EQUAL(msgsnd(id, &message, length, flags), 0);
}

static void take(int id, long wanted, long type, size_t length) {
	struct message message;
	EQUAL(msgrcv(id, &message, LARGE, wanted, IPC_NOWAIT), length);
	EQUAL(message.type, type);
	CHECK_PATTERN(message.bytes, length, (uint64_t)type);
}

static void *send_blocked(void *argument) {
	(void)argument;
	put(full, 77, 10, 0);
	sent = true;
	return NULL;
}

static void *receive_blocked(void *argument) {
	struct message message;
	(void)argument;
	EQUAL(msgrcv(empty, &message, LARGE, -5, 0), 3);
	EQUAL(message.type, 5);
	received = true;
	return NULL;
}

static struct msqid_ds status_of(int id) {
	struct msqid_ds status;
	EQUAL(msgctl(id, IPC_STAT, &status), 0);
	return status;
}

static void check(void) {
	EQUAL(msgget(key, 0), keyed);
	struct msqid_ds status = status_of(keyed);
	EQUAL(status.msg_qnum, 6);
	EQUAL(status.msg_perm.mode & 0777, 0620);
	EQUAL(status_of(full).msg_qbytes, 100);
	EQUAL(status_of(full).msg_qnum, 2);
	EQUAL(status_of(empty).msg_qnum, 0);
	CHECKF(!sent && !received, "a call that waits came back");
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	for (int i = 0; i < 3; i++) EQUAL(msgctl(MUST(msgget(IPC_PRIVATE, 0600)), IPC_RMID, NULL), 0);
	keyed = MUST(msgget(key, IPC_CREAT | IPC_EXCL | 0620));
	empty = MUST(msgget(IPC_PRIVATE, 0600));
	full = MUST(msgget(IPC_PRIVATE, 0600));
	put(keyed, 3, 100, 0);
	put(keyed, 1, LARGE, 0);
	put(keyed, 3, 0, 0);
	put(keyed, 0x7fffffffffffffff, 1, 0);
	put(keyed, 2, 4001, 0);
	put(keyed, 3, 7, 0);
	put(full, 8, 60, 0);
	put(full, 9, 80, 0);
	/* Less than what lies in it. */
	struct msqid_ds status = status_of(full);
	status.msg_qbytes = 100;
	EQUAL(msgctl(full, IPC_SET, &status), 0);
	pthread_t threads[2];
	EQUAL(pthread_create(&threads[0], NULL, send_blocked, NULL), 0);
	EQUAL(pthread_create(&threads[1], NULL, receive_blocked, NULL), 0);
	pod_sleep(30);
	pod_ready();
	if (pod_break("message")) take(keyed, 0, 3, 100);
	if (pod_break("order")) {
		take(keyed, 0, 3, 100);
		put(keyed, 3, 100, 0);
	}
	if (pod_break("room")) {
		status.msg_qbytes = 4000;
		msgctl(full, IPC_SET, &status);
	}
	if (pod_break("received")) put(empty, 5, 3, 0);
	while (pod_turn()) check();
	check();
	EQUAL(status_of(keyed).msg_perm.uid, geteuid());
	take(keyed, 0, 3, 100);
	take(keyed, -2, 1, LARGE);
	take(keyed, 3, 3, 0);
	take(keyed, 0, 0x7fffffffffffffff, 1);
	take(keyed, 0, 2, 4001);
	take(keyed, 0, 3, 7);
	struct message message;
	FAILS(msgrcv(keyed, &message, LARGE, 0, IPC_NOWAIT), ENOMSG);
	take(full, 9, 9, 80);
	EQUAL(pthread_join(threads[0], NULL), 0);
	take(full, 0, 8, 60);
	take(full, 0, 77, 10);
	put(empty, 5, 3, 0);
	EQUAL(pthread_join(threads[1], NULL), 0);
	for (const int *id = (const int[]){ keyed, empty, full, -1 }; *id >= 0; id++) EQUAL(msgctl(*id, IPC_RMID, NULL), 0);
	pod_pass();
}
